"""Budgets over HTTP: `/budget/…`. Numbers are JSON numbers, read and written by their text."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Generic, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from services.alerts.domain.budget import (
    CONSOLE_SYNC,
    REASON_LENGTH_MAX,
    AdjustmentDoesNotFit,
    BudgetRefused,
    BudgetUnknown,
    CallConflict,
    Wish,
)
from services.alerts.handlers.exact import Exact, NotExact, read_object, write
from services.alerts.handlers.http.auth import Caller, Manager, Reader, requires
from services.alerts.handlers.http.pagination import Paging, bad_cursor, encode_cursor
from services.alerts.handlers.http.problem import Problem, problem_responses
from services.alerts.ports.budgets import Usage
from services.alerts.use_cases.budgets import DAYS_MAX, USAGES_MAX, Asker, Budgets
from shared.money import is_currency

Tracker = Annotated[Caller, Depends(requires("owner", "manager", "ingest"))]
"""Who may add usage and readings: people, and the keys of producers."""
BudgetName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-]*$")]
NO_NUL = r"^[^\x00]*$"
Reason = Annotated[str, Field(min_length=1, max_length=REASON_LENGTH_MAX, pattern=NO_NUL)]
Key = Annotated[str, Field(min_length=1, max_length=255, pattern=NO_NUL)]
NameQuery = Annotated[
    str | None, Query(alias="budget", max_length=64, pattern=NO_NUL, description="Left out: the first budget.")
]

Body = TypeVar("Body", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Call(_Strict):
    budget: BudgetName | None = Field(None, description="Left out: the organisation's first budget.")
    idempotency_key: Key | None = Field(
        None, description="The same key with the same call adds nothing and answers the rows that the first added."
    )


class ReconcileRequest(_Call):
    """What is known to remain; the adjustment follows from it."""

    remaining_budget: Exact = Field(description="What the provider's console says is left.")
    total_budget: Exact | None = Field(None, description="The new total, where it changed: a row of its own.")
    manual_adjustment: Exact | None = Field(None, description="Held against remaining less tracked remaining.")
    adjustment_reason: Reason = CONSOLE_SYNC


class ManualRequest(_Call):
    """An adjustment that somebody worked out; refused with the expected figure where it does not fit."""

    current_budget: Exact = Field(description="What the provider's console says is left.")
    manual_adjustment: Exact = Field(description="`current_budget` less what the tracking holds remains.")
    adjustment_reason: Reason


class BudgetRequest(_Strict):
    """A budget to make; of one that is there, the thresholds are changed."""

    provider: BudgetName
    total_budget: Exact
    currency: str = "USD"
    plug_warn: Exact | None = None
    plug_critical: Exact | None = None


class UsageRow(_Strict):
    id: Key
    amount: Exact
    occurred_at: AwareDatetime | None = None


class UsageRequest(_Strict):
    """Usage that a tracker counted; the same id twice is one usage."""

    budget: BudgetName | None = None
    usage: Annotated[list[UsageRow], Field(min_length=1, max_length=USAGES_MAX)]


class ReadingRequest(_Strict):
    """What an odometer shows now, or the final figure of a month."""

    provider: BudgetName
    reading: Exact
    month: str | None = Field(None, description="2025-08: the final figure of this month, also of one long past.")
    currency: str = "USD"


class _Checked(Generic[Body]):
    """Reads the body by the text of its numbers, which the framework would turn into floats."""

    def __init__(self, model: type[Body]) -> None:
        self._model = model

    async def __call__(self, request: Request) -> Body:
        try:
            return self._model.model_validate(read_object(await request.body()))
        except NotExact as error:
            raise RequestValidationError([{"type": "not_exact", "loc": ("body",), "msg": str(error)}]) from None
        except ValidationError as error:
            raise RequestValidationError(
                [
                    {
                        "type": found["type"],
                        "loc": ("body", *found["loc"]),
                        "msg": found["msg"].removeprefix("Value error, "),
                    }
                    for found in error.errors()
                ]
            ) from None


def _described(model: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says of a body that the framework does not read itself."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}


def router(budgets: Budgets, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> APIRouter:
    """Return the routes below `/budget`."""
    routes = APIRouter(prefix="/budget", tags=["budgets"])
    _writing(routes, budgets)
    _keeping(routes, budgets)
    _reading(routes, budgets, now)
    _overview(routes, budgets)
    return routes


def _writing(routes: APIRouter, budgets: Budgets) -> None:
    errors = problem_responses(401, 403, 404, 409, 422)

    @routes.post("/reconcile", responses=errors, openapi_extra=_described(ReconcileRequest))
    async def reconcile(
        caller: Manager, body: Annotated[ReconcileRequest, Depends(_Checked(ReconcileRequest))]
    ) -> Response:
        """Record what remains; the difference to the tracking becomes a plug. Nothing differs: nothing is recorded."""
        wish = Wish(
            remaining=body.remaining_budget,
            total=body.total_budget,
            adjustment=body.manual_adjustment,
            reason=body.adjustment_reason,
        )
        return await _reconciled(budgets, caller, wish, body)

    @routes.post("/reconciliation/manual", responses=errors, openapi_extra=_described(ManualRequest))
    async def record_manual(
        caller: Manager, body: Annotated[ManualRequest, Depends(_Checked(ManualRequest))]
    ) -> Response:
        """Record an adjustment with its reason; one that does not fit is refused with the expected figure."""
        wish = Wish(remaining=body.current_budget, adjustment=body.manual_adjustment, reason=body.adjustment_reason)
        return await _reconciled(budgets, caller, wish, body)


async def _reconciled(budgets: Budgets, caller: Caller, wish: Wish, body: _Call) -> Response:
    asker = Asker(actor=caller.actor, reconciled_by=caller.actor)
    try:
        done = await budgets.reconcile(
            caller.org, wish, asker, budget=body.budget, idempotency_key=body.idempotency_key
        )
    except (BudgetRefused, BudgetUnknown) as error:
        raise problem_of(error) from None
    return _json(done)


def _keeping(routes: APIRouter, budgets: Budgets) -> None:
    errors = problem_responses(401, 403, 404, 409, 422)

    @routes.put("/budgets/{budget}", responses=errors, openapi_extra=_described(BudgetRequest))
    async def put_budget(
        caller: Manager, budget: BudgetName, body: Annotated[BudgetRequest, Depends(_Checked(BudgetRequest))]
    ) -> Response:
        """Make a budget, or change the thresholds from which its plugs are pointed out."""
        _known_currency(body.currency)
        try:
            made = await budgets.create(
                caller.org,
                budget,
                provider=body.provider,
                currency=body.currency,
                total=body.total_budget,
                plug_warn=body.plug_warn,
                plug_critical=body.plug_critical,
            )
        except BudgetRefused as error:
            raise problem_of(error) from None
        return _json(made)

    @routes.post("/usage", responses=errors, openapi_extra=_described(UsageRequest))
    async def track(caller: Tracker, body: Annotated[UsageRequest, Depends(_Checked(UsageRequest))]) -> Response:
        """Add usage that was tracked; what is known already is counted once."""
        usages = [Usage(id=row.id, amount=row.amount, occurred_at=row.occurred_at) for row in body.usage]
        try:
            status, new = await budgets.track(caller.org, usages, body.budget)
        except (BudgetRefused, BudgetUnknown) as error:
            raise problem_of(error) from None
        return _json({"added": new, "known": len(usages) - new, "budget_status": status})

    @routes.post("/odometer", responses=errors, openapi_extra=_described(ReadingRequest))
    async def read_odometer(
        caller: Tracker, body: Annotated[ReadingRequest, Depends(_Checked(ReadingRequest))]
    ) -> Response:
        """Enter a reading, or a month's final figure."""
        _known_currency(body.currency)
        try:
            status = await budgets.read_odometer(
                caller.org, body.provider, body.reading, month=body.month, currency=body.currency, actor=caller.actor
            )
        except BudgetRefused as error:
            raise problem_of(error) from None
        return _json(status)


def _reading(routes: APIRouter, budgets: Budgets, now: Callable[[], datetime]) -> None:
    errors = problem_responses(401, 403, 404, 422)

    @routes.get("/reconciliation/history", responses=errors)
    async def history(
        caller: Reader,
        wish: Paging,
        budget: Annotated[
            str | None, Query(max_length=64, pattern=NO_NUL, description="Left out: of all budgets.")
        ] = None,
        days: Annotated[int | None, Query(ge=1, le=DAYS_MAX, description="Left out: all there are.")] = None,
    ) -> Response:
        """List what was recorded, with who asked for it and why, the newest first."""
        since = None if days is None else now() - timedelta(days=days)
        try:
            rows = await budgets.history(
                caller.org, budget=budget, since=since, before_id=_place(wish.after), limit=wish.limit + 1
            )
        except BudgetUnknown as error:
            raise problem_of(error) from None
        shown = rows[: wish.limit]
        more = encode_cursor([str(shown[-1].id)]) if len(rows) > wish.limit else None
        return _json({"data": shown, "next_cursor": more})

    @routes.get("/reconciliation/status", responses=errors)
    async def reconciliation_status(
        caller: Reader,
        days: Annotated[int, Query(ge=1, le=DAYS_MAX)] = 7,
        budget: Annotated[
            str | None, Query(max_length=64, pattern=NO_NUL, description="Left out: over all budgets.")
        ] = None,
    ) -> Response:
        """Say how well the tracking does, and what to do."""
        try:
            return _json(await budgets.reconciliation_status(caller.org, days, budget))
        except BudgetUnknown as error:
            raise problem_of(error) from None

    @routes.get("/status", responses=errors)
    async def status(caller: Reader, budget: NameQuery = None) -> Response:
        """Say how a budget stands."""
        try:
            return _json(await budgets.status(caller.org, budget))
        except BudgetUnknown as error:
            raise problem_of(error) from None

    @routes.get("/budgets", responses=errors)
    async def list_budgets(caller: Reader) -> Response:
        """List every budget as it stands, the first made first."""
        return _json({"data": await budgets.statuses(caller.org), "next_cursor": None})


def _overview(routes: APIRouter, budgets: Budgets) -> None:
    errors = problem_responses(401, 403, 404, 422)

    @routes.get("/unified", responses=errors)
    async def unified(caller: Reader) -> Response:
        """Add up the cost over all providers, per currency."""
        return _json(await budgets.unified(caller.org))

    @routes.get("/odometer", responses=errors)
    async def odometer(
        caller: Reader, provider: Annotated[str, Query(max_length=64, pattern=NO_NUL)] = "groq"
    ) -> Response:
        """Show an odometer: this month, the months before, days until its reset."""
        try:
            return _json(await budgets.odometer(caller.org, provider))
        except BudgetUnknown as error:
            raise problem_of(error) from None

    @routes.get(
        "/picture",
        response_class=Response,
        responses={**errors, 200: {"content": {"image/svg+xml": {}}, "description": "SVG, without scripts"}},
    )
    async def picture(caller: Reader, budget: NameQuery = None) -> Response:
        """Draw a budget over time: tracked usage and plugs, adding up to what was spent, against the total."""
        try:
            drawn = await budgets.picture(caller.org, budget)
        except BudgetUnknown as error:
            raise problem_of(error) from None
        return Response(drawn, media_type="image/svg+xml")

    @routes.get("/narrator", responses=errors)
    async def narrator(caller: Reader) -> Response:
        """Tell all of it in a few sentences."""
        return _json({"narrator_context": await budgets.narrator_context(caller.org)})


def problem_of(error: BudgetRefused | BudgetUnknown) -> Problem:
    """Return the answer that an error of the use case is."""
    if isinstance(error, BudgetUnknown):
        return Problem(404, "not-found", str(error))
    if isinstance(error, AdjustmentDoesNotFit):
        return Problem(
            409,
            "adjustment-does-not-fit",
            str(error),
            expected_adjustment=f"{error.expected:f}",
            tracked_remaining=f"{error.tracked_remaining:f}",
        )
    if isinstance(error, CallConflict):
        return Problem(409, "conflict", str(error))
    return Problem(422, "invalid-request", str(error))


def _json(answer: object) -> Response:
    return Response(write(answer), media_type="application/json")


def _place(after: tuple[str, ...] | None) -> int | None:
    if after is None:
        return None
    if len(after) != 1 or not after[0].isascii() or not after[0].isdigit() or len(after[0]) > 18:
        raise bad_cursor()
    return int(after[0])


def _known_currency(code: str) -> None:
    if not is_currency(code):
        raise Problem(
            422,
            "invalid-request",
            f"currency: {code[:12]!r} is none that tieout knows; write USD or another ISO 4217 code",
        )

"""Runs and reports of the billing pack: trigger, list, report, and the token-guarded daily run."""

import hmac
import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from services.alerts.domain.period import PERIOD_SYNTAX, PeriodRefused
from services.alerts.handlers.http.auth import Manager
from services.alerts.handlers.http.pagination import Page, PageWish, Paging, bad_cursor, page
from services.alerts.handlers.http.problem import Problem, not_found, problem_responses
from services.alerts.ports.runs import Run, RunStatus, RunTrigger, StoredReport
from services.alerts.use_cases.runs import PACK, OrgUnknown, Runs

TOKEN_HEADER = "x-reconciliation-token"  # noqa: S105 - the header's name

_EXAMPLE_RUN: dict[str, Any] = {
    "id": "0b5f7f0e-6e0f-4d0a-9a55-0a6d1a1f6f10",
    "org": "acme",
    "pack": "billing",
    "period": {"start": "2026-11-01", "end": "2026-12-01", "zone": "Europe/Berlin"},
    "trigger": "manual",
    "requested_by": "finance (tk_a1)",
    "status": "completed",
    "provisional": False,
    "summary": {"verdict": "complete", "rules": {"billing.payments": {"matched_percent": "98.52", "open": 12}}},
    "error": None,
    "created_at": "2026-12-01T06:00:00Z",
    "updated_at": "2026-12-01T06:00:02Z",
    "completed_at": "2026-12-01T06:00:02Z",
}


class PeriodRange(BaseModel):
    """Days [start, end) in the organisation's zone."""

    model_config = ConfigDict(extra="forbid")

    start: str
    end: str = Field(description="The first day that no longer belongs to the period.")


PeriodWish = Annotated[
    str | PeriodRange,
    Field(description=f"{PERIOD_SYNTAX}: days in the organisation's zone.", examples=["2026-11", "2026-11-20"]),
]


class TriggerBody(BaseModel):
    """What to run."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"period": "2026-11"}, {"period": {"start": "2026-11-01", "end": "2026-11-08"}}]
        },
    )

    period: PeriodWish
    org: str | None = Field(default=None, description="The key's own organisation; another one is refused.")


class DailyBody(BaseModel):
    """What to run instead of yesterday for every organisation."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{}, {"org": "acme", "period": "2026-11-20"}]}
    )

    org: str | None = None
    period: PeriodWish | None = None


class RunPeriod(BaseModel):
    """Days [start, end) in `zone`."""

    start: str
    end: str
    zone: str


class RunBody(BaseModel):
    """One run: an organisation and a period, with its figures in short."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE_RUN]})

    id: str
    org: str
    pack: str
    period: RunPeriod
    trigger: RunTrigger
    requested_by: str
    status: RunStatus = Field(
        description="`running`: provisional, completes by itself. `completed`: final. `incomplete`: money that no cause "
        "explains. `failed`: see `error`; tried again."
    )
    provisional: bool
    summary: dict[str, Any] | None
    error: str | None
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None


class DailyFailureBody(BaseModel):
    """An organisation without a run, and why."""

    org: str
    error: str


class DailyAnswer(BaseModel):
    """The runs of the day, made now or before."""

    runs: list[RunBody]
    failed: list[DailyFailureBody]


class RunReport(BaseModel):
    """What stands beside `reportJson`."""

    run: RunBody
    reportMarkdown: str  # noqa: N815 - the name is a contract of the billing pack


_EXAMPLE_REPORT = {"run": _EXAMPLE_RUN, "reportMarkdown": "# Reconciliation …", "reportJson": {"verdict": "complete"}}


def router(runs: Runs, daily_token: SecretStr | None) -> APIRouter:
    """Return the routes under `/billing/reconciliation/runs`; without `daily_token` the daily run is off."""
    routes = APIRouter(prefix="/billing/reconciliation/runs", tags=["runs"])

    @routes.post(
        "/trigger",
        summary="Run a period, or find the run there is",
        responses={**problem_responses(401, 403, 422, 503), 201: {"model": RunBody, "description": "Made now"}},
    )
    async def trigger(body: TriggerBody, caller: Manager, response: Response) -> RunBody:
        if body.org is not None and body.org != caller.org:
            raise Problem(403, "forbidden", f"this key belongs to another organisation than {body.org!r}")
        try:
            run, made = await runs.trigger(caller.org, _plain(body.period), caller.actor)
        except PeriodRefused as error:
            raise _bad_period(error) from None
        except OrgUnknown:
            raise not_found("organisation", caller.org) from None
        response.status_code = 201 if made else 200
        return _shown(run)

    @routes.get("", summary="Runs, newest first", responses=problem_responses(401, 403, 422, 503))
    async def list_runs(caller: Manager, paging: Paging) -> Page[RunBody]:
        rows = await runs.store.runs(caller.org, PACK, paging.limit + 1, place_of(paging))
        return page(rows, paging.limit, lambda run: (run.created_at.isoformat(), run.id), _shown)

    @routes.get(
        "/{runId}/report",
        summary="The report of a run: JSON, or Markdown with `Accept: text/markdown`",
        response_class=Response,
        responses={
            **problem_responses(401, 403, 404, 409, 503),
            200: {
                "description": "`run`, `reportJson` and `reportMarkdown`; or the Markdown alone",
                "content": {
                    "application/json": {"example": _EXAMPLE_REPORT},
                    "text/markdown": {"example": "# Reconciliation"},
                },
            },
        },
    )
    async def report(
        run_id: Annotated[str, Path(alias="runId")],
        caller: Manager,
        accept: Annotated[str, Header()] = "application/json",
    ) -> Response:
        run, stored = await _found(runs, caller.org, run_id)
        if "text/markdown" in accept:
            return PlainTextResponse(stored.markdown, media_type="text/markdown; charset=utf-8")
        head = RunReport(run=_shown(run), reportMarkdown=stored.markdown).model_dump_json()
        # The report goes out as it was stored, so that its amounts and their order stay as they were computed.
        return Response(f'{head[:-1]},"reportJson":{stored.json}}}', media_type="application/json")

    _add_daily(routes, runs, daily_token)
    return routes


def _add_daily(routes: APIRouter, runs: Runs, daily_token: SecretStr | None) -> None:
    @routes.post(
        "/daily",
        summary="Run yesterday for every organisation; for schedulers",
        description=f"Guarded by the header `{TOKEN_HEADER}`; off unless RECONCILIATION_DAILY_TOKEN is set. A repeat "
        "answers the same runs.",
        responses=problem_responses(401, 404, 422, 503),
    )
    async def daily(
        body: DailyBody | None = None, x_reconciliation_token: Annotated[str | None, Header()] = None
    ) -> DailyAnswer:
        _guard(daily_token, x_reconciliation_token)
        wish = body or DailyBody()
        try:
            made, failed = await runs.daily(wish.org, None if wish.period is None else _plain(wish.period))
        except PeriodRefused as error:
            raise _bad_period(error) from None
        except OrgUnknown:
            raise Problem(404, "not-found", f"there is no organisation {wish.org!r}") from None
        return DailyAnswer(
            runs=[_shown(run) for run in made],
            failed=[DailyFailureBody(org=one.org, error=one.error) for one in failed],
        )


async def _found(runs: Runs, org: str, run_id: str) -> tuple[Run, StoredReport]:
    run = await runs.store.run(org, run_id)
    if run is None:
        raise not_found("run", run_id)
    stored = await runs.store.report(org, run_id)
    if stored is None:
        why = run.error or "it is being made"
        raise Problem(409, "report-not-ready", f"the run has no report yet: {why}", run_status=run.status)
    return run, stored


def _guard(expected: SecretStr | None, given: str | None) -> None:
    if expected is None or not expected.get_secret_value():
        raise Problem(404, "not-found", "the daily run is off: set RECONCILIATION_DAILY_TOKEN to turn it on")
    if given is None:
        raise Problem(401, "unauthorized", f"send the token in the header {TOKEN_HEADER}")
    # Compared as bytes: a header may hold any Latin-1 character, which compare_digest refuses in text.
    if not hmac.compare_digest(given.encode(), expected.get_secret_value().encode()):
        raise Problem(401, "unauthorized", f"the token in the header {TOKEN_HEADER} is wrong")


def _plain(period: str | PeriodRange) -> object:
    return period if isinstance(period, str) else period.model_dump()


def _bad_period(error: PeriodRefused) -> Problem:
    return Problem(422, "bad-period", f"period: {error}")


def place_of(paging: PageWish) -> tuple[str, str] | None:
    """Read the place of a cursor over runs (created_at, id)."""
    match paging.after:
        case None:
            return None
        case (created_at, run_id):
            try:
                datetime.fromisoformat(created_at)
                uuid.UUID(run_id)
            except ValueError:
                raise bad_cursor() from None
            return created_at, run_id
        case _:
            raise bad_cursor()


def _shown(run: Run) -> RunBody:
    return RunBody(
        id=run.id,
        org=run.org,
        pack=run.pack,
        period=RunPeriod(start=run.period.start_text, end=run.period.end_text, zone=run.period.zone),
        trigger=run.trigger,
        requested_by=run.requested_by,
        status=run.status,
        provisional=run.provisional,
        summary=None if run.summary is None else dict(run.summary),
        error=run.error,
        created_at=run.created_at,
        updated_at=run.updated_at,
        completed_at=run.completed_at,
    )

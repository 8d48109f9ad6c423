"""What auto-correction tried and how often it helped, beside the stack pack's admin API. For owners and managers only."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from services.alerts.domain.checks import check_type_of
from services.alerts.domain.correction import ActionKind, Attempt, AttemptState, Outcome, percent
from services.alerts.handlers.http.auth import Manager
from services.alerts.handlers.http.pagination import Page, Paging, page
from services.alerts.handlers.http.problem import problem_responses
from services.alerts.handlers.http.triage import after_time, known_id
from services.alerts.ports.corrections import CorrectionStore
from shared.contracts.discrepancy import Key

DAYS_DEFAULT = 30


class AttemptBody(BaseModel):
    """One action on one exception."""

    id: str = Field(description="Also the idempotency key at the ledger.")
    exception_id: str
    number: int
    check_type: str
    rule: str
    pack: str
    action: ActionKind
    source: str = Field(description="Whose provider was asked again, or which ledger was asked to book.")
    account: str | None
    key: Key
    currency: str | None
    difference: str | None = Field(description="When it was tried.")
    state: AttemptState
    outcome: Outcome | None
    detail: str | None
    requested_at: datetime
    validate_by: datetime
    finished_at: datetime | None
    posted: dict[str, Any] | None = Field(description="What the ledger was asked; null for a refetch.")


class ActionFigures(BaseModel):
    """How one action fared."""

    action: ActionKind
    finished: int
    succeeded: int
    failed: int
    success_percent: str | None
    outcomes: dict[str, int]


class Summary(BaseModel):
    """How often auto-correction helped."""

    since: datetime
    finished: int
    succeeded: int
    failed: int
    success_percent: str | None = Field(description="Null where none has finished.")
    actions: list[ActionFigures]


def router(store: CorrectionStore, now: Callable[[], datetime]) -> APIRouter:
    """Return the routes below `/api/admin/reconciliation/corrections`."""
    routes = APIRouter(prefix="/api/admin/reconciliation/corrections", tags=["stack: admin"])

    @routes.get("", responses=problem_responses(401, 403, 422, 503))
    async def list_attempts(
        caller: Manager,
        paging: Paging,
        exception_id: str | None = None,
        action: ActionKind | None = None,
        state: AttemptState | None = None,
    ) -> Page[AttemptBody]:
        """List what was tried, the newest first."""
        rows = await store.attempts(
            caller.org,
            after=after_time(paging),
            limit=paging.limit + 1,
            discrepancy_id=None if exception_id is None else known_id(exception_id, "exception"),
            action=action,
            state=state,
        )
        return page(rows, paging.limit, lambda one: (one.requested_at.isoformat(), one.id), _body)

    @routes.get("/summary", responses=problem_responses(401, 403, 422, 503))
    async def summary(caller: Manager, days: Annotated[int, Query(ge=1, le=3660)] = DAYS_DEFAULT) -> Summary:
        """Tell how the attempts fared that finished in the last `days` days."""
        since = now() - timedelta(days=days)
        found = await store.figures(caller.org, since)
        finished, succeeded = sum(one.finished for one in found), sum(one.succeeded for one in found)
        return Summary(
            since=since,
            finished=finished,
            succeeded=succeeded,
            failed=finished - succeeded,
            success_percent=percent(succeeded, finished),
            actions=[ActionFigures(**msgspec.structs.asdict(one)) for one in found],
        )

    return routes


def _body(attempt: Attempt) -> AttemptBody:
    return AttemptBody(
        id=attempt.id,
        exception_id=attempt.discrepancy_id,
        number=attempt.number,
        check_type=check_type_of(attempt.rule),
        rule=attempt.rule,
        pack=attempt.pack,
        action=attempt.action,
        source=attempt.source,
        account=attempt.account,
        key=attempt.key,
        currency=attempt.currency,
        difference=attempt.difference,
        state=attempt.state,
        outcome=attempt.outcome,
        detail=attempt.detail,
        requested_at=attempt.requested_at,
        validate_by=attempt.validate_by,
        finished_at=attempt.finished_at,
        posted=attempt.body,
    )

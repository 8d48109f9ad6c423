"""The stack pack's admin API, letter for letter: reports, exceptions, and a run on demand. For owners and managers only.

It serves every pack; `pack` narrows it to one.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from services.alerts.domain.checks import check_type_of
from services.alerts.domain.triage import Reason, Resolve, Status, TransitionRefused
from services.alerts.handlers.http.auth import Manager
from services.alerts.handlers.http.pagination import Page, Paging, page
from services.alerts.handlers.http.problem import Problem, not_found, problem_responses
from services.alerts.handlers.http.run_bodies import Stage, place_of, under_way
from services.alerts.handlers.http.triage import after_time, known_id
from services.alerts.ports.runs import Run, RunType
from services.alerts.ports.triage import Filter, Stored
from services.alerts.use_cases.runs import OrgUnknown, PackUnknown, Runs, RunUnderWay
from services.alerts.use_cases.triage import Triage
from shared.contracts.discrepancy import Key, Severity

PACK_DEFAULT = "stack"
"""What a run on demand looks at unless it names another pack: the names here are the stack pack's."""

PackFilter = Annotated[str | None, Query(max_length=64, description="Only of this pack; else of every pack.")]


class CheckBody(BaseModel):
    """Whether the rules of one check held in the run's period."""

    check_type: str = Field(description="The second word of its rules' names.")
    rules: list[str]
    outcome: Literal["passed", "failed", "error"]
    passed: bool
    readings: int = Field(description="Accounts or transactions that a verdict was published on.")
    failed: int
    errors: int
    items: int
    discrepant: int
    discrepancy: dict[str, str] = Field(description="Per currency, exact; never added across currencies.")
    error: str | None
    unreadable: bool


class ReportLine(BaseModel):
    """A run, in short."""

    id: str
    run_type: RunType
    status: Stage = Field(
        description="`running`: no figures yet. `provisional`: figures may change, completes by itself. `completed`: "
        "final. `incomplete`: money that no cause explains. `failed`: see `error`; tried again."
    )
    org: str
    pack: str
    period_start: datetime
    period_end: datetime
    zone: str
    requested_by: str
    checks_total: int
    checks_passed: int
    checks_failed: int
    duration_ms: int | None
    error: str | None
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None


class ReportBody(ReportLine):
    """A run with its checks; `report` holds every figure, as `reportJson` of the billing pack does."""

    checks: list[CheckBody]
    report: dict[str, Any] | None


class ExceptionBody(BaseModel):
    """A discrepancy, under the stack pack's names."""

    id: str
    org: str
    pack: str
    check_type: str
    rule: str
    type: str
    severity: Severity
    status: Status
    account: str | None
    key: Key
    currency: str | None
    expected: str | None
    actual: str | None
    difference: str | None
    description: str
    created_at: datetime
    resolved_at: datetime | None
    resolution: str | None


class ResolveBody(BaseModel):
    """Who decided that nothing more is to be done, and why."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"resolved_by": "j.doe", "notes": "booked on 21 November"}]}
    )

    resolved_by: str = Field(min_length=1, max_length=255)
    notes: str = Field(min_length=1, max_length=10_000)
    reason: Reason = "accepted"


class RunRequest(BaseModel):
    """A run of the day up to now."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"run_type": "manual"}]})

    run_type: Literal["manual"]
    pack: str = Field(default=PACK_DEFAULT, max_length=64)


def _wanted(
    pack: PackFilter = None,
    severity: Severity | None = None,
    status: Status | None = None,
) -> Filter:
    return Filter(pack=pack, severity=severity, status=status)


def router(runs: Runs, triage: Triage) -> APIRouter:
    """Return the routes below `/api/admin/reconciliation`."""
    routes = APIRouter(prefix="/api/admin/reconciliation", tags=["stack: admin"])

    @routes.get("/reports", responses=problem_responses(401, 403, 422, 503))
    async def list_reports(
        caller: Manager, paging: Paging, pack: PackFilter = None, run_type: RunType | None = None
    ) -> Page[ReportLine]:
        """List runs, newest first."""
        rows = await runs.store.runs(caller.org, pack, paging.limit + 1, place_of(paging), run_type)
        return page(rows, paging.limit, lambda run: (run.created_at.isoformat(), run.id), _line)

    @routes.get("/reports/{id}", responses=problem_responses(401, 403, 404, 503))
    async def report(caller: Manager, run_id: Annotated[str, Path(alias="id")]) -> Response:
        """Return one run with its checks and its report; `report` is null while it has none."""
        run = await runs.store.run(caller.org, run_id)
        if run is None:
            raise not_found("report", run_id[:64])
        stored = await runs.store.report(caller.org, run_id)
        head = msgspec.json.encode(_line(run).model_dump() | {"checks": (run.summary or {}).get("checks", [])}).decode()
        # The report goes out as it was stored, so that its amounts and their order stay as they were computed.
        return Response(
            f'{head[:-1]},"report":{"null" if stored is None else stored.json}}}', media_type="application/json"
        )

    _add_exceptions(routes, triage)
    _add_run(routes, runs)
    return routes


def _add_exceptions(routes: APIRouter, triage: Triage) -> None:
    @routes.get("/exceptions", responses=problem_responses(401, 403, 422, 503))
    async def list_exceptions(
        caller: Manager, chosen: Annotated[Filter, Depends(_wanted)], paging: Paging
    ) -> Page[ExceptionBody]:
        """List exceptions, those raised last first."""
        rows = await triage.store.list(caller.org, chosen, after_time(paging), paging.limit + 1)
        return page(rows, paging.limit, lambda one: (one.found.raised_at.isoformat(), one.found.id), _exception)

    @routes.put("/exceptions/{id}/resolve", responses=problem_responses(401, 403, 404, 409, 422, 503))
    async def resolve(caller: Manager, body: ResolveBody, id_: Annotated[str, Path(alias="id")]) -> ExceptionBody:
        """Decide that nothing more is to be done; it reopens when its type, amounts or currency change."""
        # Both stand in the log: whom the caller names, and whose key it was.
        actor = f"{body.resolved_by}, by {caller.actor}"
        try:
            stored = await triage.act(
                caller.org, known_id(id_, "exception"), Resolve(body.reason, body.notes), actor, None
            )
        except TransitionRefused as refused:
            raise Problem(
                409,
                "no-such-transition",
                f"{refused}; it is {refused.status} now",
                current_status=refused.status,
                action=refused.action,
            ) from None
        if stored is None:
            raise not_found("exception", id_)
        return _exception(stored)


def _add_run(routes: APIRouter, runs: Runs) -> None:
    @routes.post("/run", status_code=201, responses=problem_responses(401, 403, 404, 409, 422, 503))
    async def run_now(caller: Manager, body: RunRequest) -> ReportLine:
        """Run the day up to now. While another run of the pack has no report yet: 409 with which one."""
        try:
            return _line(await runs.manual(caller.org, body.pack, caller.actor))
        except RunUnderWay as other:
            raise under_way(other.run) from None
        except PackUnknown:
            raise not_found("pack with rules in force", body.pack) from None
        except OrgUnknown:
            raise not_found("organisation", caller.org) from None


def _line(run: Run) -> ReportLine:
    counts = {name: (run.summary or {}).get(name, 0) for name in ("checks_total", "checks_passed", "checks_failed")}
    return ReportLine(
        id=run.id,
        run_type=run.run_type,
        status=run.stage,
        org=run.org,
        pack=run.pack,
        period_start=run.period.start,
        period_end=run.period.end,
        zone=run.period.zone,
        requested_by=run.requested_by,
        duration_ms=run.duration_ms,
        error=run.error,
        created_at=run.created_at,
        updated_at=run.updated_at,
        completed_at=run.completed_at,
        **msgspec.convert(counts, dict[str, int]),
    )


def _exception(stored: Stored) -> ExceptionBody:
    found, standing = stored.found, stored.standing
    resolved = standing.status == "resolved"
    return ExceptionBody(
        id=found.id,
        org=found.org,
        pack=found.pack,
        check_type=check_type_of(found.rule),
        rule=found.rule,
        type=found.type,
        severity=found.severity,
        status=standing.status,
        account=found.account,
        key=found.key,
        currency=found.currency,
        expected=found.expected,
        actual=found.actual,
        difference=found.difference,
        description=found.explanation,
        created_at=found.raised_at,
        resolved_at=(found.resolved_at or standing.status_at) if resolved else None,
        resolution=(standing.reason or found.resolution) if resolved else None,
    )

"""Runs as the API takes and shows them, of whichever pack."""

import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.alerts.domain.period import PERIOD_SYNTAX, PeriodRefused
from services.alerts.handlers.http.pagination import PageWish, bad_cursor
from services.alerts.handlers.http.problem import Problem
from services.alerts.ports.runs import Run, RunStatus, RunTrigger, RunType

Stage = Literal["running", "provisional", "completed", "incomplete", "failed"]

EXAMPLE_RUN: dict[str, Any] = {
    "id": "0b5f7f0e-6e0f-4d0a-9a55-0a6d1a1f6f10",
    "org": "acme",
    "pack": "billing",
    "run_type": "period",
    "period": {"start": "2026-11-01", "end": "2026-12-01", "zone": "Europe/Berlin"},
    "trigger": "manual",
    "requested_by": "finance (tk_a1)",
    "status": "completed",
    "stage": "completed",
    "provisional": False,
    "summary": {"verdict": "complete", "rules": {"billing.payments": {"matched_percent": "98.52", "open": 12}}},
    "error": None,
    "duration_ms": 412,
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


class RunPeriod(BaseModel):
    """[start, end) in `zone`: days, or instants of an hourly or manual run."""

    start: str
    end: str
    zone: str


class RunBody(BaseModel):
    """One run: an organisation and a period, with its figures in short."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_RUN]})

    id: str
    org: str
    pack: str
    run_type: RunType
    period: RunPeriod
    trigger: RunTrigger
    requested_by: str
    status: RunStatus = Field(
        description="`running`: provisional, completes by itself. `completed`: final. `incomplete`: money that no cause "
        "explains. `failed`: see `error`; tried again."
    )
    stage: Stage = Field(
        description="As `status`, but `running` only until there are figures, then `provisional` until they are final."
    )
    provisional: bool
    summary: dict[str, Any] | None
    error: str | None
    duration_ms: int | None = Field(description="How long computing it took the last time.")
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None


class RunReport(BaseModel):
    """What stands beside `reportJson`."""

    run: RunBody
    reportMarkdown: str  # noqa: N815 - the name is a contract of the billing pack


def plain_period(period: str | PeriodRange) -> object:
    """Return the period as `parse_period` reads it."""
    return period if isinstance(period, str) else period.model_dump()


def bad_period(error: PeriodRefused) -> Problem:
    """422: no period, or one in the future."""
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


def run_body(run: Run) -> RunBody:
    """Return a run as the API shows it."""
    return RunBody(
        id=run.id,
        org=run.org,
        pack=run.pack,
        run_type=run.run_type,
        period=RunPeriod(start=run.period.start_text, end=run.period.end_text, zone=run.period.zone),
        trigger=run.trigger,
        requested_by=run.requested_by,
        status=run.status,
        stage=run.stage,
        provisional=run.provisional,
        summary=None if run.summary is None else dict(run.summary),
        error=run.error,
        duration_ms=run.duration_ms,
        created_at=run.created_at,
        updated_at=run.updated_at,
        completed_at=run.completed_at,
    )


def under_way(run: Run) -> Problem:
    """409: a run of the pack over a part of the period has no report yet."""
    why = f" ({run.error})" if run.error else ""
    return Problem(
        409,
        "run-under-way",
        f"the {run.run_type} run {run.id} of the pack {run.pack} over {run.period} is running since "
        f"{run.created_at.isoformat()}{why}; ask again when it has ended",
        running=run_body(run).model_dump(mode="json"),
    )

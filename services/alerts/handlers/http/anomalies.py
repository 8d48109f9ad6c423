"""Anomalies and what is usual, for people. Every role that may look at discrepancies may look at these."""

from datetime import datetime
from typing import Literal

import msgspec
from fastapi import APIRouter
from pydantic import BaseModel, Field

from services.alerts.domain.anomaly import Standing
from services.alerts.handlers.http.auth import Reader
from services.alerts.handlers.http.pagination import Page, Paging, bad_cursor, page
from services.alerts.handlers.http.problem import problem_responses
from services.alerts.handlers.http.triage import after_time
from services.alerts.ports.anomalies import AnomalyStore
from shared.contracts.anomaly import Anomaly, AnomalyKind
from shared.contracts.discrepancy import Severity


class AnomalyBody(BaseModel):
    """A drift beside the usual, or one that leads to a breach. Amounts are statistics, rounded to the currency."""

    id: str
    org: str
    pack: str
    rule: str
    check_type: str
    account: str | None = Field(description="Null: the hourly discrepancy of the check as a whole.")
    currency: str
    kind: AnomalyKind = Field(description="`trend`: it leads to a breach. `level_shift`: three hours in a row or more.")
    state: Literal["open", "closed"]
    severity: Severity
    raised_at: datetime
    seen_at: datetime
    closed_at: datetime | None
    expected: str
    seen: str
    per_day: str
    breach_of: Literal["tolerance", "critical"] | None
    breach_limit: str | None
    breach_at: datetime | None
    explanation: str


class BaselineBody(BaseModel):
    """What is usual for one account, or why that cannot be said yet."""

    rule: str
    pack: str
    account: str | None
    currency: str
    state: Literal["learning", "watched"]
    points: int = Field(description="Hours with a reading, of the last eight weeks.")
    last_at: datetime
    expected: str | None = Field(description="At the hour of the newest reading; null while learning.")
    seen: str
    usual_width: str | None = Field(description="How far readings usually are from it; six of these are unusual.")
    tolerance: str | None
    critical: str | None
    sentence: str


def router(store: AnomalyStore) -> APIRouter:
    """Return `/v1/anomalies` and `/v1/baselines`."""
    routes = APIRouter(prefix="/v1", tags=["anomalies"])

    @routes.get("/anomalies", responses=problem_responses(401, 403, 422, 503))
    async def anomalies(
        caller: Reader,
        paging: Paging,
        state: Literal["open", "closed"] | None = None,
        kind: AnomalyKind | None = None,
    ) -> Page[AnomalyBody]:
        """List anomalies, those raised last first."""
        rows = await store.anomalies(
            caller.org, state=state, kind=kind, after=after_time(paging), limit=paging.limit + 1
        )
        return page(rows, paging.limit, lambda one: (one.raised_at.isoformat(), one.id), _anomaly)

    @routes.get("/baselines", responses=problem_responses(401, 403, 422, 503))
    async def baselines(
        caller: Reader, paging: Paging, state: Literal["learning", "watched"] | None = None
    ) -> Page[BaselineBody]:
        """List what is watched, by rule and account."""
        if paging.after is not None and len(paging.after) != 3:
            raise bad_cursor()
        rows = await store.standings(caller.org, state=state, after=paging.after, limit=paging.limit + 1)
        return page(rows, paging.limit, _place, _baseline)

    return routes


def _anomaly(one: Anomaly) -> AnomalyBody:
    return AnomalyBody(**msgspec.structs.asdict(one))


def _place(one: Standing) -> tuple[str, str, str]:
    return one.series.rule, one.series.account, one.series.currency


def _baseline(one: Standing) -> BaselineBody:
    return BaselineBody(
        rule=one.series.rule,
        pack=one.series.pack,
        account=one.series.account or None,
        currency=one.series.currency,
        state=one.state,
        points=one.points,
        last_at=one.last_at,
        expected=one.expected,
        seen=one.seen,
        usual_width=one.usual_width,
        tolerance=one.tolerance,
        critical=one.critical,
        sentence=one.sentence,
    )

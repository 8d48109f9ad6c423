"""The report of a run as it is stored and served: what each figure means.

Amounts are exact texts, per rule and currency, never added across either.
"""

from datetime import datetime
from typing import Literal

import msgspec

from services.alerts.domain.checks import CheckFigures
from services.alerts.domain.correction import CorrectionFigures
from shared.contracts.discrepancy import Key
from shared.contracts.item import ItemStatus, Total

Verdict = Literal["complete", "provisional", "incomplete"]

AGEING_CLASSES: tuple[tuple[str, int | None], ...] = (("0-1", 1), ("2-7", 7), ("8-30", 30), ("30+", None))
"""Names of the classes, and the greatest age in whole days of 24 h that still belongs to each."""


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Items of the period by status."""

    total: int
    matched: int
    discrepant: int
    pending: int


class MatchedPercent(msgspec.Struct, frozen=True, kw_only=True):
    """Matched items of all items; null where there is nothing to divide by."""

    count: str | None
    value: dict[str, str | None]


class Mismatch(msgspec.Struct, frozen=True, kw_only=True):
    """Discrepancies of one type; `amount` is the sum of |difference|, null for types that have none."""

    count: int
    amount: str | None


class OpenItems(msgspec.Struct, frozen=True, kw_only=True):
    """Discrepancies of one type over the period: opening + new - cleared = closing."""

    opening: int
    new: int
    cleared: int
    closing: int
    ageing: dict[str, int]
    """Of the closing ones, by whole days from the first raise to the period's end."""


class PriorChange(msgspec.Struct, frozen=True, kw_only=True):
    """An item of a period whose run is complete, changed since: the old run is not rewritten."""

    key: Key
    was: ItemStatus | None
    """None: it did not stand in that period."""
    now: ItemStatus | None
    """None: it no longer stands in that period."""
    gap_change: dict[str, str]
    item_id: str
    period: str


class TopDiscrepancy(msgspec.Struct, frozen=True, kw_only=True):
    """A discrepancy that was open at the period's end."""

    id: str
    type: str
    severity: str
    status: str
    key: Key
    currency: str
    difference: str | None
    raised_at: datetime
    resolved_since: datetime | None
    """When the engine resolved it after the period's end, as known when the run was made."""
    explanation: str


class RuleReport(msgspec.Struct, frozen=True, kw_only=True):
    """All figures of one rule."""

    verdict: Verdict
    items: Counts
    matched_percent: MatchedPercent
    totals: dict[str, dict[str, Total]]
    """Live records per side and currency."""
    gaps: dict[str, dict[str, str]]
    """Per currency and cause; they add up to last side - first side, but for the residual."""
    residual: dict[str, str]
    """What no cause explains, per currency: zero, or the verdict is `incomplete`."""
    mismatch: dict[str, dict[str, Mismatch]]
    """Raised on items of the period, per type and currency."""
    open: dict[str, dict[str, OpenItems]]
    """Over all items of the rule, per currency and type."""
    open_amounts: dict[str, dict[str, str]]
    """Sum of |difference| of the closing ones, per currency and type that has differences."""
    prior_period: list[PriorChange]
    top_open: list[TopDiscrepancy]


class PeriodSpan(msgspec.Struct, frozen=True, kw_only=True):
    """The days of the run, and the instants they begin and end."""

    name: str
    start: str
    end: str
    zone: str
    start_at: datetime
    end_at: datetime


class NotReconciled(msgspec.Struct, frozen=True, kw_only=True):
    """Events that no rule selects: money that nobody compares."""

    source: str
    type: str
    count: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The report of one run, as stored and served."""

    version: int = 1
    org: str
    period: PeriodSpan
    at: datetime
    """Log time at which every figure stands."""
    progress: datetime | None
    """Least log time that was stored when the run was made."""
    verdict: Verdict
    reports: dict[str, RuleReport]
    not_reconciled: list[NotReconciled]
    checks: list[CheckFigures] = []
    """Whether the rules held in the period. Those that could not be computed are in no other figure."""
    corrections: list[CorrectionFigures] = []
    """How the attempts of auto-correction fared that finished in the period."""

"""A finding: one thing that is wrong now, whatever kind of rule found it."""

from decimal import Decimal
from typing import NamedTuple

from services.matcher.domain.group import Record
from shared.contracts.discrepancy import Severity

NO_GATE = -(1 << 62)
"""Of a finding that no deadline stands before."""
NO_SIDE = -1
"""Of a finding that speaks of no side."""


class Finding(NamedTuple):
    """A discrepancy that is true now; it is raised when log time is past `gate` and it has lasted `settle`."""

    name: str
    """Names it within its cell: raised under this name it is the same discrepancy."""
    type: str
    side: int
    """Place of the side in the rule, or NO_SIDE."""
    expected: str | None
    actual: str | None
    difference: Decimal | None
    currency: str | None
    records: tuple[Record, ...] = ()
    """What it speaks of: another set of records is something new to say. Readings are no records."""
    gate: int = NO_GATE
    """Milliseconds: the deadline that log time must have passed."""
    settles: bool = False
    """Must last for the rule's `settle`."""
    duplicate: Record | None = None
    by_currency: bool = False
    """The currency is part of its identity (sums)."""
    reason: str | None = None
    """Which of the causes of its type it is."""
    explained: str | None = None
    unexplained: str | None = None
    severity: Severity | None = None
    """Where a check names it; None: the rule's for the type."""

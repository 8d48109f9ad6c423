"""Drift over time: how far readings of an account were from what they should be, one reading after the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from shared.contracts.discrepancy import Key

LINES_MAX = 5
"""Accounts drawn per rule and currency, those that drifted furthest: more lines cannot be told apart in print."""
POINTS_MAX = 200
"""Readings drawn per account: about one per millimetre of a page's width."""


@dataclass(frozen=True, slots=True)
class DriftPoint:
    """One reading that was judged; `difference` = what was read - what was expected."""

    at: datetime
    difference: Decimal
    failed: bool


@dataclass(frozen=True, slots=True)
class DriftLine:
    """The readings of one account in one currency, in the order of their time."""

    rule: str
    key: Key
    code: str | None
    currency: str
    readings: int
    """In the period; `points` has the furthest of each of `POINTS_MAX` parts of it, and the last of all."""
    failed: int
    largest: Decimal
    """Greatest difference without sign."""
    points: Sequence[DriftPoint]

    @property
    def last(self) -> Decimal:
        """The difference of the last reading."""
        return self.points[-1].difference


@dataclass(frozen=True, slots=True)
class Drift:
    """Of a rule and currency the lines that are drawn, the furthest first, and how many accounts there are."""

    rule: str
    currency: str
    accounts: int
    lines: Sequence[DriftLine]

"""What one check of an `invariant` rule says about one snapshot. Pure; only counters remember anything."""

import re
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from zoneinfo import ZoneInfo

from services.matcher.domain.watched import Counter, Snapshot
from shared.contracts.discrepancy import Severity
from shared.contracts.event import from_microseconds
from shared.money import EXACT
from shared.rules.invariant_rule import AMOUNT, CheckRule, Reset

ZERO = Decimal(0)
_NUMBER = re.compile(r"-?[0-9]{1,38}(?:\.[0-9]{1,38})?", re.ASCII)
"""Wider than an amount: rates and shares come with more decimals. Differences of two such stay exact."""
_PERIOD = {"daily": re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII), "monthly": re.compile(r"\d{4}-\d{2}", re.ASCII)}


class Wrong(NamedTuple):
    """A check that failed."""

    expected: Decimal
    actual: Decimal
    severity: Severity | None
    """None: the rule's for the code."""


class Verdict(NamedTuple):
    """What a check says about a snapshot."""

    actual: Decimal
    wrong: Wrong | None = None
    top: Decimal | None = None
    """Of a counter: the greatest value of its period so far; what fell from it is healed by nothing less."""


class NotANumber(Exception):
    """A field that a check reads holds something else than a number."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"{field} is {text[:60]!r}")


def number(snapshot: Snapshot, field: str) -> Decimal | None:
    """Return what a field holds; None where it is absent or empty.

    Raises:
        NotANumber: it holds NaN, infinity, an exponent or other text.
    """
    text = snapshot.text(field)
    if not text:
        return None
    if not _NUMBER.fullmatch(text):
        raise NotANumber(field, text)
    return Decimal(text)


def currency_of(check: CheckRule, currency: str | None) -> str | None:
    """Return what the values of a check are in: only amounts have a currency."""
    return currency if check.field == AMOUNT else None


def period_of(check: CheckRule, snapshot: Snapshot, zone: ZoneInfo) -> str:
    """Return the period a reading belongs to; one for ever where nothing resets."""
    return _period(check.reset, from_microseconds(snapshot.occurred_at), zone)


def names_period(check: CheckRule, word: str) -> bool:
    """Tell whether a word names a period of the check's counter."""
    return check.reset != "never" and _PERIOD[check.reset].fullmatch(word) is not None


def _period(reset: Reset, time: datetime, zone: ZoneInfo) -> str:
    if reset == "never":
        return ""
    return time.astimezone(zone).date().isoformat()[: 10 if reset == "daily" else 7]


def judge_bounds(check: CheckRule, value: Decimal, other: Decimal | None) -> Verdict:
    """Judge a value by itself: against its bounds, else against the other field, or zero."""
    if check.min is None and check.max is None and check.above is None:
        return Verdict(value, reached(check, other or ZERO, value))
    held = value if other is None else EXACT.subtract(value, other)
    wrong = None
    if check.min is not None and held < check.min:
        wrong = reached(check, check.min, held)
    elif check.max is not None and held > check.max:
        wrong = reached(check, check.max, held)
    elif check.above is not None and held <= check.above:
        wrong = reached(check, check.above, held, equal_is_wrong=True)
    return Verdict(held if wrong else value, wrong)


def judge_counter(check: CheckRule, value: Decimal, seen: Counter | None) -> Verdict:
    """Judge a value that never falls within its period; falls are measured from the greatest one.

    `seen` is what was read before in this period, None at its beginning.
    """
    if seen is None:
        return Verdict(value, top=value)
    top = Decimal(seen.mark)
    wrong = reached(check, top, value) if value < Decimal(seen.last) else None
    return Verdict(value, wrong, top=max(top, value))


def judge_growth(check: CheckRule, value: Decimal, seen: Counter) -> Verdict:
    """Judge what a field grew by since the other field last grew; `seen` holds this very reading already."""
    mark = Decimal(seen.mark)
    return Verdict(value, reached(check, mark, value) if value > mark else None)


def count(check: CheckRule, currency: str | None, period: str, value: Decimal, seen: Counter | None) -> Counter:
    """Return what a counter has seen with this reading; `seen` is of the same period and currency, or None."""
    top = value if seen is None else max(value, Decimal(seen.mark))
    return Counter(check.code, check.field, currency, period, str(top), str(value))


def follow(
    check: CheckRule, currency: str | None, period: str, pair: tuple[Decimal, Decimal], seen: Counter | None
) -> Counter:
    """Return what a pair of counters has seen with this reading: where the first stood when the second last grew.

    A new period starts both at zero; a first counter below where it stood has started again.
    """
    value, other = pair
    mark, last = value, other
    if seen is not None:
        is_same = seen.period == period
        mark, last = (Decimal(seen.mark), Decimal(seen.last)) if is_same else (ZERO, ZERO)
        if other > last or value < mark:
            mark = value
    return Counter(check.code, check.field, currency, period, str(mark), str(other))


def reached(check: CheckRule, expected: Decimal, actual: Decimal, *, equal_is_wrong: bool = False) -> Wrong | None:
    """Return what is wrong where the difference reaches a threshold; without any, every difference is wrong."""
    size = abs(EXACT.subtract(actual, expected))
    if check.warn is None and check.critical is None:
        return Wrong(expected, actual, None) if size or equal_is_wrong else None
    if check.critical is not None and size >= check.critical:
        return Wrong(expected, actual, "critical")
    if check.warn is not None and size >= check.warn:
        return Wrong(expected, actual, "medium")
    return None

"""A provider's odometer: a counter that only grows until its monthly reset. A reset is no negative usage."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import msgspec

from services.alerts.domain.budget import BudgetRefused


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What the counter showed. A closing one is the final figure of its month, entered at any later time."""

    id: int = 0
    at: datetime
    month: str
    """YYYY-MM, in the organisation's zone."""
    value: Decimal
    closing: bool
    entered_by: str


class Month(msgspec.Struct, frozen=True, kw_only=True):
    """Usage of a month; partial until it has a closing reading."""

    month: str
    usage: Decimal
    partial: bool


def read(readings: Sequence[Reading], value: Decimal, at: datetime, zone: str, entered_by: str) -> Reading:
    """Return the reading to add to those of one odometer.

    Raises:
        BudgetRefused: negative, or it goes back within its month.
    """
    _not_negative(value)
    month = month_of(at, zone)
    same = [reading for reading in readings if reading.month == month]
    before = max((reading.value for reading in same if not reading.closing and reading.at <= at), default=None)
    if before is not None and value < before:
        raise BudgetRefused(
            f"reading: {value:f} is less than {before:f}, read before in {month}; an odometer goes back only at its reset "
            f"on the 1st: check the figure, or enter the month's final figure with --month {month}"
        )
    later = min((reading.value for reading in same if reading.at > at), default=None)
    closing = closing_of(same, month)
    ceiling = later if closing is None else closing.value if later is None else min(later, closing.value)
    if ceiling is not None and value > ceiling:
        raise BudgetRefused(
            f"reading: {value:f} is more than {ceiling:f}, known of a later time in {month}; check the figure and its time"
        )
    return Reading(at=at, month=month, value=value, closing=False, entered_by=entered_by)


def close(readings: Sequence[Reading], value: Decimal, month: str, at: datetime, zone: str, entered_by: str) -> Reading:
    """Return the final figure of a month, also of one long past; a second one corrects the first.

    Raises:
        BudgetRefused: no month, a month that has not begun, or less than was read in it.
    """
    _not_negative(value)
    if month > month_of(at, zone):
        raise BudgetRefused(f"month: {month} has not begun; enter its figure once it is over")
    read_most = max((r.value for r in readings if r.month == month and not r.closing), default=None)
    if read_most is not None and value < read_most:
        raise BudgetRefused(f"reading: {month} cannot end at {value:f}: {read_most:f} was read in it already")
    return Reading(at=at, month=month, value=value, closing=True, entered_by=entered_by)


def months(readings: Iterable[Reading]) -> Sequence[Month]:
    """Return usage per month, the newest first: the closing figure, else the greatest reading."""
    by_month: dict[str, list[Reading]] = {}
    for reading in readings:
        by_month.setdefault(reading.month, []).append(reading)
    return [_month(month, by_month[month]) for month in sorted(by_month, reverse=True)]


def closing_of(readings: Iterable[Reading], month: str) -> Reading | None:
    """Return the newest closing reading of a month."""
    found = [reading for reading in readings if reading.closing and reading.month == month]
    return max(found, key=lambda reading: (reading.at, reading.id), default=None)


def month_of(at: datetime, zone: str) -> str:
    """Return YYYY-MM as the zone's calendar has it."""
    return at.astimezone(ZoneInfo(zone)).strftime("%Y-%m")


def days_until_reset(today: date) -> int:
    """Return whole days until the 1st of the next month."""
    following = date(today.year + today.month // 12, today.month % 12 + 1, 1)
    return (following - today).days


def is_month(text: str) -> bool:
    """Tell whether `text` is a month such as 2025-08."""
    try:
        return datetime.strptime(text, "%Y-%m").strftime("%Y-%m") == text  # noqa: DTZ007 - only its form is looked at
    except ValueError:
        return False


def usage_by_month(readings: Iterable[Reading]) -> Mapping[str, Decimal]:
    """Return usage by month."""
    return {month.month: month.usage for month in months(readings)}


def _month(month: str, readings: Sequence[Reading]) -> Month:
    closing = closing_of(readings, month)
    if closing is not None:
        return Month(month=month, usage=closing.value, partial=False)
    return Month(month=month, usage=max(reading.value for reading in readings), partial=True)


def _not_negative(value: Decimal) -> None:
    if value < 0:
        raise BudgetRefused(f"reading: {value:f} is negative; an odometer counts from 0")

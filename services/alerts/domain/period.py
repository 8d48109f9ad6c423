"""Periods of runs: whole days of an organisation's own zone, as a half-open span [start, end) of instants."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

PERIOD_DAYS_MAX = 366
"""A leap year: a run reads every item of its period, so a longer one is asked for in parts."""

PERIOD_SYNTAX = '"2026-11" (a month), "2026-11-20" (a day) or {"start": "2026-11-01", "end": "2026-12-01"}'

PeriodKind = Literal["day", "month", "range", "span"]

_MONTH = re.compile(r"([0-9]{4})-([0-9]{2})", re.ASCII)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_SHOWN_CHARS_MAX = 60


class PeriodRefused(ValueError):
    """The period cannot be reported on; the message says why and how to write one."""


@dataclass(frozen=True, slots=True)
class Period:
    """The days [first, after) of `zone`: `after` is the first day that no longer belongs to it."""

    first: date
    after: date
    zone: str

    @property
    def start(self) -> datetime:
        """The instant it begins, in UTC."""
        return midnight(self.first, self.zone)

    @property
    def end(self) -> datetime:
        """The first instant after it, in UTC."""
        return midnight(self.after, self.zone)

    @property
    def start_text(self) -> str:
        """The first day, as reports and the API write it."""
        return self.first.isoformat()

    @property
    def end_text(self) -> str:
        """The first day that no longer belongs to it."""
        return self.after.isoformat()

    @property
    def kind(self) -> PeriodKind:
        """A day, a calendar month, or any other range of days."""
        if self.after - self.first == timedelta(days=1):
            return "day"
        if self.first.day == 1 and self.after == _next_month(self.first):
            return "month"
        return "range"

    def __str__(self) -> str:
        match self.kind:
            case "day":
                return self.first.isoformat()
            case "month":
                return f"{self.first:%Y-%m}"
            case _:
                return f"{self.first} to {self.after - timedelta(days=1)}"


@dataclass(frozen=True, slots=True)
class Span:
    """The instants [start, end), shown in `zone`: an hour of the schedule, or what a manual run looks at."""

    start: datetime
    end: datetime
    zone: str

    @property
    def start_text(self) -> str:
        """The first instant on the clock of `zone`, with its offset: an hour that comes twice stays two."""
        return self.start.astimezone(zone_of(self.zone)).isoformat()

    @property
    def end_text(self) -> str:
        """The first instant that no longer belongs to it."""
        return self.end.astimezone(zone_of(self.zone)).isoformat()

    @property
    def kind(self) -> PeriodKind:
        """Always a span."""
        return "span"

    def __str__(self) -> str:
        return f"{self.start_text} to {self.end_text}"


AnyPeriod = Period | Span


def zone_of(name: str) -> ZoneInfo:
    """Return the IANA zone `name`.

    Raises:
        PeriodRefused: there is no such zone.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise PeriodRefused(
            f"{name[:_SHOWN_CHARS_MAX]!r} is no time zone; use an IANA name such as Europe/Berlin"
        ) from None


def midnight(day: date, zone: str) -> datetime:
    """Return the first instant of `day` in `zone`, in UTC.

    Where the clock jumps over midnight the day begins with the jump; where midnight comes twice, with the first.
    """
    try:
        return datetime.combine(day, time.min, tzinfo=zone_of(zone)).astimezone(UTC)
    except OverflowError:
        raise PeriodRefused(f"the day {day} is out of range") from None


def local_day(instant: datetime, zone: str) -> date:
    """Return the day that `instant` falls on in `zone`."""
    return instant.astimezone(zone_of(zone)).date()


def day_period(day: date, zone: str) -> Period:
    """Return the period of one day."""
    return Period(day, _next_day(day), zone)


def yesterday(zone: str, now: datetime) -> Period:
    """Return the last whole day of `zone` before the day that `now` falls on."""
    return day_period(local_day(now, zone) - timedelta(days=1), zone)


def parse_period(value: object, zone: str, now: datetime) -> Period:
    """Read a period as the API takes it: see `PERIOD_SYNTAX`.

    Raises:
        PeriodRefused: not such a period, empty, longer than `PERIOD_DAYS_MAX`, or still in the future.
    """
    period = _parse(value, zone)
    if (period.after - period.first).days > PERIOD_DAYS_MAX:
        raise PeriodRefused(
            f"the period {period.first} to {period.after} is longer than {PERIOD_DAYS_MAX} days; run it in parts"
        )
    if period.end <= period.start:
        raise PeriodRefused(f"the day {period.first} does not exist in {zone}")
    if period.start > now:
        raise PeriodRefused(
            f"the period {period} lies in the future: it begins on {period.first} in {zone}, "
            f"where it is {local_day(now, zone)} now"
        )
    return period


def _parse(value: object, zone: str) -> Period:
    match value:
        case str():
            return _parse_text(value.strip(), zone)
        case Mapping():
            return _parse_range(value, zone)
        case _:
            raise PeriodRefused(f"a period is written as {PERIOD_SYNTAX}, not as {_shown(value)}")


def _parse_text(text: str, zone: str) -> Period:
    month = _MONTH.fullmatch(text)
    if month is None:
        return day_period(_day(text), zone)
    try:
        first = date(int(month[1]), int(month[2]), 1)
    except ValueError:
        raise PeriodRefused(f"{_shown(text)} is no month; a period is written as {PERIOD_SYNTAX}") from None
    return Period(first, _next_month(first), zone)


def _parse_range(value: Mapping[object, object], zone: str) -> Period:
    unknown = [str(name)[:_SHOWN_CHARS_MAX] for name in value if name not in {"start", "end"}]
    if unknown or "start" not in value or "end" not in value:
        what = f"does not know {', '.join(unknown)}" if unknown else "needs both start and end"
        raise PeriodRefused(f"a period {what}; it is written as {PERIOD_SYNTAX}")
    first, after = _day(value["start"]), _day(value["end"])
    if after <= first:
        raise PeriodRefused(
            f"the period ends on {after}, which is not after its start {first}; "
            "`end` is the first day that no longer belongs to it"
        )
    return Period(first, after, zone)


def _day(value: object) -> date:
    if not isinstance(value, str) or not _DAY.fullmatch(value):
        raise PeriodRefused(f"{_shown(value)} is no day; a period is written as {PERIOD_SYNTAX}")
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise PeriodRefused(f"{_shown(value)} is no day of the calendar") from None


def _next_day(day: date) -> date:
    try:
        return day + timedelta(days=1)
    except OverflowError:
        raise PeriodRefused(f"the day {day} is out of range") from None


def _next_month(first: date) -> date:
    try:
        return date(first.year + first.month // 12, first.month % 12 + 1, 1)
    except ValueError:
        raise PeriodRefused(f"the month {first:%Y-%m} is out of range") from None


def _shown(value: object) -> str:
    return repr(value)[:_SHOWN_CHARS_MAX]

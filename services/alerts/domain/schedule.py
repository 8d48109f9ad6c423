"""When runs are due: hours and days that have ended, over changes of the clock, and when a run is looked at again."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from services.alerts.domain.period import AnyPeriod, Period, Span, day_period, local_day, zone_of

LOOK_PAUSE_MIN = timedelta(seconds=2)
"""The matcher's progress comes every second: sooner there is nothing new."""
LOOK_PAUSE_MAX = timedelta(minutes=10)
"""A run over a month that goes on reads all of its items; ten minutes old figures are fresh enough for that."""
CATCH_UP_MAX_HOURLY = timedelta(days=7)
"""Hours missed before that are left out: their days are run anyway."""
CATCH_UP_MAX_DAILY = timedelta(days=31)
"""Days missed before that are left out; `tieout runs trigger` makes any of them."""
DAY_LENGTH_MAX = timedelta(hours=26)
"""The longest day that a change of the clock has made, and an hour to spare."""
_SHARE = 10
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAILY_TIME = re.compile(r"([0-9]{1,2}):([0-9]{2})(?:\s+(\S+))?", re.ASCII)


class ScheduleRefused(ValueError):
    """The daily time cannot be read; the message says how to write one."""


@dataclass(frozen=True, slots=True)
class DailyTime:
    """When the days that have ended are run: `at` on the clock of `zone`."""

    at: time
    zone: str = "UTC"

    def __str__(self) -> str:
        return f"{self.at:%H:%M} {self.zone}"


def parse_daily_time(text: str) -> DailyTime:
    """Read `02:00` (UTC) or `02:00 Europe/Berlin`.

    Raises:
        ScheduleRefused: neither of them, or there is no such zone.
    """
    written = _DAILY_TIME.fullmatch(text.strip())
    try:
        if written is None:
            raise ScheduleRefused
        at = time(int(written[1]), int(written[2]))
        zone_of(written[3] or "UTC")
    except ValueError:
        raise ScheduleRefused(
            f"{text[:60]!r} is no time of day: write 02:00 (UTC), or 02:00 Europe/Berlin with a zone"
        ) from None
    return DailyTime(at, written[3] or "UTC")


def daily_due(daily: DailyTime, day: date) -> datetime:
    """Return the one instant of `day` at which its run is due, in UTC.

    A time that comes twice means the first; one that the clock jumps over is as long after the jump.
    """
    return datetime.combine(day, daily.at, tzinfo=zone_of(daily.zone)).astimezone(UTC)


def next_daily(daily: DailyTime, now: datetime) -> datetime:
    """Return the first due instant after `now`."""
    today = local_day(now, daily.zone)
    return min(due for days in (-1, 0, 1, 2) if (due := daily_due(daily, today + timedelta(days=days))) > now)


def last_daily(daily: DailyTime, now: datetime) -> datetime:
    """Return the last due instant up to and including `now`."""
    today = local_day(now, daily.zone)
    return max(due for days in (-2, -1, 0, 1) if (due := daily_due(daily, today + timedelta(days=days))) <= now)


def next_hourly(interval: timedelta, now: datetime) -> datetime:
    """Return the first end of an interval after `now`.

    Intervals are counted in UTC, so that no change of a clock makes one of them longer, skips it or repeats it.
    """
    return _EPOCH + ((now - _EPOCH) // interval + 1) * interval


def hours_ended(interval: timedelta, zone: str, since: datetime, until: datetime) -> list[Span]:
    """Return the intervals that begin at or after `since` and have ended by `until`, the oldest first."""
    first = -((_EPOCH - since) // interval)
    last = (until - _EPOCH) // interval
    return [Span(_EPOCH + n * interval, _EPOCH + (n + 1) * interval, zone) for n in range(first, last)]


def days_ended(zone: str, since: datetime, until: datetime) -> list[Period]:
    """Return the days of `zone` that begin at or after `since` and have ended by `until`, the oldest first."""
    found: list[Period] = []
    day = local_day(since, zone)
    while (period := day_period(day, zone)).end <= until:
        # A day that a zone left out (it moved over the date line) has no instants.
        if period.start >= since and period.start < period.end:
            found.append(period)
        day += timedelta(days=1)
    return found


def not_covered(candidates: Iterable[AnyPeriod], existing: Sequence[tuple[datetime, datetime]]) -> list[AnyPeriod]:
    """Return the candidates whose middle lies in no existing [start, end).

    By their middle, so that another interval or another zone of the organisation makes no period a second time.
    """
    return [one for one in candidates if not _covered(one.start + (one.end - one.start) / 2, existing)]


def _covered(instant: datetime, existing: Sequence[tuple[datetime, datetime]]) -> bool:
    return any(start <= instant < end for start, end in existing)


def look_due(created_at: datetime, looked_at: datetime, now: datetime) -> bool:
    """Tell whether a run is due: the pauses grow with its age, to a tenth of it, within the two limits."""
    pause = min(max((looked_at - created_at) / _SHARE, LOOK_PAUSE_MIN), LOOK_PAUSE_MAX)
    return now >= looked_at + pause

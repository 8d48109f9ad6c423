"""Durations of rules: `500ms 30s 5m 24h 7d`, and `2bd` for business days of a calendar."""

import re
from datetime import timedelta
from typing import NamedTuple

from shared.contracts.event import from_milliseconds, milliseconds
from shared.rules.calendar import WEEKENDS, Calendar

_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PATTERN = re.compile(r"(\d{1,9})(ms|s|m|h|d|bd)", re.ASCII)
_DAY = timedelta(days=1)


class Duration(NamedTuple):
    """A length of time: milliseconds, and business days that are counted on a calendar."""

    milliseconds: int
    business_days: int = 0
    calendar: Calendar = WEEKENDS

    def after(self, start_ms: int) -> int:
        """Return the instant this long after `start_ms` (milliseconds since 1970, UTC).

        Business days skip the calendar's weekends and holidays (days of UTC); counted from one of those they begin at
        the next business day's 00:00.
        """
        if not self.business_days:
            return start_ms + self.milliseconds
        time, is_open = from_milliseconds(start_ms), self.calendar.is_business_day
        while not is_open(time.date()):
            time = time.replace(hour=0, minute=0, second=0, microsecond=0) + _DAY
        for _ in range(self.business_days):
            time += _DAY
            while not is_open(time.date()):
                time += _DAY
        return milliseconds(time)


def parse_duration(text: str, calendar: Calendar = WEEKENDS) -> Duration:
    """Read a duration; business days are counted on `calendar`.

    Raises:
        ValueError: not a whole number with one of the units.
    """
    found = _PATTERN.fullmatch(text)
    if not found:
        msg = (
            f"{text!r} is no duration: write a whole number with one of ms, s, m, h, d or bd (business days), e.g. 24h"
        )
        raise ValueError(msg)
    count, unit = int(found.group(1)), found.group(2)
    if unit == "bd":
        return Duration(0, count, calendar)
    return Duration(count * _UNITS_MS[unit])

"""What is usual for the drift of one account, in words and limits; `seasonal` computes it.

Statistics are floats: nothing here is booked or added up.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

DAY_H, WEEK_H = 24, 168
HISTORY = timedelta(days=56)
"""Eight weeks: every hour of the week eight times, and no more than 1,344 points per account."""
DAYS_MIN = 5
"""Days from which hours of the day can be told apart; below there is no baseline."""
POINTS_MIN = 72
"""Hours with a reading below which a median of each hour would be of one or two."""
WEEKS_FOR_WEEKDAYS = 3
"""Weeks from which Mondays are told from Sundays."""
SEASON_PASSES = 3
"""More of them change nothing any more."""
RECENT_H = 72
"""Hours that the present level is of: three days outvote one bad one."""
TREND_H = WEEK_H
"""Hours that a trend is looked for in."""
TREND_POINTS_MIN = 24
HORIZON_H = 14 * DAY_H
"""A straight line says nothing about later."""
UNUSUAL_SIGMAS, USUAL_SIGMAS = 6.0, 4.0
"""Raised beyond the first, closed within the second: noise at the edge does not flap. Six robust sigmas of hourly readings
are passed by chance less than once in a century."""
SHIFT_H = 3
"""Hours in a row beside the usual that make a new level of an outlier."""
TREND_CONFIDENCE = 0.99
TREND_SIGMAS = 3.0
"""A trend is one when it has moved this many sigmas over the hours that it is seen in."""
STEP_RATIO = 0.7
"""A step explains the last days better than a line when what it leaves is this much less."""

Season = Literal["hour of the day", "hour of the week"]


@dataclass(frozen=True, slots=True)
class Limits:
    """From which drift on an account's check fails, and is critical; None: it has no such limit."""

    tolerance: float | None = None
    critical: float | None = None


@dataclass(frozen=True, slots=True)
class TooLittle:
    """There is no baseline yet."""

    points: int
    days: float


@dataclass(frozen=True, slots=True)
class Breach:
    """When a limit will be passed if it goes on like this."""

    of: Literal["tolerance", "critical"]
    limit: float
    at: datetime


@dataclass(frozen=True, slots=True)
class Assessment:
    """The newest reading held against what is usual."""

    season: Season
    points: int
    at: datetime
    """Hour of the newest reading."""
    seen: float
    expected: float
    """At this hour."""
    sigma: float
    sigmas: float
    """How far seen is from expected, in sigmas."""
    unusual_h: int
    """Hours in a row, up to the newest, that are beside the usual on the same side."""
    per_day: float
    """How much the level moves in a day; 0 where that cannot be told from noise."""
    breach: Breach | None

    @property
    def is_unusual(self) -> bool:
        return self.unusual_h > 0

    @property
    def is_usual(self) -> bool:
        """Close enough to take an alert back."""
        return self.sigmas <= USUAL_SIGMAS

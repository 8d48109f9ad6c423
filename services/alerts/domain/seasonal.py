"""A robust seasonal baseline of one account's drift: what is expected at this hour, and where it leads.

Medians instead of means throughout, so that the faults that are looked for do not become part of what is usual. Import this
where it is used: SciPy takes a second to load.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import median_abs_deviation, theilslopes

from services.alerts.domain.baseline import (
    DAY_H,
    DAYS_MIN,
    HORIZON_H,
    POINTS_MIN,
    RECENT_H,
    SEASON_PASSES,
    SHIFT_H,
    STEP_RATIO,
    TREND_CONFIDENCE,
    TREND_H,
    TREND_POINTS_MIN,
    TREND_SIGMAS,
    UNUSUAL_SIGMAS,
    WEEK_H,
    WEEKS_FOR_WEEKDAYS,
    Assessment,
    Breach,
    Limits,
    TooLittle,
)

HOUR_S = 3_600

Floats = NDArray[np.float64]


def assess(
    hours: Sequence[int], values: Sequence[float], *, zone: tzinfo, limits: Limits, resolution: float
) -> Assessment | TooLittle:
    """Hold the newest of the readings of an account against the others.

    Args:
        hours: whole hours since 1970 with a reading, ascending.
        values: the drift in each.
        zone: in which people's days and weeks are.
        limits: of the check.
        resolution: the smallest difference that means anything, such as a cent: no sigma is below it.
    """
    at = np.asarray(hours, dtype=np.int64)
    seen = np.asarray(values, dtype=np.float64)
    days = float(at[-1] - at[0] + 1) / DAY_H if at.size else 0.0
    if at.size < POINTS_MIN or days < DAYS_MIN:
        return TooLittle(int(at.size), days)
    by_week = days >= WEEKS_FOR_WEEKDAYS * 7
    slots = _slots(at, zone, WEEK_H if by_week else DAY_H)
    season = _season(at[:-1], seen[:-1], slots[:-1], WEEK_H if by_week else DAY_H)
    flat = seen - season[slots]
    sigma = _sigma(at, flat, slots, resolution)
    level, beside = _level(at, flat, sigma)
    expected = level + float(season[slots[-1]])
    start, slope = _trend(at, flat, sigma)
    return Assessment(
        season="hour of the week" if by_week else "hour of the day",
        points=int(at.size),
        at=_time(int(at[-1])),
        seen=float(seen[-1]),
        expected=expected,
        sigma=sigma,
        sigmas=abs(float(seen[-1]) - expected) / sigma,
        unusual_h=beside,
        per_day=slope * DAY_H,
        breach=_breach(int(at[-1]), float(seen[-1]), start, slope, season, zone, limits),
    )


def _time(hour: int) -> datetime:
    return datetime.fromtimestamp(hour * HOUR_S, UTC)


def _slots(at: NDArray[np.int64], zone: tzinfo, period: int) -> NDArray[np.int64]:
    """Return each hour's place in the day or week of people's clocks, whatever daylight saving does."""
    local = [_time(int(hour)).astimezone(zone) for hour in at]
    if period == DAY_H:
        return np.array([one.hour for one in local], dtype=np.int64)
    return np.array([one.weekday() * DAY_H + one.hour for one in local], dtype=np.int64)


def _daily(at: NDArray[np.int64], values: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Return the day of every point, counted from the first, and the median of each day; NaN of one without points."""
    day = (at - at[0]) // DAY_H
    medians = np.full(int(day[-1]) + 1, np.nan)
    for one in np.unique(day):
        medians[one] = np.median(values[day == one])
    return day, medians


def _path(at: NDArray[np.int64], values: Floats, days: int) -> Floats:
    """Return the level at every point: the median of the daily medians of `days` days around it."""
    day, medians = _daily(at, values)
    half = days // 2
    level = np.full(medians.size, np.nan)
    for one in np.flatnonzero(~np.isnan(medians)):
        level[one] = np.nanmedian(medians[max(0, one - half) : one + half + 1])
    path: Floats = level[day]
    return path


def _season(at: NDArray[np.int64], values: Floats, slots: NDArray[np.int64], period: int) -> Floats:
    """Return how far each hour of the day or week is from the level, by medians; 0 of an hour that was never seen.

    Level and season are each made without the other, in turn: a weekend must not bend the level, nor a trend the season.
    """
    season = np.zeros(period)
    values = values - _line(at, values)
    known = np.unique(slots)
    places = [np.flatnonzero(slots == slot) for slot in known]
    for _ in range(SEASON_PASSES):
        beside = values - _path(at, values - season[slots], 7 if period == WEEK_H else 1)
        season[known] = [np.median(beside[place]) for place in places]
        season[known] -= np.median(season[known])
    return season


def _line(at: NDArray[np.int64], values: Floats) -> Floats:
    """Return the straight line that the days follow: without it a trend of weeks would look like a pattern of each."""
    _, medians = _daily(at, values)
    days = np.flatnonzero(~np.isnan(medians))
    line: Floats = float(theilslopes(medians[days], days)[0]) / DAY_H * (at - at[0]).astype(np.float64)
    return line


def _sigma(at: NDArray[np.int64], flat: Floats, slots: NDArray[np.int64], resolution: float) -> float:
    """Return how far a new reading usually is from what is expected of it.

    The season was made of these very readings, which are nearer to it for that: of three Mondays one is the median itself.
    """
    seen = max(2.0, float(np.median(np.unique(slots[:-1], return_counts=True)[1])))
    unseen = math.sqrt((seen + 1.0) / (seen - 1.0))
    residual = flat[:-1] - _path(at[:-1], flat[:-1], 1)
    return max(float(median_abs_deviation(residual, scale="normal")) * unseen, resolution)


def _level(at: NDArray[np.int64], flat: Floats, sigma: float) -> tuple[float, int]:
    """Return the level before the newest hours that are beside it, and how many these are."""
    beside = 0
    while True:
        last = flat.size - 1 - beside
        recent = flat[:last][at[:last] >= at[last] - RECENT_H]
        if recent.size < SHIFT_H:
            return float(np.median(flat[max(0, last - RECENT_H) : last + 1])), 0
        level = float(np.median(recent))
        # The newest hours are judged by what was before them: a new level must not hide behind its own first hours.
        if abs(flat[last] - level) <= UNUSUAL_SIGMAS * sigma or beside >= RECENT_H // 2:
            return level, beside
        if beside and (flat[last] > level) != (flat[-1] > level):
            return level, beside
        beside += 1


def _trend(at: NDArray[np.int64], flat: Floats, sigma: float) -> tuple[float, float]:
    """Return the level now and how much it moves in an hour: after a step only what came after it says so."""
    recent = at > at[-1] - TREND_H
    x, y = (at[recent] - at[-1]).astype(np.float64), flat[recent]
    cut = _step(x, y, sigma)
    x, y = x[cut:], y[cut:]
    now = float(np.median(y[-SHIFT_H:]))
    if x.size < TREND_POINTS_MIN:
        return now, 0.0
    slope, intercept, low, high = (float(one) for one in theilslopes(y, x, TREND_CONFIDENCE))
    moved = abs(slope) * float(x[-1] - x[0])
    if low <= 0.0 <= high or moved < TREND_SIGMAS * sigma:
        return now, 0.0
    return intercept, slope


def _step(x: Floats, y: Floats, sigma: float) -> int:
    """Return the place where the level jumped; 0 where a straight line says it as well."""
    if x.size < 2 * SHIFT_H:
        return 0
    places = range(SHIFT_H, x.size - SHIFT_H + 1, max(1, x.size // 56))
    left = {place: _rest(y[:place]) + _rest(y[place:]) for place in places}
    best = min(left, key=left.__getitem__)
    slope, intercept = (float(one) for one in theilslopes(y, x)[:2])
    line = float(np.sum(np.abs(y - intercept - slope * x)))
    jump = abs(float(np.median(y[best:])) - float(np.median(y[:best])))
    return best if jump > UNUSUAL_SIGMAS * sigma and left[best] < STEP_RATIO * line else 0


def _rest(values: Floats) -> float:
    return float(np.sum(np.abs(values - np.median(values))))


def _breach(
    hour: int, seen: float, start: float, slope: float, season: Floats, zone: tzinfo, limits: Limits
) -> Breach | None:
    """Return the first limit that will be passed, of those that are not passed yet."""
    if not slope:
        return None
    ahead = np.arange(1, HORIZON_H + 1)
    path = start + slope * ahead + season[_slots(hour + ahead, zone, season.size)]
    of: Literal["tolerance", "critical"]
    for of, limit in (("tolerance", limits.tolerance), ("critical", limits.critical)):
        # A limit of nothing is passed by any drift: there is nothing to foretell.
        if not limit or abs(seen) > limit:
            continue
        beyond = np.flatnonzero((path > limit) if slope > 0 else (path < -limit))
        if beyond.size:
            return Breach(of, limit, _time(hour + int(ahead[beyond[0]])))
    return None

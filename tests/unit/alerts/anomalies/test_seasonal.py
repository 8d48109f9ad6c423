"""What is usual at an hour, on generated histories: seasons, outliers, level shifts, slow drift, gaps, too little."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from services.alerts.domain.baseline import Assessment, Limits, TooLittle
from services.alerts.domain.seasonal import assess

START = 494_000
LIMITS = Limits(tolerance=1.0, critical=10.0)
Shape = Callable[[int, int, int], float]
"""Drift by (hours since the start, hour of the day, day of the week)."""


def weekly(_: int, hour: int, day: int) -> float:
    """A wave over the day, and half a dollar more on two days of the week."""
    return 0.3 * float(np.sin(2 * np.pi * hour / 24)) + (0.5 if day in (2, 3) else 0.0)


def flat(*_: int) -> float:
    return 0.0


def history(days: int, shape: Shape, noise: float = 0.02, seed: int = 1) -> tuple[list[int], list[float]]:
    random = np.random.default_rng(seed)
    hours = [START + number for number in range(days * 24)]
    times = [datetime.fromtimestamp(hour * 3600, UTC) for hour in hours]
    return hours, [
        shape(number, one.hour, one.weekday()) + float(random.normal(0, noise)) for number, one in enumerate(times)
    ]


def judged(hours: list[int], values: list[float], limits: Limits = LIMITS) -> Assessment:
    found = assess(hours, values, zone=UTC, limits=limits, resolution=0.01)
    assert isinstance(found, Assessment)
    return found


def test_a_usual_reading_is_expected_within_its_noise() -> None:
    """Weeks tell Mondays from Sundays; days alone tell hours."""
    found = judged(*history(42, weekly))
    assert found.season == "hour of the week"
    assert abs(found.expected - found.seen) < 0.08
    assert 0.01 < found.sigma < 0.04
    assert (found.unusual_h, found.per_day, found.breach) == (0, 0.0, None)
    short = judged(*history(10, lambda n, hour, _: weekly(n, hour, 0)))
    assert short.season == "hour of the day"
    assert abs(short.expected - short.seen) < 0.1


def test_noise_alone_raises_nothing() -> None:
    """Eighty readings of twenty accounts."""
    raised = 0
    for seed in range(20):
        hours, values = history(28, weekly, seed=seed)
        for cut in range(4):
            size = len(hours) - 13 * cut
            found = judged(hours[:size], values[:size])
            raised += found.is_unusual or found.breach is not None
    assert raised == 0


@pytest.mark.parametrize("beside", [0.5, -0.5])
def test_an_outlier_is_seen_though_it_lies_within_the_range_of_other_hours(beside: float) -> None:
    """In both directions; half a dollar is what a Wednesday has anyway."""
    hours, values = history(42, weekly)
    values[-1] += beside
    found = judged(hours, values)
    assert found.unusual_h == 1
    assert found.sigmas > 15
    assert found.breach is None


def test_a_new_level_is_told_by_its_hours_and_is_usual_after_days() -> None:
    """It does not hide behind its own first hours, and it is no trend."""
    hours, values = history(42, weekly)
    for length, beside in ((3, 3), (12, 12), (30, 30), (60, 0)):
        moved = [value + (0.6 if place >= len(values) - length else 0.0) for place, value in enumerate(values)]
        found = judged(hours, moved)
        assert (found.unusual_h, found.breach, found.per_day) == (beside, None, 0.0), length


@pytest.mark.parametrize(("per_day", "sign"), [(0.10, 1), (0.06, 1), (0.06, -1)])
def test_a_slow_drift_is_foretold_days_before_it_breaches(per_day: float, sign: int) -> None:
    """When it really passes the limit, the season included, to within a day and a half."""

    def shape(number: int, hour: int, day: int) -> float:
        return sign * (weekly(0, hour, day) + max(0.0, (number - 35 * 24) * per_day / 24))

    hours, values = history(42, shape)
    found = judged(hours, values)
    assert found.breach is not None
    assert found.breach.of == "tolerance"
    assert found.per_day == pytest.approx(sign * per_day, rel=0.25)
    truth, later = history(70, shape, noise=0.0)
    (first, *_) = [hour for hour, value in zip(truth, later, strict=True) if hour > hours[-1] and abs(value) > 1.0]
    assert abs(found.breach.at - datetime.fromtimestamp(first * 3600, UTC)) < timedelta(hours=36)
    assert found.breach.at > found.at


def test_beyond_the_tolerance_the_critical_threshold_is_foretold() -> None:
    hours, values = history(42, lambda number, *_: 2.0 + max(0.0, (number - 35 * 24) * 0.04))
    breach = judged(hours, values).breach
    assert breach is not None
    assert (breach.of, breach.limit) == ("critical", 10.0)
    assert judged(hours, values, Limits()).breach is None
    assert judged(hours, values, Limits(tolerance=0.0)).breach is None


def test_one_bad_day_in_the_history_is_not_what_is_usual() -> None:
    """A tenth of the history far off moves neither what is expected nor how wide the usual is."""
    hours, values = history(28, weekly)
    clean = judged(hours, values)
    for place in range(200, 270):
        values[place] += 50.0
    found = judged(hours, values)
    assert abs(found.expected - clean.expected) < 0.05
    assert found.sigma < 2 * clean.sigma


def test_gaps_are_no_zeros() -> None:
    """A provider that was away for two days and every night."""
    hours, values = history(42, weekly)
    kept = [place for place in range(len(hours)) if not 300 < place < 348 and hours[place] % 24 > 5]
    found = judged([hours[place] for place in kept], [values[place] for place in kept])
    assert (found.unusual_h, found.breach) == (0, None)


def test_a_clock_change_moves_the_season_with_peoples_clocks() -> None:
    """What happens at nine o'clock in Berlin happens there in summer and in winter."""
    zone = ZoneInfo("Europe/Berlin")
    begun = int(datetime(2026, 10, 1, tzinfo=UTC).timestamp()) // 3600
    hours = list(range(begun, begun + 35 * 24))
    random = np.random.default_rng(3)
    local = [datetime.fromtimestamp(hour * 3600, UTC).astimezone(zone) for hour in hours]
    values = [(5.0 if one.hour == 9 else 0.0) + float(random.normal(0, 0.02)) for one in local]
    last = max(place for place, one in enumerate(local) if one.hour == 9)
    found = assess(hours[: last + 1], values[: last + 1], zone=zone, limits=LIMITS, resolution=0.01)
    assert isinstance(found, Assessment)
    assert found.unusual_h == 0
    assert found.expected == pytest.approx(5.0, abs=0.1)


def test_an_account_that_never_drifts_has_a_width_all_the_same() -> None:
    """Its first cent is no alert, a half dollar is."""
    hours, values = history(28, flat, noise=0.0)
    assert judged(hours, values).sigma == 0.01
    values[-1] = 0.01
    assert judged(hours, values).unusual_h == 0
    values[-1] = 0.5
    assert judged(hours, values).unusual_h == 1


@pytest.mark.parametrize("days", [0, 1, 4])
def test_too_little_history_says_so(days: int) -> None:
    """Also where there are days enough and hardly a reading in them."""
    found = assess(*history(days, flat), zone=UTC, limits=LIMITS, resolution=0.01)
    assert isinstance(found, TooLittle)
    assert found.points == days * 24
    hours, values = history(40, flat)
    sparse = assess(hours[::24], values[::24], zone=UTC, limits=LIMITS, resolution=0.01)
    assert isinstance(sparse, TooLittle)
    assert (sparse.points, round(sparse.days)) == (40, 39)

"""When runs are due, over changes of the clock, and when one that is not complete is looked at again."""

from collections import Counter
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise

import pytest

from services.alerts.domain.period import day_period, local_day
from services.alerts.domain.schedule import (
    DailyTime,
    ScheduleRefused,
    daily_due,
    days_ended,
    hours_ended,
    last_daily,
    look_due,
    next_daily,
    next_hourly,
    not_covered,
    parse_daily_time,
)

MADE = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("age_at_last_look_s", "pause_s"),
    [(0, 2), (10, 2), (60, 6), (600, 60), (6_000, 600), (86_400, 600)],
)
def test_the_pause_is_a_tenth_of_the_age_between_two_seconds_and_ten_minutes(age_at_last_look_s, pause_s) -> None:
    looked = MADE + timedelta(seconds=age_at_last_look_s)

    assert look_due(MADE, looked, looked + timedelta(seconds=pause_s))
    assert not look_due(MADE, looked, looked + timedelta(seconds=pause_s, milliseconds=-1))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize(
    ("written", "at_", "zone"),
    [
        ("02:00", time(2), "UTC"),
        ("2:30", time(2, 30), "UTC"),
        (" 23:59 Europe/Berlin ", time(23, 59), "Europe/Berlin"),
    ],
)
def test_a_daily_time_is_utc_unless_it_names_a_zone(written, at_, zone) -> None:
    assert parse_daily_time(written) == DailyTime(at_, zone)


@pytest.mark.parametrize("written", ["", "2", "24:00", "02:60", "02:00 Nowhere/Town", "02:00Z", "2am", "02:00 UTC x"])
def test_a_daily_time_that_cannot_be_read_says_how_to_write_one(written) -> None:
    with pytest.raises(ScheduleRefused, match="write 02:00"):
        parse_daily_time(written)


@pytest.mark.parametrize(
    ("day", "clock", "due"),
    [
        ("2026-03-28", "02:30", "2026-03-28T01:30:00+00:00"),
        ("2026-03-29", "02:30", "2026-03-29T01:30:00+00:00"),  # jumped over: as long after the jump
        ("2026-03-30", "02:30", "2026-03-30T00:30:00+00:00"),
        ("2026-10-25", "02:30", "2026-10-25T00:30:00+00:00"),  # comes twice: the first
        ("2026-10-26", "02:30", "2026-10-26T01:30:00+00:00"),
        ("2028-02-29", "02:00", "2028-02-29T01:00:00+00:00"),
    ],
)
def test_a_daily_run_is_due_once_a_day_also_where_its_time_is_missing_or_comes_twice(day, clock, due) -> None:
    daily = parse_daily_time(f"{clock} Europe/Berlin")

    assert daily_due(daily, date.fromisoformat(day)) == at(due)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"])
@pytest.mark.parametrize("clock", ["00:00", "02:00", "02:30", "23:59"])
def test_looking_often_or_seldom_gives_the_same_due_instants(zone, clock) -> None:
    """Over two years with a leap day: one for each day of the zone, each after the one before."""
    daily = parse_daily_time(f"{clock} {zone}")
    now, end = at("2027-06-01T00:00:00+00:00"), at("2029-06-01T00:00:00+00:00")
    found = []
    while (now := next_daily(daily, now)) < end:
        assert last_daily(daily, now) == now
        assert last_daily(daily, now - timedelta(seconds=1)) < now
        found.append(now)

    assert len(found) == len({local_day(one, zone) for one in found})
    assert 730 <= len(found) <= 732
    gaps = {(after - before) // timedelta(minutes=1) for before, after in pairwise(found)}
    assert 22 * 60 <= min(gaps) <= max(gaps) <= 26 * 60


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [("Europe/Berlin", "2026-03-29", 23), ("Europe/Berlin", "2026-10-25", 25), ("UTC", "2028-02-29", 24)],
)
def test_the_hours_of_a_day_are_as_many_as_it_has_and_each_once(zone, day, hours) -> None:
    period = day_period(date.fromisoformat(day), zone)

    spans = hours_ended(timedelta(hours=1), zone, period.start, period.end)

    assert len(spans) == hours == len({span.start_text for span in spans})
    assert (spans[0].start, spans[-1].end) == (period.start, period.end)
    assert all(before.end == after.start for before, after in pairwise(spans))


def test_the_next_hour_is_strictly_after_now_and_a_whole_interval() -> None:
    assert next_hourly(timedelta(hours=1), at("2026-10-25T00:59:59+00:00")) == at("2026-10-25T01:00:00+00:00")
    assert next_hourly(timedelta(hours=1), at("2026-10-25T01:00:00+00:00")) == at("2026-10-25T02:00:00+00:00")
    assert next_hourly(timedelta(minutes=15), at("2026-10-25T01:00:01+00:00")) == at("2026-10-25T01:15:00+00:00")


def test_days_that_have_ended_are_whole_days_of_the_zone_over_a_leap_day_and_both_changes() -> None:
    days = days_ended("Europe/Berlin", at("2028-02-27T23:00:00+00:00"), at("2028-03-01T23:00:00+00:00"))
    assert [str(one) for one in days] == ["2028-02-28", "2028-02-29", "2028-03-01"]
    year = days_ended("Europe/Berlin", at("2025-12-31T23:00:00+00:00"), at("2026-12-31T23:00:00+00:00"))
    lengths = Counter((one.end - one.start) // timedelta(hours=1) for one in year)
    assert lengths == {24: 363, 23: 1, 25: 1}
    assert all(before.end == after.start for before, after in pairwise(year))


def test_a_day_that_a_zone_left_out_is_not_run() -> None:
    days = days_ended("Pacific/Apia", at("2011-12-29T00:00:00-10:00"), at("2012-01-01T00:00:00+14:00"))
    assert [str(one) for one in days] == ["2011-12-29", "2011-12-31"]


def test_another_interval_or_zone_makes_no_period_a_second_time() -> None:
    hour = timedelta(hours=1)
    start = at("2026-11-20T00:00:00+00:00")
    by_hour = [(start + n * hour, start + (n + 1) * hour) for n in range(3)]
    halves = hours_ended(hour / 2, "UTC", start, start + 4 * hour)
    assert [one.start for one in not_covered(halves, by_hour)] == [start + 3 * hour, start + 3.5 * hour]
    by_half = [(one.start, one.end) for one in halves]
    assert not_covered(hours_ended(hour, "UTC", start, start + 4 * hour), by_half) == []
    utc = [(one.start, one.end) for one in days_ended("UTC", start, start + 48 * hour)]
    berlin = days_ended("Europe/Berlin", start - 24 * hour, start + 96 * hour)
    assert [str(one) for one in not_covered(berlin, utc)] == ["2026-11-22", "2026-11-23"]

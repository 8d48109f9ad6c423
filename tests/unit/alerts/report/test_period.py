"""Periods are whole days of the organisation's zone, whatever its clocks do."""

from datetime import UTC, date, datetime, timedelta

import pytest

from services.alerts.domain.period import Period, PeriodRefused, day_period, parse_period, yesterday, zone_of

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "first", "after", "kind", "name"),
    [
        ("2026-11", date(2026, 11, 1), date(2026, 12, 1), "month", "2026-11"),
        ("2025-12", date(2025, 12, 1), date(2026, 1, 1), "month", "2025-12"),
        ("2024-02", date(2024, 2, 1), date(2024, 3, 1), "month", "2024-02"),
        ("2024-02-29", date(2024, 2, 29), date(2024, 3, 1), "day", "2024-02-29"),
        ("2026-11-20", date(2026, 11, 20), date(2026, 11, 21), "day", "2026-11-20"),
        ({"start": "2026-11-01", "end": "2026-12-01"}, date(2026, 11, 1), date(2026, 12, 1), "month", "2026-11"),
        (
            {"start": "2026-11-02", "end": "2026-11-09"},
            date(2026, 11, 2),
            date(2026, 11, 9),
            "range",
            "2026-11-02 to 2026-11-08",
        ),
    ],
)
def test_the_three_ways_to_write_a_period(value, first, after, kind, name) -> None:
    period = parse_period(value, "UTC", NOW)

    assert (period.first, period.after, period.kind, str(period)) == (first, after, kind, name)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("2026-12", "lies in the future"),
        ("2026-11-22", "lies in the future"),
        ({"start": "2026-11-02", "end": "2026-11-02"}, "not after its start"),
        ({"start": "2026-11-02", "end": "2026-11-01"}, "not after its start"),
        ({"start": "2026-11-02"}, "needs both start and end"),
        ({"start": "2026-11-02", "end": "2026-11-03", "zone": "UTC"}, "does not know zone"),
        ({"start": "2024-01-01", "end": "2026-01-01"}, "longer than 366 days"),
        ("2026-13", "no month"),
        ("2023-02-29", "no day of the calendar"),
        ("2026-11-20T00:00:00Z", "is no day"),
        ("0000-01", "no month"),
        ("9999-12", "out of range"),
        ("9999-12-31", "out of range"),
        ("november", "is no day"),
        (202611, "written as"),
        (None, "written as"),
    ],
)
def test_what_is_no_period_is_refused_with_the_reason(value, says: str) -> None:
    with pytest.raises(PeriodRefused, match=says):
        parse_period(value, "UTC", NOW)


def test_a_day_that_has_begun_only_in_the_east_is_in_the_future_in_the_west() -> None:
    now = datetime(2026, 11, 20, 20, 0, tzinfo=UTC)

    assert parse_period("2026-11-21", "Asia/Tokyo", now).start <= now
    with pytest.raises(PeriodRefused, match="where it is 2026-11-20 now"):
        parse_period("2026-11-21", "America/New_York", now)


@pytest.mark.parametrize(
    ("day", "zone", "hours", "start"),
    [
        ("2026-03-29", "Europe/Berlin", 23, "2026-03-28T23:00:00+00:00"),
        ("2026-10-25", "Europe/Berlin", 25, "2026-10-24T22:00:00+00:00"),
        ("2026-10-26", "Europe/Berlin", 24, "2026-10-25T23:00:00+00:00"),
        ("2026-11-01", "America/New_York", 25, "2026-11-01T04:00:00+00:00"),
        ("2026-04-24", "Africa/Cairo", 23, "2026-04-23T22:00:00+00:00"),
        ("2025-11-02", "America/Havana", 25, "2025-11-02T04:00:00+00:00"),
        ("2024-02-29", "Asia/Kolkata", 24, "2024-02-28T18:30:00+00:00"),
    ],
)
def test_a_day_is_as_long_as_its_clocks_make_it(day: str, zone: str, hours: int, start: str) -> None:
    """In Cairo the clock jumps over midnight; in Havana midnight comes twice, and the day begins with the first."""
    period = parse_period(day, zone, NOW)

    assert period.start.isoformat() == start
    assert period.end - period.start == timedelta(hours=hours)


def test_days_of_a_year_follow_each_other_without_gap_or_overlap() -> None:
    for zone in ("UTC", "Europe/Berlin", "America/Sao_Paulo", "Africa/Cairo", "Australia/Lord_Howe"):
        day = day_period(date(2026, 1, 1), zone)
        for _ in range(366):
            following = day_period(day.after, zone)
            assert day.end == following.start > day.start
            day = following


def test_a_day_that_a_zone_left_out_is_refused() -> None:
    with pytest.raises(PeriodRefused, match="does not exist in Pacific/Apia"):
        parse_period("2011-12-30", "Pacific/Apia", NOW)


def test_yesterday_is_the_last_whole_day_of_the_zone() -> None:
    shortly_after_midnight_in_berlin = datetime(2026, 10, 25, 22, 30, tzinfo=UTC)

    assert yesterday("Europe/Berlin", shortly_after_midnight_in_berlin).first == date(2026, 10, 24)
    assert yesterday("Europe/Berlin", datetime(2026, 10, 25, 23, 0, tzinfo=UTC)) == Period(
        date(2026, 10, 25), date(2026, 10, 26), "Europe/Berlin"
    )
    assert str(yesterday("UTC", datetime(2024, 3, 1, 2, 0, tzinfo=UTC))) == "2024-02-29"


@pytest.mark.parametrize("name", ["Europe/Nowhere", "", "../etc/passwd", "Europe"])
def test_an_unknown_zone_is_refused(name: str) -> None:
    with pytest.raises(PeriodRefused, match="is no time zone"):
        zone_of(name)

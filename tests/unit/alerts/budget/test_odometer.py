"""An odometer grows until its monthly reset, which is no negative usage; months long past can be entered."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.alerts.domain.budget import BudgetRefused
from services.alerts.domain.odometer import Reading, close, days_until_reset, is_month, months, read, usage_by_month


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def shown(readings: Sequence[Reading]) -> list[tuple[str, str, bool]]:
    return [(month.month, str(month.usage), month.partial) for month in months(readings)]


def test_historic_months_are_entered():
    """August and September 2025 at 0.80 each are 0.80 in each, not none in September."""
    readings: list[Reading] = []
    for month in ("2025-08", "2025-09"):
        readings.append(close(readings, Decimal("0.80"), month, at("2025-10-02"), "UTC", "me"))
    assert shown(readings) == [("2025-09", "0.80", False), ("2025-08", "0.80", False)]


def test_a_reset_is_no_negative_usage():
    """0.75 in August, 0.10 in September: both are usage."""
    first = read([], Decimal("0.75"), at("2025-08-30"), "UTC", "me")
    second = read([first], Decimal("0.10"), at("2025-09-02"), "UTC", "me")
    assert shown([first, second]) == [("2025-09", "0.10", True), ("2025-08", "0.75", True)]


def test_it_does_not_go_back_within_a_month():
    """Neither against what was read before nor against what is known of later."""
    first = read([], Decimal("0.75"), at("2025-08-10"), "UTC", "me")
    with pytest.raises(BudgetRefused, match=r"0\.10 is less than 0\.75, read before in 2025-08"):
        read([first], Decimal("0.10"), at("2025-08-11"), "UTC", "me")
    with pytest.raises(BudgetRefused, match=r"0\.80 is more than 0\.75"):
        read([first], Decimal("0.80"), at("2025-08-09"), "UTC", "me")
    with pytest.raises(BudgetRefused, match=r"cannot end at 0\.70"):
        close([first], Decimal("0.70"), "2025-08", at("2025-09-01"), "UTC", "me")


def test_a_closing_figure_is_corrected_by_a_newer_one():
    """What was entered stays in the history, the newest counts."""
    first = close([], Decimal("0.80"), "2025-08", at("2025-09-01"), "UTC", "me")
    second = close([first], Decimal("0.81"), "2025-08", at("2025-09-02"), "UTC", "me")
    assert shown([first, second]) == [("2025-08", "0.81", False)]


def test_the_zone_says_when_a_month_ends():
    """Two hours before UTC, in Berlin's summer."""
    assert read([], Decimal(1), at("2025-08-31T22:00"), "Europe/Berlin", "me").month == "2025-09"
    assert read([], Decimal(1), at("2025-08-31T21:59"), "Europe/Berlin", "me").month == "2025-08"


def test_what_cannot_be_is_refused():
    """Negative figures and months to come."""
    with pytest.raises(BudgetRefused, match="negative"):
        read([], Decimal(-1), at("2025-08-31"), "UTC", "me")
    with pytest.raises(BudgetRefused, match="has not begun"):
        close([], Decimal(1), "2025-10", at("2025-09-01"), "UTC", "me")
    assert [is_month(text) for text in ("2025-08", "2025-13", "2025-8", "August")] == [True, False, False, False]


def test_days_until_the_reset():
    """On the 1st a whole month is left; December ends in January."""
    assert [days_until_reset(day) for day in (date(2025, 9, 10), date(2025, 12, 31), date(2024, 2, 1))] == [21, 1, 29]


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 50)), min_size=1, max_size=60))
def test_usage_of_a_month_is_what_was_counted_in_it(steps: list[tuple[int, int]]):
    """Whenever it is read, and over any number of resets, no usage is negative and none is lost that a reading saw."""
    time, counter, month = at("2025-01-01"), Decimal(0), "2025-01"
    readings: list[Reading] = []
    truth: dict[str, Decimal] = {}
    for days, cents in steps:
        time += timedelta(days=days)
        counter = counter if f"{time:%Y-%m}" == month else Decimal(0)
        month = f"{time:%Y-%m}"
        counter += Decimal(cents) / 100
        truth[month] = counter
        readings.append(read(readings, counter, time, "UTC", "me"))
    assert usage_by_month(readings) == truth

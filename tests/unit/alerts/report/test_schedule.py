"""A run that is not complete is looked at often while it is young, and ever more seldom after that."""

from datetime import UTC, datetime, timedelta

import pytest

from services.alerts.domain.schedule import look_due

MADE = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("age_at_last_look_s", "pause_s"),
    [(0, 2), (10, 2), (60, 6), (600, 60), (6_000, 600), (86_400, 600)],
)
def test_the_pause_is_a_tenth_of_the_age_between_two_seconds_and_ten_minutes(age_at_last_look_s, pause_s) -> None:
    looked = MADE + timedelta(seconds=age_at_last_look_s)

    assert look_due(MADE, looked, looked + timedelta(seconds=pause_s))
    assert not look_due(MADE, looked, looked + timedelta(seconds=pause_s, milliseconds=-1))

"""Some generated weeks of a budget on a real PostgreSQL: the books tie out on every day. The whole year is in tests/faults."""

from datetime import date
from decimal import Decimal

import pytest

from services.alerts.adapters.database import Database
from tests.support.budget_books import live_through
from tests.support.budget_year import year

pytestmark = pytest.mark.postgres


async def test_weeks_tie_out_every_day(database: Database):
    """Usage, plugs, a top-up and an odometer's reset, to the cent; the picture ends where the figures are."""
    days = list(year(first=date(2025, 1, 20), days=35, total=Decimal("30.00")))
    assert any(day.topped_up for day in days)
    assert {day.at.month for day in days} == {1, 2}
    await live_through(database, days)

"""A whole generated year of a budget on a real PostgreSQL; its picture is left beside the test's other files."""

from pathlib import Path

import pytest

from services.alerts.adapters.database import Database, migrate
from tests.support.budget_books import live_through
from tests.support.budget_year import year

pytestmark = pytest.mark.postgres


async def test_a_year_ties_out_every_day(database_url: str, tmp_path: Path):
    """Usage, plugs both ways, top-ups, twelve odometer resets: the identity holds on each of 365 days."""
    await migrate(database_url)
    database = Database(database_url)
    days = list(year())
    assert sum(day.topped_up for day in days) > 3
    assert any(day.escaped < 0 for day in days)
    (tmp_path / "year.svg").write_text(await live_through(database, days))
    await database.close()

"""Lives through generated days on a real PostgreSQL and checks the books every evening."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

import pytest

from services.alerts.adapters.budget_store import PostgresBudgets
from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.domain.budget import Wish
from services.alerts.ports.budgets import Usage
from services.alerts.use_cases.budgets import Asker, Budgets
from tests.support.budget_year import TOP_UP, Day

ME = Asker(actor="me", reconciled_by="me")
SVG = "{http://www.w3.org/2000/svg}"


class Clock:
    now: datetime

    def __call__(self) -> datetime:
        return self.now


async def live(budgets: Budgets, day: Day) -> None:
    """What happens on a day: usage, a reading of the odometer, and mostly one of the console."""
    await budgets.track("acme", [Usage(id=f"{day.at:%j}", amount=day.tracked, occurred_at=day.at)])
    await budgets.read_odometer("acme", "groq", day.odometer, month=None, currency="USD", actor="me")
    if day.read:
        wish = Wish(remaining=day.remaining, total=day.total, reason="console read in the evening")
        await budgets.reconcile("acme", wish, ME)


async def live_through(database: Database, days: Sequence[Day]) -> str:
    """Live through the days and check each: total - remaining = tracked + plugs, to the cent; return the picture."""
    clock = Clock()
    clock.now = days[0].at
    budgets = Budgets(PostgresBudgets(database), clock)
    await budgets.create("acme", "claude", provider="anthropic", currency="USD", total=days[0].total)
    tracked = escaped = Decimal(0)
    usage: dict[str, Decimal] = {}
    for day in days:
        clock.now = day.at
        await live(budgets, day)
        tracked += day.tracked
        escaped += day.escaped
        usage[f"{day.at:%Y-%m}"] = day.odometer
        (state,) = await PostgresBudgets(database).states("acme", "claude")
        assert state.ties_out, day.at
        assert state.tracked_usage == tracked, day.at
        assert state.used == state.tracked_usage + state.plugged, day.at
        if day.read:
            assert (state.remaining, state.plugged, state.budget.total) == (day.remaining, escaped, day.total), day.at
    shown = await budgets.odometer("acme", "groq")
    months = {month.month: month.usage for month in shown.historic_months} | {shown.current_month: shown.current_usage}
    assert months == usage
    await check_chain(database, days[0].total)
    picture = await budgets.picture("acme", "claude")
    check_picture(picture, tracked, state.plugged, state.budget.total)
    return picture


async def check_chain(database: Database, after: Decimal) -> None:
    """Each row follows the one before: by the rows alone, past every line of Python that wrote them."""
    async with database.transaction(EVERY_ORG) as connection:
        found = await connection.exec_driver_sql("SELECT * FROM budget_reconciliation ORDER BY id")
        rows = found.mappings().all()
    assert {row["adjustment_reason"] for row in rows} == {"console read in the evening", "top-up"}
    for row in rows:
        grown = TOP_UP if row["adjustment_reason"] == "top-up" else 0
        assert row["budget_before"] == after - row["api_usage_tracked"] + grown
        assert row["budget_after"] == row["budget_before"] + row["manual_adjustment"]
        after = row["budget_after"]


def check_picture(svg: str, tracked: Decimal, plugged: Decimal, total: Decimal) -> None:
    """Its sentence has the exact figures, and its areas end where the figures are."""
    root = ET.fromstring(svg)
    title = root.find(f"{SVG}title")
    assert title is not None
    assert f"{tracked} tracked + {plugged} plugs = {tracked + plugged} USD used" in str(title.text)
    heights = {
        area: [float(point.split(",")[1]) for point in str(found.get("points")).split()]
        for area in ("spent", "total")
        for found in root.iter(f"{SVG}polyline")
        if found.get("class") == area
    }
    bottom, top = heights["spent"][0], heights["total"][-1]
    share = (bottom - heights["spent"][-1]) / (bottom - top)
    assert share == pytest.approx(float((tracked + plugged) / total), abs=0.005)
    assert len(svg) < 100_000
    assert not re.search(r"<script|href|on\w+=", svg)

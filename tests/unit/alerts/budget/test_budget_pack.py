"""The budgets pack on the events that budgets leave: what ties out is quiet, what the console says alone and plugs are not."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from services.alerts.domain.budget import Budget, Wish, after, follow, opened, reconcile
from services.alerts.domain.budget_events import Event, of_entry, of_reading, of_usage
from services.alerts.domain.odometer import Reading
from shared.contracts.event import accept, convert_posted, milliseconds
from shared.rules.load import load_rules
from tieout.offline.engine import OfflineEngine

RULES = Path(__file__).parents[4] / "shared/packs/budgets/rules.yaml"
START = datetime(2026, 11, 20, 10, tzinfo=UTC)
CLAUDE = Budget(
    budget="claude",
    provider="anthropic",
    currency="USD",
    total=Decimal("24.96"),
    opening=Decimal("24.96"),
    plug_warn=Decimal("0.10"),
    created_at=START,
)


def judged(events: list[Event]) -> dict[tuple[str, str], tuple[Any, ...]]:
    """What is open at the end: by rule and type, its state, severity and difference."""
    engine = OfflineEngine({"budgets": load_rules(RULES).rules})
    for event in sorted(events, key=lambda event: event["occurred_at"]):
        posted = convert_posted(event)
        engine.feed(accept(posted, org="acme", received_at=posted.occurred_at))
    engine.advance(milliseconds(START + timedelta(days=2)))
    return {(d.rule, d.type): (d.state, d.severity, d.difference) for d in engine.last_revisions()}


def day_of_the_example(plug: bool = True) -> list[Event]:
    """A confirmed reading opens; 0.11 are tracked; the console says 19.54."""
    state = opened(CLAUDE)
    events: list[Event] = []
    first = START + timedelta(minutes=1)
    (confirmed,) = reconcile(state, Wish(remaining=Decimal("24.96"), adjustment=Decimal(0), reason="first look"))
    events += of_entry(CLAUDE, 1, confirmed, first)
    state = follow(after(state, confirmed), Decimal("0.11"))
    events.append(of_usage(CLAUDE, "u1", Decimal("0.11"), START + timedelta(hours=1)))
    (entry,) = reconcile(state, Wish(remaining=Decimal("19.54"), reason="sync"))
    told = of_entry(CLAUDE, 2, entry, START + timedelta(hours=2))
    return events + [event for event in told if plug or event["type"] == "balance.read"]


def test_a_reconciled_budget_ties_out_and_its_plug_is_a_discrepancy():
    """No balance is off; the plug of 5.31 is past both thresholds, the pack's and the budget's own."""
    assert judged(day_of_the_example()) == {
        ("budgets.plug", "plug_grew"): ("raised", "critical", "5.31"),
        ("budgets.plug", "plug_past_threshold"): ("raised", "high", "5.31"),
    }


def test_a_console_that_says_less_than_was_tracked_is_a_mismatch():
    """Its balance came as an event, and nobody has reconciled yet."""
    assert judged(day_of_the_example(plug=False)) == {
        ("budgets.remaining", "BalanceMismatch"): ("raised", "high", "-5.31")
    }


def test_an_odometer_that_goes_back_within_a_month_is_a_finding():
    """Entered past the API, as an event of a producer."""
    readings = [
        Reading(
            id=number,
            at=START + timedelta(hours=number),
            month="2026-11",
            value=Decimal(value),
            closing=False,
            entered_by="me",
        )
        for number, value in enumerate(("0.75", "0.10"))
    ]
    events = [of_reading("groq", "USD", reading) for reading in readings]
    assert judged(events) == {("budgets.odometer", "odometer_decreased"): ("raised", "high", "-0.65")}

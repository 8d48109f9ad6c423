"""What budgets tell the engine: events of a row, of tracked usage and of an odometer, as producers would post them."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from services.alerts.domain.budget import TOP_UP, Budget, Entry, minus, reaches
from services.alerts.domain.odometer import Reading

TRACKER = "tracker"
CONSOLE = "console"
BUDGETS = "budgets"
"""Sources: what counts usage, what a provider's console says, and what the budgets say of themselves."""

Event = dict[str, Any]


def of_usage(budget: Budget, id_: str, amount: Decimal, at: datetime) -> Event:
    """Return the movement that tracked usage is."""
    return _event(TRACKER, "movement.usage", f"{budget.budget}:usage:{id_}", budget, amount, at, direction="debit")


def of_entry(budget: Budget, row: int, entry: Entry, at: datetime) -> Sequence[Event]:
    """Return what a row says: the plug (or the change of the total) as a movement, the console's reading, the plug's size."""
    name = f"{budget.budget}:reconciliation:{row}"
    if entry.adjustment_reason == TOP_UP:
        grown = minus(entry.total, budget.total)
        direction = "credit" if grown > 0 else "debit"
        return [_event(TRACKER, "movement.top_up", name, budget, abs(grown), at, direction=direction)]
    plug = entry.manual_plug_amount
    past = reaches(plug, budget.plug_warn) or reaches(plug, budget.plug_critical)
    events = [
        _event(CONSOLE, "balance.read", name, budget, entry.budget_after, at, reason=entry.adjustment_reason),
        _event(
            BUDGETS,
            "snapshot.reconciliation",
            name,
            budget,
            plug,
            at,
            reason=entry.adjustment_reason,
            plug_at_own_threshold=format(abs(plug), "f") if past else "0",
        ),
    ]
    if plug:
        direction = "debit" if plug > 0 else "credit"
        events.insert(0, _event(TRACKER, "movement.plug", name, budget, abs(plug), at, direction=direction))
    return events


def of_reading(provider: str, currency: str, reading: Reading) -> Event:
    """Return the snapshot that a reading of an odometer is."""
    closing = {"closing": reading.month} if reading.closing else {}
    return {
        "source": BUDGETS,
        "type": "snapshot.odometer",
        "id": f"{provider}:odometer:{reading.id}",
        "occurred_at": _time(reading.at),
        "account": provider,
        "amount": format(reading.value, "f"),
        "currency": currency,
        "attrs": closing,
    }


def _event(source: str, type_: str, id_: str, budget: Budget, amount: Decimal, at: datetime, **attrs: str) -> Event:
    return {
        "source": source,
        "type": type_,
        "id": id_,
        "occurred_at": _time(at),
        "account": budget.budget,
        "amount": format(amount, "f"),
        "currency": budget.currency,
        "attrs": {"provider": budget.provider} | attrs,
    }


def _time(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")

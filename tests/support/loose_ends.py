"""Builders of missing records and duplicates, as the matcher publishes them: what near misses are made of."""

from datetime import timedelta
from typing import Any

import msgspec

from shared.contracts.discrepancy import Discrepancy, Key
from tests.support.results import START, found, log_at, record, side_of

SOURCES = {"internal": "ledger", "provider": "stripe"}


def missing(
    name: str,
    key: Key,
    amount: str = "120.50",
    currency: str | None = "EUR",
    *,
    on: str = "provider",
    after_s: float = 0,
    **changes: Any,
) -> Discrepancy:
    """Return a discrepancy of a record that has nothing on the side `on`; it occurred `after_s` after START."""
    has = "internal" if on == "provider" else "provider"
    at = START + timedelta(seconds=after_s)
    there = record(
        changes.pop("record", f"{has[0]}_{name}"), amount, source=SOURCES[has], occurred_at=at, currency=currency
    )
    sides = {"internal": None, "provider": None} | {has: side_of(there)}
    values: dict[str, Any] = {
        "type": "MissingProviderRecord" if on == "provider" else "MissingInternalRecord",
        "key": key,
        "side": on,
        "sides": sides,
        "expected": amount if has == "internal" else None,
        "actual": amount if has == "provider" else None,
        "difference": f"-{amount}".removeprefix("--") if has == "internal" else amount,
        "currency": currency,
        "raised_at": at + timedelta(hours=1),
        "explanation": f"{key} is missing.",
    }
    return found(name, **values | changes)


def duplicate(name: str, key: Key, extra: str, amount: str = "120.50", *, after_s: float = 0) -> Discrepancy:
    """Return a discrepancy of a second stripe record of `key`."""
    at = START + timedelta(seconds=after_s)
    first = record(f"p_{name}", amount, source="stripe", occurred_at=at)
    return found(
        name,
        type="DuplicateChargeSuspected",
        key=key,
        side="provider",
        sides={"internal": side_of(record(f"i_{name}", amount)), "provider": side_of(first)},
        duplicate=extra,
        expected=None,
        actual=amount,
        difference=amount,
        raised_at=at,
    )


def ended(discrepancy: Discrepancy, offset: int = 100) -> Discrepancy:
    """Return the revision that resolves `discrepancy`."""
    log = log_at(offset)
    return msgspec.structs.replace(
        discrepancy,
        revision=discrepancy.revision + 1,
        state="resolved",
        resolution="late_arrival",
        resolved_at=log.time,
        log=log,
    )

"""Builders of what the matcher publishes: discrepancies, items and their log positions."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from shared.contracts.discrepancy import Discrepancy, LogPosition, RecordEvidence, SideEvidence
from shared.contracts.item import Item, ItemDiscrepancy, ItemSide, Total

START = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)


def uid(name: str) -> str:
    """Return the same UUID for the same name."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def log_at(offset: int, partition: int = 0) -> LogPosition:
    """Return a place in the log; log time goes on by a second per offset."""
    return LogPosition(partition=partition, offset=offset, time=START + timedelta(seconds=offset))


def record(name: str, amount: str | None = "100.00", *, source: str = "ledger", **changes: Any) -> RecordEvidence:
    """Return a succeeded EUR record."""
    values = {"id": f"evt_{name}", "currency": "EUR", "status": "succeeded", "occurred_at": START} | changes
    return RecordEvidence(source=source, record=name, amount=amount, **values)


def side_of(evidence: RecordEvidence) -> SideEvidence:
    """Return the side of a one-to-one rule on which this is the record."""
    return msgspec.convert(msgspec.to_builtins(evidence), SideEvidence)


def found(name: str = "d1", revision: int = 1, *, offset: int = 10, **changes: Any) -> Discrepancy:
    """Return a raised AmountMismatch of key pay_1: 100.00 in the ledger, 90.00 at Stripe."""
    internal, provider = record("pay_1"), record("pi_1", "90.00", source="stripe")
    values: dict[str, Any] = {
        "id": uid(name),
        "revision": revision,
        "state": "raised",
        "org": "acme",
        "rule": "billing.payments",
        "pack": "billing",
        "type": "AmountMismatch",
        "severity": "medium",
        "key": "pay_1",
        "side": None,
        "account": None,
        "sides": {"internal": side_of(internal), "provider": side_of(provider)},
        "duplicate": None,
        "expected": "100.00",
        "actual": "90.00",
        "difference": "-10.00",
        "currency": "EUR",
        "raised_at": START,
        "resolved_at": None,
        "resolution": None,
        "expired": False,
        "explanation": "Stripe has 10.00 EUR less than the ledger.",
        "log": log_at(offset),
    }
    return Discrepancy(**values | changes)


def resolved(name: str = "d1", revision: int = 2, *, offset: int = 11, **changes: Any) -> Discrepancy:
    """Return the same discrepancy, resolved by a correction."""
    log = changes.pop("log", log_at(offset))
    values = {"state": "resolved", "resolution": "corrected", "resolved_at": log.time, "log": log}
    return found(name, revision, offset=offset, **values | changes)


def item_side(*records: RecordEvidence, live: int | None = None) -> ItemSide:
    """Return an item's side with these records, all live unless `live` says how many."""
    count = len(records) if live is None else live
    totals = {"EUR": Total(count=count, amount="0.00")} if count else {}
    return ItemSide(occurred_at=START, totals=totals, records=list(records))


def item(name: str = "i1", revision: int = 1, *, offset: int = 10, **changes: Any) -> Item:
    """Return a matched item of key pay_1 with a record on both sides."""
    values: dict[str, Any] = {
        "id": uid(name),
        "revision": revision,
        "status": "matched",
        "org": "acme",
        "rule": "billing.payments",
        "pack": "billing",
        "key": "pay_1",
        "sides": {
            "internal": item_side(record("pay_1")),
            "provider": item_side(record("pi_1", source="stripe")),
        },
        "discrepancies": [],
        "at": START,
        "occurred_at": START,
        "live": True,
        "log": log_at(offset),
    }
    return Item(**values | changes)


def raised_on(discrepancy: Discrepancy) -> ItemDiscrepancy:
    """Return how an item names a discrepancy that is raised on it."""
    return ItemDiscrepancy(
        id=discrepancy.id,
        type=discrepancy.type,
        side=discrepancy.side,
        difference=discrepancy.difference,
        currency=discrepancy.currency,
    )

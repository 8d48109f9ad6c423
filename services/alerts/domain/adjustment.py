"""Adjustment entries: a correction is a new signed entry that names its discrepancy; ledger rows are never touched."""

from datetime import datetime
from typing import Any, Literal

import msgspec

from shared.contracts.discrepancy import Discrepancy, Key

EVENT_TYPE = "adjustment.posted"


class AdjustmentRefused(ValueError):
    """The entry cannot be made; the message says what to write instead."""


class BookedSign(msgspec.Struct, frozen=True, kw_only=True):
    """How an entry is booked so that it adds what it says: `factor` times its amount, with `value` in `field`."""

    factor: Literal[1, -1]
    field: str | None = None
    value: str | None = None


class RuleShape(msgspec.Struct, frozen=True, kw_only=True):
    """What an adjustment needs of a rule: the fields of its key, and the sources of its sides."""

    key_fields: tuple[str, ...]
    sources: dict[str, str]
    """Source by side that entries are added to, in the rule's order."""
    signs: dict[str, BookedSign] = {}
    """By source, where entries take the sign of the rule as everything else there does."""


class Adjustment(msgspec.Struct, frozen=True, kw_only=True):
    """An entry as it was posted."""

    id: str
    source: str
    amount: str
    currency: str
    reason: str
    notes: str | None
    posted_by: str
    event: dict[str, Any]
    """The event that goes through `inbox` to the matcher."""
    created_at: datetime


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asks for; `amount` is signed and is added to the side of `source`."""

    source: str
    amount: str
    currency: str
    reason: str
    notes: str | None = None


def adjust(found: Discrepancy, shape: RuleShape, entry: Entry, *, id_: str, actor: str, at: datetime) -> Adjustment:
    """Return the adjustment of `found` with the event that tells the matcher.

    Raises:
        AdjustmentRefused: the rule takes no entries, the source is no side of it, or its key cannot be carried by an event.
    """
    if not shape.sources:
        raise AdjustmentRefused(
            f"{found.rule} says what was read, which no entry adds to: correct it at its source, or resolve this with a reason"
        )
    if entry.source not in shape.sources.values():
        known = ", ".join(sorted(set(shape.sources.values())))
        raise AdjustmentRefused(f"source: {entry.source!r} is no side of {found.rule}; its sources are {known}")
    event: dict[str, Any] = {
        "source": entry.source,
        "type": EVENT_TYPE,
        "id": f"adj_{id_}",
        "occurred_at": at.isoformat().replace("+00:00", "Z"),
        "amount": entry.amount,
        "currency": entry.currency,
        "refs": {"discrepancy": found.id},
        "attrs": {"reason": entry.reason},
    }
    # Without a shared key the last part names the record: the entry finds it by the discrepancy.
    for field, value in zip(shape.key_fields, _parts(found.key)[: len(shape.key_fields)], strict=True):
        _put(event, field, value, found.rule)
    sign = shape.signs.get(entry.source)
    if sign is not None and sign.factor < 0:
        event["amount"] = _negated(entry.amount)
    if sign is not None and sign.field is not None and sign.value is not None:
        _put(event, sign.field, sign.value, found.rule)
    return Adjustment(
        id=id_,
        source=entry.source,
        amount=entry.amount,
        currency=entry.currency,
        reason=entry.reason,
        notes=entry.notes,
        posted_by=actor,
        event=event,
        created_at=at,
    )


def _put(event: dict[str, Any], field: str, value: str, rule: str) -> None:
    place, _, name = field.partition(".")
    if name:
        event[place][name] = value
    elif field == "account":
        event["account"] = value
    elif field == "currency":
        if event["currency"] != value:
            raise AdjustmentRefused(f"currency: {rule} keeps currencies apart, and this discrepancy is in {value}")
    else:
        raise AdjustmentRefused(
            f"{rule} reads {field}, which an adjustment entry cannot carry: post the event to ingest yourself"
        )


def _negated(amount: str) -> str:
    return amount[1:] if amount.startswith("-") else f"-{amount}"


def _parts(key: Key) -> list[str]:
    return [key] if isinstance(key, str) else list(key)

"""Topic `matches`: items. Every live leg stands in exactly one item; each change of an item is a new revision.

An item is published when its group first matches or gets a discrepancy, on every change after that (a withdrawn match
goes back to `pending`), and, while it is still pending, when a `cut` asks for it. JSON. Kafka key: the group key.
"""

from datetime import datetime
from typing import Literal

import msgspec

from shared.contracts.discrepancy import Key, LogPosition, RecordEvidence

ItemStatus = Literal["pending", "matched", "discrepant"]


class Total(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How many live records a side has in one currency, and their sum with the side's sign."""

    count: int
    amount: str


class ItemSide(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One side of an item: totals of its live records per currency, and up to 20 records, live or not.

    A side with one record, which is live and has amount and currency, says it once: see `totals_of`, `occurred_at_of`.
    """

    occurred_at: datetime | None = None
    """Of its first record; left out where that is its only one."""
    totals: dict[str, Total] | None = None
    """Left out where they are those of its only record."""
    records: list[RecordEvidence] = []
    adjustments: dict[str, str] = {}
    """Sum per currency of the adjustment entries that count now, on the side they change; not in `totals`.

    In items of older releases, of all that are live.
    """


def totals_of(side: ItemSide) -> dict[str, Total]:
    """Return a side's live records per currency, written or not."""
    if side.totals is not None:
        return side.totals
    (record,) = side.records
    assert record.currency is not None
    assert record.amount is not None
    return {record.currency: Total(count=1, amount=record.amount)}


def occurred_at_of(side: ItemSide) -> datetime:
    """Return when a side's first record occurred, written or not."""
    return side.occurred_at if side.occurred_at is not None else side.records[0].occurred_at


def in_full(side: ItemSide) -> ItemSide:
    """Return a side with everything written out: what people and programs read over the API."""
    return msgspec.structs.replace(side, occurred_at=occurred_at_of(side), totals=totals_of(side))


class ItemDiscrepancy(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A discrepancy that is raised on the item now."""

    id: str
    type: str
    side: str | None
    difference: str | None
    currency: str | None


class Item(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """The outcome of one group, as of `at`."""

    id: str
    revision: int
    status: ItemStatus
    org: str
    rule: str
    pack: str
    key: Key
    sides: dict[str, ItemSide | None]
    """In the rule's order; null where the side has no record."""
    discrepancies: list[ItemDiscrepancy]
    at: datetime
    """Receipt of the leg, or the timer, that made this revision."""
    occurred_at: datetime | None
    """Of the first side's first record, else of the earliest leg: decides the period it belongs to."""
    live: bool
    """Has a live leg; an item without one and without a discrepancy is in no figure."""
    log: LogPosition
    shadow: bool = False
    """From a rule that only watches: in no report."""
    confidence: str | None = None
    """Of records matched without a shared key: how alike they are, from 0 to 1."""
    reasons: list[str] = []
    """What made them alike."""

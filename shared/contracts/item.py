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
    """One side of an item: totals of its live records per currency, and up to 20 records, live or not."""

    occurred_at: datetime
    """Of its first record."""
    totals: dict[str, Total] = {}
    records: list[RecordEvidence] = []
    adjustments: dict[str, str] = {}
    """Sum of adjustment entries per currency; not in `totals`."""


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

"""A group: everything held about one money movement (one match key of one rule)."""

from collections.abc import Callable
from typing import Literal

import msgspec

from shared.contracts.leg import Leg

PENDING, MATCHED, DISCREPANT = 0, 1, 2
ITEM_STATUS: tuple[Literal["pending", "matched", "discrepant"], ...] = ("pending", "matched", "discrepant")


class Record(msgspec.Struct, array_like=True, gc=False):
    """The winning event of one record: times in microseconds, amount with the side's sign applied."""

    side: int
    source: str
    record: str
    id: str
    occurred_at: int
    sequence: int
    amount: str | None
    currency: str | None
    status: str | None
    first_at: int
    """`occurred_at` of the record's earliest event: decides which of several records is the compared one."""
    adjusts: str | None = None
    """Set on adjustment entries: the discrepancy they refer to."""
    values: dict[str, str] | None = None
    """What else the rule's kind reads of it (`Leg.values`)."""


class Raised(msgspec.Struct, array_like=True, gc=False):
    """A discrepancy that was raised at least once in a cell, kept so that it can return under its id."""

    name: str
    """Names it within the cell: type, side, currency, duplicate."""
    id: str
    type: str
    side: int
    """Place of the side in the rule, or NO_SIDE."""
    revision: int
    open: bool
    severity: str
    expected: str | None
    actual: str | None
    currency: str | None
    records: str
    """Digest of the set of records it speaks about."""
    raised_at: int
    """First raise, milliseconds."""
    duplicate: tuple[str, str] | None = None
    """(source, record) of the extra record."""
    reason: str | None = None
    explained: str | None = None
    unexplained: str | None = None


class Group(msgspec.Struct, array_like=True, gc=False):
    """State of one group. Times in milliseconds unless said otherwise."""

    generation: str
    opener: str
    """Id of the event that opened it: part of every id that the group gives out."""
    touched_at: int
    """Last applied leg or revision: `keep` and `expire` count from here."""
    due_at: int
    """When a timer of this group is due next."""
    armed_at: int
    """Receipt of the first live leg, -1 before it."""
    records: list[Record]
    waits: bool = False
    """Something true waits for its deadline or for `settle`."""
    item_revision: int = 0
    item_status: int = PENDING
    raised: list[Raised] | None = None
    since: dict[str, int] | None = None
    """Since when a difference that waits for `settle` has been true, by name."""
    adjustments: list[Record] | None = None
    superseded: list[tuple[str, str]] | None = None
    """(source, record) that never count again."""


pack: Callable[[Group], bytes] = msgspec.msgpack.Encoder().encode
unpack: Callable[[bytes], Group] = msgspec.msgpack.Decoder(Group).decode


def is_settled(group: Group) -> bool:
    """Tell whether a group waits for nothing but to be forgotten."""
    return not group.waits and not any(raised.open for raised in group.raised or ())


def record_of(leg: Leg) -> Record:
    """Return the record that `leg` is the first event of."""
    return Record(
        leg.side,
        leg.source,
        leg.record,
        leg.id,
        leg.occurred_at,
        leg.sequence,
        leg.amount,
        leg.currency,
        leg.status,
        leg.occurred_at,
        leg.adjusts,
        leg.values,
    )


Held = Literal[
    "no-op", "id reused", "new record", "newer event", "older event", "stopped being live", "superseding", "adjusting"
]
"""What holding a leg did to its group."""


def hold(group: Group, leg: Leg, is_live: Callable[[str | None], bool]) -> Held:  # noqa: PLR0911 - one per effect
    """Put `leg` into `group`: the newest event of a record replaces the older one, whole.

    Of two events the greater (occurred_at, sequence, id) wins, in whatever order they come. An older event changes
    nothing, but what it supersedes stays superseded and the record's earliest time may fall.
    """
    held = (group.adjustments or []) if leg.adjusts is not None else group.records
    if any(record.id == leg.id and record.source == leg.source and not _says(group, record, leg) for record in held):
        return "id reused"
    superseding = (
        leg.supersedes is not None and leg.supersedes != leg.record and supersede(group, leg.source, leg.supersedes)
    )
    if group.superseded and (leg.source, leg.record) in group.superseded:
        return "superseding" if superseding else "no-op"
    held = (group.adjustments or []) if leg.adjusts is not None else group.records
    for at, record in enumerate(held):
        if record.record != leg.record or record.source != leg.source:
            continue
        first_at = min(record.first_at, leg.occurred_at)
        if (leg.occurred_at, leg.sequence, leg.id) <= (record.occurred_at, record.sequence, record.id):
            lowered = first_at < record.first_at
            record.first_at = first_at
            return "superseding" if superseding else ("older event" if lowered else "no-op")
        held[at] = record_of(leg)
        held[at].first_at = first_at
        if leg.adjusts is not None:
            return "adjusting"
        if superseding:
            return "superseding"
        return "stopped being live" if is_live(record.status) and not is_live(leg.status) else "newer event"
    if leg.adjusts is not None:
        group.adjustments = [*(group.adjustments or ()), record_of(leg)]
        return "adjusting"
    held.append(record_of(leg))
    return "superseding" if superseding else "new record"


def _says(group: Group, record: Record, leg: Leg) -> bool:
    """Tell whether the event a record is held by says what `leg` says: then it is the same event again."""
    return (
        record.record == leg.record
        and record.side == leg.side
        and record.occurred_at == leg.occurred_at
        and record.sequence == leg.sequence
        and record.amount == leg.amount
        and record.currency == leg.currency
        and record.status == leg.status
        and record.adjusts == leg.adjusts
        and record.values == leg.values
        and (leg.supersedes in (None, leg.record) or (leg.source, leg.supersedes) in (group.superseded or ()))
    )


def supersede(group: Group, source: str, old: str) -> bool:
    """Let a record never count again in this group; tell whether it was there."""
    name = (source, old)
    if group.superseded is None:
        group.superseded = []
    if name in group.superseded:
        return False
    group.superseded.append(name)
    before = len(group.records) + len(group.adjustments or ())
    group.records = [held for held in group.records if (held.source, held.record) != name]
    if group.adjustments:
        group.adjustments = [held for held in group.adjustments if (held.source, held.record) != name]
    return len(group.records) + len(group.adjustments or ()) < before

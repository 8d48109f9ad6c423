"""Items in the sink: which revision is stored, and when a group only repeats records that are settled already.

The matcher forgets a settled group `keep` after its last leg. When a producer then delivers old events again, the
matcher cannot know; the sink can, because it still holds the settled item with the same records.
"""

from collections.abc import Iterable

import msgspec

from services.alerts.domain.names import group_id, name_id
from shared.contracts.discrepancy import Discrepancy, RecordEvidence, SideEvidence
from shared.contracts.item import Item, ItemSide
from shared.contracts.matched_pair import PlainMatch
from shared.rules.match_rule import NOT_LIVE, NOT_LIVE_PREFIX

RecordName = tuple[str, str]
"""(source, record)."""


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """A record of an item: on which side, as what, and whether it counts."""

    side: str
    record: RecordEvidence
    live: bool


class ArrivedItem(msgspec.Struct, frozen=True, gc=False):
    """An item as it came, with the names of what is in it: to make these takes as long as to read it."""

    id: str
    told: Item | PlainMatch
    group_id: str
    records: dict[str, bool]
    """Its records by id, and whether each counts."""

    @property
    def item(self) -> Item:
        """The item; a plain match is written out each time."""
        return self.told if isinstance(self.told, Item) else self.told.item()


def arrived(told: Item | PlainMatch) -> ArrivedItem:
    """Return what was told with its names."""
    org, rule = told.org, told.rule
    records = {
        name_id(org, rule, record.source, record.record): live
        for side in told.sides.values()
        if side is not None
        for record, live in live_records(side)
    }
    return ArrivedItem(told.id, told, group_id(org, rule, told.key), records)


class StoredItem(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An item as the sink holds it."""

    id: str
    group_id: str
    revision: int
    log_offset: int
    settled: bool
    sides: dict[str, ItemSide | None]
    reopened_offset: int | None = None
    """Log offset from which the matcher repeats it; what it repeats is not stored."""


def is_settled(item: Item) -> bool:
    """Matched, or nothing live and nothing raised: the matcher will forget it."""
    return item.status == "matched" or (not item.live and not item.discrepancies)


def held(item: Item, group_id: str) -> StoredItem:
    """Return `item` as it stands once stored."""
    return StoredItem(
        id=item.id,
        group_id=group_id,
        revision=item.revision,
        log_offset=item.log.offset,
        settled=is_settled(item),
        sides=item.sides,
    )


def repeats_item(item: Item, same: StoredItem | None, group: Iterable[StoredItem]) -> StoredItem | None:
    """Return the settled item whose records `item` only repeats, None when it tells something new.

    Args:
        item: the revision that came.
        same: what is stored under its id.
        group: everything stored under its org, rule and key.
    """
    if same is not None and same.reopened_offset is None and item.revision > same.revision:
        return None
    settled = [known for known in group if known.settled]
    if not settled:
        return None
    records = _item_records(item.sides)
    return next((known for known in settled if _holds(known, records, item.log.offset)), None)


def repeats_discrepancy(found: Discrepancy, group: Iterable[StoredItem]) -> bool:
    """Tell whether `found` stands only on records that a settled item of its group holds already.

    A part of the item's records, or an older state of them: all of them as they are would match, so whatever is said
    of those (after a change of rules, say) is news.
    """
    records = _evidence(found)
    for item in group:
        if not _holds(item, records, found.log.offset):
            continue
        known = _item_records(item.sides)
        if len(records) < len(known) or any(r.occurred_at < known[name].occurred_at for name, r in records.items()):
            return True
    return False


def _holds(item: StoredItem, records: dict[RecordName, RecordEvidence], offset: int) -> bool:
    if not item.settled or item.log_offset >= offset or not records:
        return False
    known = _item_records(item.sides)
    return all(name in known and _tells_nothing_new(record, known[name]) for name, record in records.items())


def _tells_nothing_new(record: RecordEvidence, known: RecordEvidence) -> bool:
    if record.occurred_at <= known.occurred_at:
        return True
    content = (record.amount, record.currency, record.status)
    return content == (known.amount, known.currency, known.status)


def _item_records(sides: dict[str, ItemSide | None]) -> dict[RecordName, RecordEvidence]:
    return {(r.source, r.record): r for side in sides.values() if side is not None for r in side.records}


def _evidence(found: Discrepancy) -> dict[RecordName, RecordEvidence]:
    return {(r.source, r.record): r for side in found.sides.values() if side is not None for r in _records(side)}


def _records(side: SideEvidence) -> list[RecordEvidence]:
    if side.records is not None:
        return side.records
    if side.id is None or side.source is None or side.record is None or side.occurred_at is None:
        return []
    return [
        RecordEvidence(
            id=side.id,
            source=side.source,
            record=side.record,
            amount=side.amount,
            currency=side.currency,
            status=side.status,
            occurred_at=side.occurred_at,
        )
    ]


def placed_records(sides: dict[str, ItemSide | None]) -> dict[RecordName, Placed]:
    """Return the records of an item by name.

    The item tells how many records are live, not which; only where some are and some are not does the status decide.
    """
    return {
        (record.source, record.record): Placed(side=name, record=record, live=live)
        for name, side in sides.items()
        if side is not None
        for record, live in live_records(side)
    }


def live_records(side: ItemSide) -> list[tuple[RecordEvidence, bool]]:
    """Return the records of a side, each with whether it counts; see `placed_records`."""
    if side.totals is None:
        return [(side.records[0], True)]
    count = 0
    for total in side.totals.values():
        count += total.count
    every = count > 0 and count >= len(side.records)
    return [(record, every or (count > 0 and _is_live(record.status))) for record in side.records]


def _is_live(status: str | None) -> bool:
    return status is None or not (status in NOT_LIVE or status.startswith(NOT_LIVE_PREFIX))


def repeated(item: StoredItem, offset: int) -> StoredItem:
    """Return `item` with the note that the matcher repeats it from `offset` on."""
    return msgspec.structs.replace(item, reopened_offset=offset)

"""Stores what the matcher found: one batch, one transaction, whatever was stored before it."""

from collections.abc import Sequence
from datetime import datetime

from services.alerts.domain import moved, settled, triage
from services.alerts.domain.delivery import compose, wants
from services.alerts.domain.moved import Holder, Placed
from services.alerts.domain.names import group_id, name_id
from services.alerts.domain.settled import RecordName, StoredItem
from services.alerts.domain.triage import Absorbed, Standing
from services.alerts.ports.sink import (
    Batch,
    Found,
    HeldRecord,
    Logged,
    Outgoing,
    SinkStore,
    SinkTransaction,
    StoredItemRevision,
    StoredRevision,
    Subscription,
    Writes,
)
from shared.contracts.discrepancy import Discrepancy
from shared.contracts.inbox import WithdrawRequested
from shared.contracts.item import Item


async def store(sink: SinkStore, batch: Batch, now: datetime) -> None:
    """Store `batch` and move its places on.

    Raises:
        Fenced: another sink was faster; nothing is stored.
        DependencyAway: the database does not answer; read the places again to learn whether it committed.
    """
    async with sink.transaction(batch.spans) as transaction:
        writes = Writes(
            checks=batch.checks,
            not_reconciled=batch.not_reconciled,
            unreadable=batch.unreadable,
            progress=batch.progress,
        )
        groups = await _known_groups(transaction, batch)
        changes = _absorb_items(batch.items, groups, writes)
        news = await _absorb_discrepancies(transaction, batch.discrepancies, groups, writes)
        news += await _absorb_moves(transaction, changes, writes, now)
        if news:
            writes.outgoing = _messages(news, await transaction.subscriptions(), now)
        await transaction.write(writes)


class _Group:
    """The items stored under one org, rule and key, kept up to date within the batch."""

    __slots__ = ("items",)

    def __init__(self, items: Sequence[StoredItem]) -> None:
        self.items = {item.id: item for item in items}


class _Change:
    """An item revision that is stored, with what stood there before."""

    __slots__ = ("before", "group", "item")

    def __init__(self, item: Item, group: str, before: StoredItem | None) -> None:
        self.item = item
        self.group = group
        self.before = before


_News = tuple[Absorbed, Found | None]


async def _known_groups(transaction: SinkTransaction, batch: Batch) -> dict[str, _Group]:
    ids = {group_id(item.org, item.rule, item.key) for item in batch.items}
    ids |= {group_id(f.discrepancy.org, f.discrepancy.rule, f.discrepancy.key) for f in batch.discrepancies}
    stored = await transaction.group_items(ids) if ids else {}
    return {id_: _Group(stored.get(id_, ())) for id_ in ids}


def _absorb_items(items: Sequence[Item], groups: dict[str, _Group], writes: Writes) -> list[_Change]:
    changes: dict[str, _Change] = {}
    stored: list[_Change] = []
    for item in items:
        id_ = group_id(item.org, item.rule, item.key)
        known = groups[id_].items
        same = known.get(item.id)
        if same is not None and (item.log.offset, item.revision) <= (same.log_offset, same.revision):
            continue
        repeated = settled.repeats_item(item, same, known.values())
        if repeated is not None:
            if repeated.id == item.id and repeated.reopened_offset is None:
                writes.repeated[item.id] = item.log.offset
                known[item.id] = settled.repeated(repeated, item.log.offset)
            continue
        known[item.id] = settled.held(item, id_)
        writes.repeated.pop(item.id, None)
        change = _Change(item, id_, changes[item.id].before if item.id in changes else same)
        changes[item.id] = change
        stored.append(change)
    writes.items = [
        StoredItemRevision(item=change.item, group_id=change.group, last=changes[change.item.id] is change)
        for change in stored
    ]
    return list(changes.values())


async def _absorb_discrepancies(
    transaction: SinkTransaction, arrived: Sequence[Found], groups: dict[str, _Group], writes: Writes
) -> list[_News]:
    if not arrived:
        return []
    standings = await transaction.standings({found.discrepancy.id for found in arrived})
    news: list[_News] = []
    stored: list[StoredRevision] = []
    for found in arrived:
        discrepancy = found.discrepancy
        group = group_id(discrepancy.org, discrepancy.rule, discrepancy.key)
        repeats = settled.repeats_discrepancy(discrepancy, groups[group].items.values())
        absorbed = triage.absorb(standings.get(discrepancy.id), discrepancy, repeats_settled=repeats)
        if absorbed is None:
            continue
        _keep(absorbed, group, standings, stored, writes)
        if absorbed.alerts and found.offset >= transaction.live_offsets.get(found.place, 0):
            news.append((absorbed, found))
    writes.revisions = _mark_last(stored)
    return news


def _keep(
    absorbed: Absorbed, group: str, standings: dict[str, Standing], stored: list[StoredRevision], writes: Writes
) -> None:
    found = absorbed.found
    standings[found.id] = absorbed.standing
    stored.append(StoredRevision(found=found, standing=absorbed.standing, group_id=group, last=False))
    writes.log += [Logged(found.org, found.id, row) for row in absorbed.log]


def _mark_last(stored: list[StoredRevision]) -> list[StoredRevision]:
    last = {revision.found.id: index for index, revision in enumerate(stored)}
    return [
        StoredRevision(found=r.found, standing=r.standing, group_id=r.group_id, last=last[r.found.id] == index)
        for index, r in enumerate(stored)
    ]


class _Move:
    """A live record that came to an item or left it, and another group that holds it too."""

    __slots__ = ("here", "other", "placed", "raised")

    def __init__(self, placed: Placed, here: Holder, other: Holder, *, raised: bool) -> None:
        self.placed = placed
        self.here = here
        self.other = other
        self.raised = raised

    @property
    def id(self) -> str:
        return moved.moved_id(self.placed.name, self.here, self.other)


async def _absorb_moves(
    transaction: SinkTransaction, changes: Sequence[_Change], writes: Writes, now: datetime
) -> list[_News]:
    steps = [step for change in changes for step in _steps(change)]
    if not steps:
        return []
    holders = await transaction.holders({step.record_id for step in steps})
    moves: list[_Move] = []
    for step in steps:
        moves += _moves_of(step, holders.setdefault(step.record_id, []), writes)
    if not moves:
        return []
    standings = await transaction.standings({move.id for move in moves})
    known = await transaction.discrepancies(standings)
    news: list[_News] = []
    stored: list[StoredRevision] = []
    for move in moves:
        found = _found_move(move, standings.get(move.id), known.get(move.id), now)
        absorbed = None if found is None else triage.absorb(standings.get(move.id), found, repeats_settled=False)
        if absorbed is None:
            continue
        known[move.id] = absorbed.found
        group = group_id(move.here.org, move.here.rule, absorbed.found.key)
        _keep(absorbed, group, standings, stored, writes)
        news.append((absorbed, None))
    writes.revisions = writes.revisions + _mark_last(stored)
    return news


class _Step:
    """A live record comes to an item (`comes`) or leaves it."""

    __slots__ = ("comes", "here", "item_id", "placed", "record_id")

    def __init__(self, placed: Placed, here: Holder, item_id: str, *, comes: bool) -> None:
        self.placed = placed
        self.here = here
        self.item_id = item_id
        self.comes = comes
        self.record_id = name_id(here.org, here.rule, *placed.name)


def _steps(change: _Change) -> list[_Step]:
    item = change.item
    after = settled.live_records(item.sides) if item.live else {}
    before = settled.live_records(change.before.sides) if change.before is not None else {}
    if after.keys() == before.keys():
        return []
    here = Holder(group_id=change.group, org=item.org, rule=item.rule, pack=item.pack, key=item.key, log=item.log)

    def step(name: RecordName, *, comes: bool) -> _Step:
        side, record = (after if comes else before)[name]
        return _Step(Placed(name=name, side=side, record=record), here, item.id, comes=comes)

    left = [step(name, comes=False) for name in before if name not in after]
    return left + [step(name, comes=True) for name in after if name not in before]


def _moves_of(step: _Step, holders: list[Holder], writes: Writes) -> list[_Move]:
    """Return what `step` means to the other groups that hold the record; keeps `holders` up to date."""
    here = step.here
    held = HeldRecord(record_id=step.record_id, item_id=step.item_id, group_id=here.group_id, org=here.org)
    (writes.holds if step.comes else writes.leaves).append(held)
    others = [holder for holder in holders if holder.group_id != here.group_id]
    holders[:] = [*others, here] if step.comes else others
    moves = []
    for other in others:
        keyless = [holder for holder in (here, other) if moved.is_keyless(holder.key)]
        if not keyless:
            moves.append(_Move(step.placed, here, other, raised=step.comes))
        elif step.comes:
            source, record = step.placed.name
            writes.withdrawals.append(WithdrawRequested(org=here.org, rule=here.rule, source=source, record=record))
    return moves


def _found_move(move: _Move, standing: Standing | None, known: Discrepancy | None, now: datetime) -> Discrepancy | None:
    revision = standing.revision + 1 if standing else 1
    offset = standing.log_offset if standing else 0
    if move.raised:
        if standing is not None and standing.state == "raised":
            return None
        return moved.raise_moved(move.placed, move.here, move.other, revision, offset)
    if standing is None or known is None or standing.state == "resolved":
        return None
    return moved.resolve_moved(known, move.here, revision, offset, now)


def _messages(news: Sequence[_News], subscriptions: Sequence[Subscription], now: datetime) -> list[Outgoing]:
    by_org: dict[str, list[Subscription]] = {}
    for subscription in subscriptions:
        by_org.setdefault(subscription.org, []).append(subscription)
    return [
        Outgoing(
            org=absorbed.found.org,
            endpoint_id=subscription.endpoint_id,
            discrepancy_id=absorbed.found.id,
            revision=absorbed.found.revision,
            log_offset=absorbed.found.log.offset,
            message=compose(subscription.endpoint_id, absorbed.found, absorbed.previous, now),
            traceparent=arrived.traceparent if arrived else None,
        )
        for absorbed, arrived in news
        for subscription in by_org.get(absorbed.found.org, ())
        if wants(subscription.types, subscription.severity_min, absorbed.found)
        # An endpoint hears only of what happened since it exists, so a rebuild cannot flood it.
        and (arrived is None or arrived.appended_at >= subscription.created_at)
    ]

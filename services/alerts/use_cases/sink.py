"""Stores what the matcher found: one batch, one transaction, whatever was stored before it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime

from services.alerts.domain import moved, settled, triage
from services.alerts.domain.delivery import compose, wants
from services.alerts.domain.moved import Holder, Holding, Turn, Whereabouts
from services.alerts.domain.names import group_id, name_id
from services.alerts.domain.settled import ArrivedItem, Placed, RecordName, StoredItem
from services.alerts.domain.triage import Absorbed, Standing
from services.alerts.ports.sink import (
    Batch,
    Found,
    HeldRecord,
    Logged,
    Outgoing,
    SinkStore,
    SinkTransaction,
    Span,
    StoredItemRevision,
    StoredRevision,
    Subscription,
    Writes,
)
from shared.contracts.inbox import WithdrawRequested

HOLDERS_MAX = 8
"""Groups of one record that are read whole; where more hold it, those that matter are asked for."""


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
            feeds=batch.feeds,
        )
        groups = await _known_groups(transaction, batch)
        changes = _absorb_items(batch.items, groups, writes)
        news = await _absorb_discrepancies(transaction, batch.discrepancies, groups, writes)
        news += await _absorb_moves(transaction, changes, writes, now, _rebuilt(batch.spans, transaction))
        if news:
            writes.outgoing = _messages(news, await transaction.subscriptions(), now)
        await transaction.write(writes)


_Group = dict[str, StoredItem]
"""The items stored under one org, rule and key by id, kept up to date within the batch.

A group of which nothing is stored and one result comes has none: nothing is compared there, and nearly all are so.
"""


class _Change:
    """An item revision that is stored, with what stood there before."""

    __slots__ = ("arrived", "before", "records")

    def __init__(self, arrived: ArrivedItem, before: StoredItem | None) -> None:
        self.arrived = arrived
        self.before = before
        self.records: dict[str, bool] | None = None
        """Of the only revision of a new item, which nearly all are: see `StoredItemRevision.records`."""


_News = tuple[Absorbed, Found | None]


async def _known_groups(transaction: SinkTransaction, batch: Batch) -> dict[str, _Group]:
    ids = [arrived.group_id for arrived in batch.items]
    ids += [group_id(f.discrepancy.org, f.discrepancy.rule, f.discrepancy.key) for f in batch.discrepancies]
    asked = set(ids)
    stored = await transaction.group_items(asked) if asked else {}
    groups: dict[str, _Group] = {id_: {} for id_ in _repeated(ids)} if len(asked) < len(ids) else {}
    return groups | {id_: {item.id: item for item in items} for id_, items in stored.items()}


def _absorb_items(items: Sequence[ArrivedItem], groups: dict[str, _Group], writes: Writes) -> list[_Change]:
    last: dict[str, _Change] = {}
    stored: list[_Change] = []
    for arrived in items:
        known = groups.get(arrived.group_id)
        if known is None:
            change = _Change(arrived, None)
        else:
            found = _absorb_item(arrived, known, writes)
            if found is None:
                continue
            change = found
        last[arrived.id] = change
        stored.append(change)
    for change in last.values():
        if change.before is None:
            change.records = change.arrived.records
    writes.items = [
        StoredItemRevision(arrived=change.arrived, last=last[change.arrived.id] is change, records=change.records)
        for change in stored
    ]
    return stored


def _absorb_item(arrived: ArrivedItem, known: _Group, writes: Writes) -> _Change | None:
    """Compare an item with what is known of its group; None: it tells nothing new."""
    item = arrived.item
    same = known.get(item.id)
    if same is not None and (item.log.offset, item.revision) <= (same.log_offset, same.revision):
        return None
    repeated = settled.repeats_item(item, same, known.values())
    if repeated is not None:
        if repeated.id == item.id and repeated.reopened_offset is None:
            writes.repeated[item.id] = item.log.offset
            known[item.id] = settled.repeated(repeated, item.log.offset)
        return None
    known[item.id] = settled.held(item, arrived.group_id)
    writes.repeated.pop(item.id, None)
    return _Change(arrived, same)


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
        repeats = settled.repeats_discrepancy(discrepancy, groups.get(group, {}).values())
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


class _Step:
    """A record comes to an item, changes whether it counts there, or leaves it (`placed` is None)."""

    __slots__ = ("here", "item_id", "name", "placed", "record_id")

    def __init__(self, name: RecordName, placed: Placed | None, here: Holder, item_id: str) -> None:
        self.name = name
        self.placed = placed
        self.here = here
        self.item_id = item_id
        self.record_id = name_id(here.org, here.rule, *name)


async def _absorb_moves(
    transaction: SinkTransaction, changes: Sequence[_Change], writes: Writes, now: datetime, rebuilt: set[int]
) -> list[_News]:
    if not changes:
        return []
    turns = await _follow(transaction, changes, writes)
    if not turns:
        return []
    standings = await transaction.standings(set(turns))
    known = await transaction.discrepancies(standings)
    news: list[_News] = []
    stored: list[StoredRevision] = []
    for id_, turn in ((id_, turn) for id_, some in turns.items() for turn in some):
        standing = standings.get(id_)
        revision, offset = (standing.revision + 1, standing.log_offset) if standing else (1, 0)
        found = moved.after(turn, known.get(id_), revision, offset, now)
        absorbed = None if found is None else triage.absorb(standing, found, repeats_settled=False)
        if absorbed is None:
            continue
        known[id_] = absorbed.found
        group = group_id(turn.here.org, turn.here.rule, absorbed.found.key)
        _keep(absorbed, group, standings, stored, writes)
        if turn.here.log.partition not in rebuilt:
            news.append((absorbed, None))
    writes.revisions = writes.revisions + _mark_last(stored)
    return news


def _rebuilt(spans: Sequence[Span], transaction: SinkTransaction) -> set[int]:
    """Return the partitions of `matches` that are being rebuilt: what moved there was told before."""
    return {
        span.place.partition
        for span in spans
        if span.place.topic == "matches" and span.start < transaction.live_offsets.get(span.place, 0)
    }


def _steps(change: _Change) -> list[_Step]:
    """Return what one revision of an item changes about its records; revisions of one batch are not added up.

    A record that left and came back has to be taken out again, also where both lie in one batch.
    """
    item = change.arrived.item
    after = settled.placed_records(item.sides)
    before = settled.placed_records(change.before.sides) if change.before is not None else {}
    here = Holder(
        group_id=change.arrived.group_id,
        org=item.org,
        rule=item.rule,
        pack=item.pack,
        key=item.key,
        log=item.log,
        shadow=item.shadow,
    )
    left = [_Step(name, None, here, item.id) for name in before if name not in after]
    return left + [
        _Step(name, placed, here, item.id)
        for name, placed in after.items()
        if name not in before or before[name].live != placed.live
    ]


async def _follow(transaction: SinkTransaction, changes: Sequence[_Change], writes: Writes) -> dict[str, list[Turn]]:
    """Follow the records of `changes` through their groups; return by discrepancy what may have moved.

    A record that stands nowhere yet and comes once cannot have moved, and no step is made for it: nearly all are so.
    """
    came_again = [change for change in changes if change.records is None]
    steps = {id(change): _steps(change) for change in came_again}
    records = [id_ for change in changes for id_ in change.records or ()]
    records += [step.record_id for some in steps.values() for step in some]
    asked = set(records)
    holdings = await transaction.holders(asked, HOLDERS_MAX + 1)
    known = holdings.keys() | (_repeated(records) if len(asked) < len(records) else set())
    for change in changes:
        if change.records is not None and not known.isdisjoint(change.records):
            steps[id(change)] = [step for step in _steps(change) if step.record_id in known]
    ordered = [step for change in changes for step in steps.get(id(change), ())]
    crowded = [step for step in ordered if len(holdings.get(step.record_id, ())) > HOLDERS_MAX]
    if crowded:
        holdings |= await transaction.holders_among(_places_asked(crowded))
    turns = _turns(ordered, holdings, writes)
    _note_places([step for change in came_again for step in steps[id(change)]], writes)
    return turns


def _repeated(records: Iterable[str]) -> set[str]:
    return {id_ for id_, count in Counter(records).items() if count > 1}


def _places_asked(steps: Sequence[_Step]) -> set[tuple[str, str]]:
    """Record and group: each group that a step speaks of, and the one where its record would stand without a key."""
    asked = {(step.record_id, step.here.group_id) for step in steps}
    for step in steps:
        here = step.here
        asked.add((step.record_id, group_id(here.org, here.rule, moved.keyless_key(step.name))))
    return asked


def _turns(steps: Sequence[_Step], holdings: dict[str, list[Holding]], writes: Writes) -> dict[str, list[Turn]]:
    """Follow every record through its groups; return by discrepancy what may have moved, and note what is withdrawn."""
    whereabouts: dict[str, Whereabouts] = {}
    withdrawals: dict[str, WithdrawRequested] = {}
    turns: dict[str, list[Turn]] = {}
    for step in steps:
        here, id_ = step.here, step.record_id
        where = whereabouts.get(id_)
        if where is None:
            where = whereabouts[id_] = Whereabouts(step.name, holdings.get(id_, ()))
        turn = where.step(here, step.placed)
        if turn is not None:
            turns.setdefault(moved.moved_id(here.org, here.rule, step.name), []).append(turn)
        if step.placed is not None and where.is_twice:
            source, record = step.name
            withdrawals[id_] = WithdrawRequested(org=here.org, rule=here.rule, source=source, record=record)
    writes.withdrawals = list(withdrawals.values())
    return turns


def _note_places(steps: Sequence[_Step], writes: Writes) -> None:
    """Note which records are to be stored as held by which items, and which no longer."""
    held = {(step.record_id, step.item_id): _held(step) for step in steps}
    writes.holds = [one for one in held.values() if one is not None]
    writes.leaves = [place for place, one in held.items() if one is None]


def _held(step: _Step) -> HeldRecord | None:
    if step.placed is None:
        return None
    return HeldRecord(
        record_id=step.record_id,
        item_id=step.item_id,
        group_id=step.here.group_id,
        org=step.here.org,
        live=step.placed.live,
    )


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
        and (arrived is None or arrived.appended_at >= subscription.hears_from)
    ]

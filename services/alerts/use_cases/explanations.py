"""Looks for near misses and clusters: after the sink's commit, beside it, so that storing never waits for it.

Each pair is the better one for at least one of its two, as in `near_misses` over all: a better pair takes a loose end
from a lesser one, whose other end is looked at again. So the order in which discrepancies come does not matter.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from services.alerts.domain.cluster import CLUSTER_SIZE_MIN, cause_of, groups, member_of, named_cause
from services.alerts.domain.near_miss import (
    ALONE_WINDOW,
    LooseEnd,
    Match,
    Neighbours,
    loose_end,
    matches,
    near_miss,
)
from services.alerts.ports.explanations import (
    Around,
    Changed,
    ExplanationStore,
    ExplanationTransaction,
    StoredEnd,
    StoredMember,
)

CHANGES_MAX: Final = 1_000
"""Changes per transaction: some hundred milliseconds of work."""
STEPS_MAX: Final = 3_000
"""Loose ends looked at in one transaction; what is left goes into the queue again."""
MEMBERS_MAX: Final = 20_000
"""Members of one cause that are read, those raised last: a larger cluster is counted as so many."""


async def explain_changes(
    store: ExplanationStore, *, changes_max: int = CHANGES_MAX, cluster_size_min: int = CLUSTER_SIZE_MIN
) -> int:
    """Look at what changed, at most `changes_max`; return how many changes were looked at.

    Raises:
        DependencyAway: the database does not answer; what was taken is looked at again.
    """
    async with store.transaction() as transaction:
        ids = await transaction.take(changes_max)
        if not ids:
            return 0
        changed = sorted(await transaction.changed(ids), key=lambda one: (one.found.raised_at, one.found.id))
        await _pair(transaction, changed)
        await _cluster(transaction, changed, cluster_size_min)
    return len(ids)


async def skip_change(store: ExplanationStore) -> list[str]:
    """Take the oldest change off the queue unseen, since looking at it failed; return the discrepancy's id."""
    async with store.transaction() as transaction:
        return await transaction.take(1)


# ---- near misses


async def _pair(transaction: ExplanationTransaction, changed: Sequence[Changed]) -> None:
    known = await transaction.ends([one.found.id for one in changed])
    came: list[LooseEnd] = []
    left: list[StoredEnd] = []
    again: list[LooseEnd] = []
    for one in changed:
        end = loose_end(one.found) if one.open else None
        before = known.get(one.found.id)
        if before is not None and end == before.end:
            # Perhaps it was put back, when there was too much to look at.
            again += [end] if before.pair_id is None or before.alone else []
            continue
        if before is not None:
            left.append(before)
        if end is not None:
            came.append(end)
    await transaction.drop_ends([before.end.id for before in left])
    await transaction.put_ends(came)
    desk = _Desk(transaction, came, again)
    for before in left:
        await desk.leave(before)
    await desk.work()


class _Desk:
    """Loose ends to look at, each once at a time."""

    def __init__(
        self, transaction: ExplanationTransaction, came: Sequence[LooseEnd], again: Sequence[LooseEnd]
    ) -> None:
        self._transaction = transaction
        self._new = {end.id for end in (*came, *again)}
        self._queue: dict[str, LooseEnd] = {end.id: end for end in (*came, *again)}

    async def leave(self, before: StoredEnd) -> None:
        """Free what `before` was paired with, and look again at what may be alone without it."""
        around = await self._transaction.around(before.end, before.pair_id)
        await self._free(around.opposite, before.pair_id)
        for near in (*around.opposite, *around.beside):
            if near.pair_id is None and _may_be_alone(near.end, before.end):
                self._queue[near.end.id] = near.end

    async def work(self) -> None:
        """Look at everything in the queue, and at what that sets free."""
        for _ in range(STEPS_MAX):
            if not self._queue:
                return
            id_ = next(iter(self._queue))
            del self._queue[id_]
            own = (await self._transaction.ends([id_])).get(id_)
            if own is not None:
                await self._look(own)
        await self._transaction.put_back(list(self._queue.values()))

    async def _look(self, own: StoredEnd) -> None:
        around = await self._transaction.around(own.end, own.pair_id)
        if own.end.id in self._new:
            self._new.discard(own.end.id)
            self._doubt(around)
        neighbours = Neighbours([near.end for near in around.opposite], [near.end for near in around.beside])
        best = matches(own.end, neighbours)
        if own.pair_id is not None and all(other.id != own.pair_id for _, other in best):
            await self._transaction.unlink([own.end.id])
            await self._free(around.opposite, own.pair_id)
            own = StoredEnd(end=own.end, pair_id=None, rank=None, alone=False)
        stored = {near.end.id: near for near in around.opposite}
        for match, other in best:
            if other.id == own.pair_id:
                return
            theirs = stored[other.id]
            if theirs.rank is None or match.rank < theirs.rank:
                await self._link(own, theirs, match, around)
                return

    def _doubt(self, around: Around) -> None:
        """Something came: what was paired because nothing else could be meant is looked at again."""
        for near in (*around.opposite, *around.beside):
            if near.alone:
                self._queue[near.end.id] = near.end

    async def _link(self, own: StoredEnd, theirs: StoredEnd, match: Match, around: Around) -> None:
        one, other = own.end, theirs.end
        await self._free(around.opposite, own.pair_id)
        await self._free((), theirs.pair_id)
        await self._transaction.link(one.id, other.id, match.rank, match.alone, near_miss(one, other, match))
        await self._transaction.link(other.id, one.id, match.rank, match.alone, near_miss(other, one, match))

    async def _free(self, known: Iterable[StoredEnd], id_: str | None) -> None:
        """Take its pair from a loose end and look at it again."""
        if id_ is None:
            return
        freed = next((near for near in known if near.end.id == id_), None) or (await self._transaction.ends([id_])).get(
            id_
        )
        if freed is None:
            return
        await self._transaction.unlink([id_])
        self._queue[id_] = freed.end


def _may_be_alone(end: LooseEnd, left: LooseEnd) -> bool:
    """Tell whether `left` may have been what kept `end` from a pair without a reference."""
    is_same = end.amount.copy_abs() == left.amount.copy_abs() and end.currency == left.currency
    return is_same and abs(end.occurred_at - left.occurred_at) <= 2 * ALONE_WINDOW


# ---- clusters


async def _cluster(transaction: ExplanationTransaction, changed: Sequence[Changed], size_min: int) -> None:
    known = await transaction.members_known([one.found.id for one in changed])
    touched: dict[tuple[str, str], None] = {}
    now: list[StoredMember] = []
    gone: list[str] = []
    for one in changed:
        before, after = known.get(one.found.id), _member(one)
        if before == after:
            continue
        if after is None:
            gone.append(one.found.id)
        else:
            now.append(after)
        touched |= {(held.org, held.cause): None for held in (before, after) if held is not None}
    await transaction.drop_members(gone)
    await transaction.put_members(now)
    for org, cause in touched:
        await _tell(transaction, org, cause, size_min)


def _member(one: Changed) -> StoredMember | None:
    """What has closed is a member too, seen open or not: a name must not depend on when one looked."""
    if one.found.shadow:
        return None
    member = member_of(one.found, is_open=one.open)
    return StoredMember(org=one.found.org, cause=cause_of(one.raised).name, member=member)


async def _tell(transaction: ExplanationTransaction, org: str, name: str, size_min: int) -> None:
    cause = named_cause(name)
    members, began = await transaction.members(org, name, cause.gap, MEMBERS_MAX)
    found = groups(org, cause, members, size_min, began)
    membership = {
        member.id: None if group.cluster is None else group.cluster.id
        for group in found
        for member in group.members
        if member.open
    }
    await transaction.write_clusters(org, name, [group.cluster for group in found if group.cluster], membership)

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
"""Members of one cause that are read: a larger cluster is counted as so many."""


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
    for one in changed:
        before = known.get(one.found.id)
        if not one.open and before is None:
            continue
        # What has ended has another evidence; it stays a member of the cause it had.
        cause = before.cause if before is not None and not one.open else cause_of(one.found).name
        member = member_of(one.found, is_open=one.open)
        after = StoredMember(org=one.found.org, cause=cause, member=member)
        if before == after:
            continue
        now.append(after)
        touched |= {(held.org, held.cause): None for held in (before, after) if held is not None}
    await transaction.put_members(now)
    for org, cause in touched:
        await _tell(transaction, org, cause, size_min)


async def _tell(transaction: ExplanationTransaction, org: str, cause: str, size_min: int) -> None:
    members = await transaction.members(org, cause, MEMBERS_MAX)
    found = groups(org, named_cause(cause), members, size_min)
    over = [member.id for group in found if not any(m.open for m in group.members) for member in group.members]
    membership = {
        member.id: group.cluster.id if group.cluster is not None and member.open else None
        for group in found
        for member in group.members
    }
    clusters = [group.cluster for group in found if group.cluster is not None]
    await transaction.write_clusters(org, cause, clusters, membership)
    await transaction.drop_members(over)

"""Kafka as far as tieout relies on it: partitions, transactions with epochs and fencing, last stable offset, groups.

Written from the protocol, not from the client: what a request does to the log, who is fenced, when readers see what. It
answers requests at once; the network (`network.py`) delays, loses and repeats them. Oddities that were seen on the real
broker are here too: a marker that is skipped when the broker dies at the wrong moment (decision 9), and the end of a
transaction that arrives so late that it hits the next one (KIP-890).
"""

import asyncio
import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    ConcurrentTransactions,
    InvalidProducerEpoch,
    InvalidTxnState,
    OffsetOutOfRangeError,
    OutOfOrderSequenceNumber,
)

START_MS = 1_780_000_000_000
PLAIN, OPEN, COMMITTED, ABORTED, MARKER = range(5)
REBALANCE_S = 1.5
"""How long a group waits for its members to join again; scaled down like the session."""


@dataclass(slots=True)
class Stored:
    """One record of a partition, in the form in which a consumer gets it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp: int
    producer: int = -1
    status: int = PLAIN


class Log:
    """One partition."""

    def __init__(self, place: TopicPartition) -> None:
        self.place = place
        self.begin = 0
        self.records: list[Stored] = []
        self.epochs: dict[int, int] = {}
        self.open: dict[int, int] = {}
        """First offset of the open transaction, by producer."""
        self.sequences: dict[int, tuple[int, int, dict[int, int]]] = {}
        """By producer: epoch, next sequence, and the offsets of the last batches by their sequence."""

    @property
    def end(self) -> int:
        return len(self.records)

    @property
    def stable(self) -> int:
        return min(self.open.values(), default=self.end)

    def append(self, record: Stored) -> None:
        self.records.append(record)


@dataclass(slots=True)
class Transaction:
    """What the coordinator knows of a transactional id."""

    name: str
    producer: int
    epoch: int
    state: str = "empty"  # ongoing, ending, committed, aborted
    places: set[TopicPartition] = field(default_factory=set)
    begun: int = 0
    waiting: set[TopicPartition] = field(default_factory=set)
    commits: bool = False


@dataclass(slots=True, eq=False)
class Member:
    """One consumer of a group."""

    name: str
    instance: str | None
    topics: tuple[str, ...]
    heard_s: float
    joining: "asyncio.Future[tuple[int, list[TopicPartition]]] | None" = None


@dataclass
class Group:
    """Eager rebalancing, static members too."""

    members: dict[str, Member] = field(default_factory=dict)
    generation: int = 0
    rebalancing: bool = False
    round: int = 0
    owned: dict[str, list[TopicPartition]] = field(default_factory=dict)
    offsets: dict[TopicPartition, tuple[int, str]] = field(default_factory=dict)


class Broker:
    """One broker with everything on it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, chance: random.Random, session_s: float) -> None:
        self.loop = loop
        self.chance = chance
        self.session_s = session_s
        self.up = True
        self.incarnation = 0
        self.logs: dict[TopicPartition, Log] = {}
        self.counts: dict[str, int] = {}
        self.transactions: dict[str, Transaction] = {}
        self.groups: dict[str, Group] = defaultdict(Group)
        self.skip_markers = 0.0
        """Chance that a marker which is due while the broker is away is forgotten."""
        self.skipped = 0
        self._producers = itertools.count(1)
        self._members = itertools.count(1)
        self._begun = itertools.count(1)
        self._waiting: dict[str, list[asyncio.Future[None]]] = defaultdict(list)

    def create(self, topic: str, partitions: int) -> None:
        self.counts[topic] = partitions
        for number in range(partitions):
            place = TopicPartition(topic, number)
            self.logs[place] = Log(place)

    def now_ms(self) -> int:
        return START_MS + int(self.loop.time() * 1000)

    # ---- up and down

    def crash(self, skip_markers: float) -> None:
        """`kill -9`: connections end, what was acknowledged stays."""
        self.up = False
        self.incarnation += 1
        self.skip_markers = skip_markers

    def restart(self) -> None:
        """Come back; markers that are due are written now, or forgotten, all of a transaction or one by one."""
        self.up = True
        for transaction in self.transactions.values():
            if transaction.state != "ending":
                continue
            all_of_it = self.chance.random() < self.skip_markers
            for place in sorted(transaction.waiting):
                if all_of_it or self.chance.random() < self.skip_markers / 2:
                    transaction.waiting.discard(place)
                    self.skipped += 1
                else:
                    self._later(self._mark, transaction, place)
            self._complete(transaction)
        self.skip_markers = 0.0

    def _later(self, call: Callable[..., None], *args: Any, delay_s: float | None = None) -> None:
        if delay_s is None:
            delay_s = self.chance.choice((0.0005, 0.001, 0.004, 0.02))
        self.loop.call_later(delay_s, call, *args)

    # ---- transactions

    def init_producer(self, name: str | None, timeout_s: float) -> tuple[int, int]:
        """InitProducerId: fences whoever had the name before."""
        if name is None:
            return next(self._producers), 0
        found = self.transactions.get(name)
        if found is None:
            found = self.transactions[name] = Transaction(name, next(self._producers), -1)
        if found.state == "ongoing":
            found.epoch += 1
            self._end(found, commits=False)
        if found.state == "ending":
            raise ConcurrentTransactions
        found.epoch += 1
        found.state = "empty"
        found.places.clear()
        self._timeouts(found, timeout_s)
        return found.producer, found.epoch

    def _timeouts(self, found: Transaction, timeout_s: float) -> None:
        epoch = found.epoch

        def look(begun: int) -> None:
            if found.epoch != epoch:
                return
            if found.state == "ongoing" and found.begun == begun and begun and self.up:
                found.epoch += 1
                self._end(found, commits=False)
                return
            self.loop.call_later(timeout_s, look, found.begun if found.state == "ongoing" else 0)

        self.loop.call_later(timeout_s, look, 0)

    def _transaction(self, name: str, producer: int, epoch: int) -> Transaction:
        found = self.transactions[name]
        if (found.producer, found.epoch) != (producer, epoch):
            raise InvalidProducerEpoch
        return found

    def add_partitions(self, name: str, producer: int, epoch: int, places: Sequence[TopicPartition]) -> None:
        """AddPartitionsToTxn: begins the transaction as well."""
        found = self._transaction(name, producer, epoch)
        if found.state == "ending":
            raise ConcurrentTransactions
        if found.state != "ongoing":
            found.state, found.places = "ongoing", set()
            found.begun = next(self._begun)
        found.places.update(places)

    def end_transaction(self, name: str, producer: int, epoch: int, commits: bool) -> None:
        """EndTxn; the same again gets the same answer."""
        found = self._transaction(name, producer, epoch)
        if found.state == "ongoing":
            self._end(found, commits)
        elif found.state == "ending":
            if found.commits is not commits:
                raise InvalidTxnState
            raise ConcurrentTransactions
        elif found.state != ("committed" if commits else "aborted"):
            raise InvalidTxnState

    def _end(self, found: Transaction, commits: bool) -> None:
        found.state, found.commits = "ending", commits
        found.waiting = set(found.places)
        for place in sorted(found.waiting):
            self._later(self._mark, found, place)
        if not found.waiting:
            self._complete(found)

    def _mark(self, found: Transaction, place: TopicPartition) -> None:
        if place not in found.waiting or not self.up:
            return  # written already, or due again after a restart
        log = self.logs[place]
        status = COMMITTED if found.commits else ABORTED
        first = log.open.pop(found.producer, None)
        if first is not None:
            for record in log.records[first:]:
                if record.producer == found.producer and record.status == OPEN:
                    record.status = status
        log.epochs[found.producer] = max(found.epoch, log.epochs.get(found.producer, -1))
        log.append(Stored(place.topic, place.partition, log.end, None, None, (), self.now_ms(), status=MARKER))
        found.waiting.discard(place)
        self._tell(place.topic)
        self._complete(found)

    def _complete(self, found: Transaction) -> None:
        if not found.waiting and found.state == "ending":
            found.state = "committed" if found.commits else "aborted"
            found.places = set()

    # ---- records

    def produce(
        self,
        name: str | None,
        producer: int,
        epoch: int,
        place: TopicPartition,
        sequence: int,
        records: Sequence[tuple[bytes | None, bytes | None, Sequence[tuple[str, bytes]]]],
    ) -> int:
        """Append a batch; returns its first offset, also when it is a repetition."""
        log = self.logs[place]
        if epoch < log.epochs.get(producer, -1):
            raise InvalidProducerEpoch
        known_epoch, expected, offsets = log.sequences.get(producer, (epoch, 0, {}))
        if known_epoch != epoch:
            expected, offsets = 0, {}
        if sequence in offsets:
            return offsets[sequence]
        if sequence != expected:
            raise OutOfOrderSequenceNumber
        if name is not None and producer not in log.open:
            # The partition asks the coordinator whether it is part of a transaction of this epoch.
            found = self._transaction(name, producer, epoch)
            if found.state != "ongoing" or place not in found.places:
                raise InvalidTxnState
        first, status = log.end, PLAIN if name is None else OPEN
        for key, value, headers in records:
            log.append(
                Stored(
                    *place,
                    log.end,
                    key,
                    value,
                    tuple(headers),
                    self.now_ms(),
                    producer if name is not None else -1,
                    status,
                )
            )
        if name is not None:
            log.open.setdefault(producer, first)
        log.epochs[producer] = epoch
        offsets[sequence] = first
        log.sequences[producer] = epoch, sequence + len(records), offsets
        self._tell(place.topic)
        return first

    def offsets(self, committed: bool, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """The end of each partition, or how far readers of committed records see."""
        return {place: self.logs[place].stable if committed else self.logs[place].end for place in places}

    def begins(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return {place: self.logs[place].begin for place in places}

    def fetch(
        self, wanted: dict[TopicPartition, int], committed: bool, records_max: int
    ) -> dict[TopicPartition, tuple[list[Stored], int, int]]:
        """By partition: records, the next position, and the end (for lag)."""
        found: dict[TopicPartition, tuple[list[Stored], int, int]] = {}
        lost = {place: at for place, at in wanted.items() if at < self.logs[place].begin or at > self.logs[place].end}
        if lost:
            raise OffsetOutOfRangeError(lost)
        for place, position in wanted.items():
            log = self.logs[place]
            end = log.stable if committed else log.end
            if position >= end:
                continue
            piece = log.records[position : min(end, position + records_max)]
            seen = (PLAIN, COMMITTED) if committed else (PLAIN, COMMITTED, OPEN, ABORTED)
            found[place] = [one for one in piece if one.status in seen], position + len(piece), log.end
        return found

    def has_news(self, wanted: dict[TopicPartition, int], committed: bool) -> bool:
        """Whether a fetch would be answered at once: one that has to wait need not be sent."""
        for place, position in wanted.items():
            log = self.logs[place]
            if position < (log.stable if committed else log.end) or not log.begin <= position <= log.end:
                return True
        return False

    def delete_before(self, place: TopicPartition, offset: int) -> None:
        log = self.logs[place]
        log.begin = max(log.begin, min(offset, log.stable))

    def news(self, topics: Iterable[str]) -> "asyncio.Future[None]":
        """Done when something was appended to one of `topics`."""
        future = self.loop.create_future()
        for topic in topics:
            self._waiting[topic].append(future)
        return future

    def _tell(self, topic: str) -> None:
        for future in self._waiting.pop(topic, ()):
            if not future.done():
                future.set_result(None)

    # ---- groups

    def join(
        self, group_name: str, member_name: str | None, instance: str | None, topics: tuple[str, ...]
    ) -> "asyncio.Future[tuple[str, int, list[TopicPartition]]]":
        """JoinGroup and SyncGroup in one: answered when everybody is there. A static member takes its old place over."""
        group = self.groups[group_name]
        future: asyncio.Future[tuple[str, int, list[TopicPartition]]] = self.loop.create_future()
        now = self.loop.time()
        if member_name not in group.members:
            old = next((m for m in group.members.values() if instance is not None and m.instance == instance), None)
            member_name = f"member-{next(self._members)}"
            if old is not None:
                self._replace(group, old, Member(member_name, instance, topics, now), future)
                return future
            group.members[member_name] = Member(member_name, instance, topics, now)
            self._watch(group_name, member_name)
        member = group.members[member_name]
        member.heard_s = now
        inner = self.loop.create_future()
        inner.add_done_callback(lambda done: _pass_on(done, member_name, future))
        member.joining = inner
        self._begin(group)
        self._maybe_assign(group)
        return future

    def _replace(self, group: Group, old: Member, new: Member, future: "asyncio.Future[Any]") -> None:
        del group.members[old.name]
        group.members[new.name] = new
        group.owned[new.name] = group.owned.pop(old.name, [])
        self._watch(next(name for name, one in self.groups.items() if one is group), new.name)
        if group.rebalancing:
            inner = self.loop.create_future()
            inner.add_done_callback(lambda done: _pass_on(done, new.name, future))
            new.joining = inner
            self._maybe_assign(group)
            return
        future.set_result((new.name, group.generation, list(group.owned[new.name])))

    def _begin(self, group: Group) -> None:
        if group.rebalancing:
            return
        group.rebalancing = True
        group.round += 1
        self.loop.call_later(REBALANCE_S, self._give_up, group, group.round)

    def _give_up(self, group: Group, number: int) -> None:
        """Whoever has not come by now is out."""
        if not group.rebalancing or group.round != number:
            return
        for name in [name for name, member in group.members.items() if member.joining is None]:
            del group.members[name]
        self._maybe_assign(group)

    def _maybe_assign(self, group: Group) -> None:
        if not group.rebalancing or not all(member.joining for member in group.members.values()):
            return
        group.rebalancing = False
        group.generation += 1
        shares = self._shares(group)
        group.owned = shares
        for name, member in group.members.items():
            joining, member.joining = member.joining, None
            member.heard_s = self.loop.time()
            if joining is not None and not joining.done():
                joining.set_result((group.generation, list(shares[name])))

    def _shares(self, group: Group) -> dict[str, list[TopicPartition]]:
        """Sticky most of the time, and anything at all now and then."""
        names = sorted(group.members)
        topics = sorted({topic for member in group.members.values() for topic in member.topics})
        places = [TopicPartition(topic, number) for topic in topics for number in range(self.counts[topic])]
        shares: dict[str, list[TopicPartition]] = {name: [] for name in names}
        if not names:
            return shares
        limit = -(-len(places) // len(names))
        left = []
        sticky = self.chance.random() < 0.7
        for place in places:
            before = next((name for name, held in group.owned.items() if place in held), None)
            if sticky and before in shares and len(shares[before]) < limit:
                shares[before].append(place)
            else:
                left.append(place)
        self.chance.shuffle(left)
        for place in left:
            min(shares.values(), key=len).append(place)
        return {name: sorted(held) for name, held in shares.items()}

    def _watch(self, group_name: str, name: str) -> None:
        group = self.groups[group_name]
        member = group.members.get(name)
        if member is None:
            return
        silent_s = self.loop.time() - member.heard_s
        if self.up and silent_s > self.session_s and member.joining is None:
            self.leave(group_name, name)
            return
        self.loop.call_later(self.session_s / 2, self._watch, group_name, name)

    def heartbeat(self, group_name: str, name: str, generation: int) -> str:
        group = self.groups[group_name]
        member = group.members.get(name)
        if member is None:
            return "unknown"
        member.heard_s = self.loop.time()
        return "rebalance" if group.rebalancing or group.generation != generation else "fine"

    def leave(self, group_name: str, name: str) -> None:
        group = self.groups[group_name]
        if group.members.pop(name, None) is None:
            return
        group.owned.pop(name, None)
        self._begin(group)
        self._maybe_assign(group)

    def disturb(self, group_name: str) -> None:
        """A rebalance that nobody needs: most of what is given is what was held before."""
        group = self.groups[group_name]
        if group.members:
            self._begin(group)

    def commit_offsets(
        self, group_name: str, name: str, generation: int, offsets: dict[TopicPartition, tuple[int, str]]
    ) -> None:
        group = self.groups[group_name]
        if name not in group.members or group.generation != generation or group.rebalancing:
            raise CommitFailedError
        group.offsets.update(offsets)

    def committed_offsets(
        self, group_name: str, places: Sequence[TopicPartition]
    ) -> dict[TopicPartition, tuple[int, str]]:
        offsets = self.groups[group_name].offsets
        return {place: offsets[place] for place in places if place in offsets}


def _pass_on(done: "asyncio.Future[Any]", name: str, future: "asyncio.Future[Any]") -> None:
    if not future.done() and not done.cancelled():
        generation, share = done.result()
        future.set_result((name, generation, share))

"""Producer, consumer and admin client with the words of aiokafka, on the simulated network.

What they have in common with the real ones is what tieout has learnt of them (docs and tests of `shared/kafka`): a send
that fails inside a transaction fails only its own future, and the commit still reports success; requests are repeated
for as long as the broker is away; a producer that was fenced says so from then on; a cancelled commit goes on.
"""

import asyncio
import contextlib
import itertools
from collections import deque
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import (
    ConcurrentTransactions,
    IllegalStateError,
    InvalidProducerEpoch,
    InvalidTxnState,
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    NoOffsetForPartitionError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    RequestTimedOutError,
)

from tests.simulation.broker import Broker, Stored
from tests.simulation.network import Network

RETRY_S = 0.1
BATCH_RECORDS_MAX = 12
"""Small, so that results need several batches."""
TRANSACTION_TIMEOUT_S = 5.0
AWAY = (KafkaConnectionError, RequestTimedOutError)


class Builder:
    """A batch that is being filled."""

    def __init__(self) -> None:
        self.records: list[Any] = []

    def append(self, *, key: Any, value: Any, timestamp: Any, headers: Any = ()) -> object | None:
        if len(self.records) >= BATCH_RECORDS_MAX:
            return None
        self.records.append((key, value, list(headers)))
        return self


class _TransactionManager:
    def __init__(self, producer: "Producer") -> None:
        self._producer = producer

    def maybe_add_partition_to_txn(self, place: TopicPartition) -> None:
        if place not in self._producer.added:
            self._producer.to_add.add(place)


class _Client:
    """The part of the low-level client that `hanging` asks."""

    def __init__(self, network: Network, broker: Broker) -> None:
        self._network = network
        self._broker = broker
        self.cluster = SimpleNamespace(leader_for_partition=lambda place: 0)

    async def force_metadata_update(self) -> bool:
        await asyncio.sleep(0)
        return True

    async def send(self, node: int, request: Any) -> Any:
        places = [TopicPartition(topic, number) for topic, some in request._topics for number, _ in some]
        ends = await self._network.call("offsets", self._broker.offsets, bool(request._isolation_level), places)
        return SimpleNamespace(topics=[(place.topic, [(place.partition, 0, -1, ends[place])]) for place in places])


class Producer:
    """Idempotent, or transactional where it has a name."""

    def __init__(self, network: Network, broker: Broker, transactional_id: str | None) -> None:
        self._network = network
        self._broker = broker
        self._name = transactional_id
        self._producer, self._epoch = -1, -1
        self._fatal: KafkaError | None = None
        self._broken: set[TopicPartition] = set()
        self._sequences: dict[TopicPartition, int] = {}
        self._queues: dict[TopicPartition, deque[tuple[list[Any], asyncio.Future[Any]]]] = {}
        self._senders: dict[TopicPartition, asyncio.Task[None]] = {}
        self._adding = asyncio.Lock()
        self._ending: asyncio.Task[None] | None = None
        self._inside = False
        self._closed = False
        self._ends_asked = 0
        self.added: set[TopicPartition] = set()
        self.to_add: set[TopicPartition] = set()
        self._txn_manager = _TransactionManager(self)
        self.client = _Client(network, broker)

    async def start(self) -> None:
        while True:
            try:
                self._producer, self._epoch = await self._network.call(
                    "init_producer", self._broker.init_producer, self._name, TRANSACTION_TIMEOUT_S
                )
            except ConcurrentTransactions:
                await asyncio.sleep(0.01)
            except AWAY:
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def partitions_for(self, topic: str) -> set[int]:
        return set(range(self._broker.counts[topic]))

    # ---- transactions

    async def begin_transaction(self) -> None:
        self._check()
        assert not self._inside, "a transaction is under way"
        self._inside, self._ends_asked = True, 0

    @property
    def end_is_doubtful(self) -> bool:
        return self._ends_asked > 1

    async def commit_transaction(self) -> None:
        await self._end(commits=True)

    async def abort_transaction(self) -> None:
        await self._end(commits=False)

    async def _end(self, *, commits: bool) -> None:
        self._check()
        self._ending = asyncio.ensure_future(self._ended(commits))
        self._ending.add_done_callback(_heard)
        await asyncio.shield(self._ending)

    async def _ended(self, commits: bool) -> None:
        await self._flushed()
        self._check()
        await self._add()
        if self.added:
            await self._asked("end_transaction", self._broker.end_transaction, commits)
        self.added, self._inside = set(), False

    async def _add(self) -> None:
        async with self._adding:
            places = sorted(self.to_add)
            if places:
                await self._asked("add_partitions", self._broker.add_partitions, places)
                self.to_add.difference_update(places)
                self.added.update(places)

    async def _asked(self, what: str, handler: Any, *rest: Any) -> None:
        while True:
            self._check()
            self._ends_asked += what == "end_transaction"
            try:
                await self._network.call(what, handler, self._name, self._producer, self._epoch, *rest)
            except ConcurrentTransactions:
                await asyncio.sleep(0.01)
            except AWAY:
                await asyncio.sleep(0.01)
            except InvalidProducerEpoch as error:
                raise self._fail(ProducerFenced()) from error
            except InvalidTxnState as error:
                raise self._fail(error) from error
            else:
                return

    # ---- records

    def create_batch(self) -> Builder:
        return Builder()

    async def send(
        self, topic: str, value: Any = None, key: Any = None, partition: int = 0, headers: Any = ()
    ) -> "asyncio.Future[Any]":
        return await self._queued(TopicPartition(topic, partition), [(key, value, list(headers or ()))])

    async def send_batch(self, builder: Builder, topic: str, *, partition: int) -> "asyncio.Future[Any]":
        return await self._queued(TopicPartition(topic, partition), builder.records)

    async def _queued(self, place: TopicPartition, records: list[Any]) -> "asyncio.Future[Any]":
        self._check()
        if self._closed:
            raise KafkaError("the producer is closed")
        if self._name is not None:
            assert self._inside, "no transaction is under way"
            self._txn_manager.maybe_add_partition_to_txn(place)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(place, deque()).append((records, future))
        if place not in self._senders:
            task = self._senders[place] = asyncio.ensure_future(self._drained(place))
            task.add_done_callback(lambda done: self._sender_ended(place, done))
        return future

    def _sender_ended(self, place: TopicPartition, done: "asyncio.Task[None]") -> None:
        if self._senders.get(place) is done:
            del self._senders[place]
        _heard(done)

    async def _drained(self, place: TopicPartition) -> None:
        queue = self._queues[place]
        if place in self.to_add:
            await asyncio.sleep(0)
            await self._add()
        while queue:
            records, future = queue.popleft()
            await self._produced(place, records, future)
        # In the same step, so that whoever queues more begins anew.
        self._senders.pop(place, None)

    async def _produced(self, place: TopicPartition, records: list[Any], future: "asyncio.Future[Any]") -> None:
        sequence = self._sequences.get(place, 0)
        self._sequences[place] = sequence + len(records)
        while True:
            if self._fatal is not None:
                _refuse(future, self._fatal)
                return
            if self._network.refuse[place.topic] > 0 and not _only_progress(records):
                self._network.refuse[place.topic] -= 1
                self._network.done["refused batch"] += 1
                _refuse(future, MessageSizeTooLargeError())
                return
            try:
                offset = await self._network.call(
                    "produce", self._broker.produce, self._name, self._producer, self._epoch, place, sequence, records
                )
            except AWAY:
                await asyncio.sleep(RETRY_S)
            except InvalidProducerEpoch:
                _refuse(future, self._fail(ProducerFenced()))
                return
            except OutOfOrderSequenceNumber as error:
                _refuse(future, self._fail(error))
                return
            except KafkaError as error:
                _refuse(future, error)
                return
            else:
                if not future.done():
                    future.set_result(SimpleNamespace(offset=offset, topic=place.topic, partition=place.partition))
                return

    async def flush(self) -> None:
        await self._flushed()

    async def _flushed(self) -> None:
        while self._senders:
            await asyncio.wait(list(self._senders.values()))

    def _fail(self, error: KafkaError) -> KafkaError:
        self._fatal = error
        for queue in self._queues.values():
            while queue:
                _refuse(queue.popleft()[1], error)
        return error

    def _check(self) -> None:
        if self._fatal is not None:
            raise type(self._fatal)

    async def stop(self) -> None:
        """Send what waits, however long that takes; then end whatever is under way."""
        if self._closed:
            return
        self._closed = True
        if self._fatal is None:
            await self._flushed()
        for task in [*self._senders.values(), *([self._ending] if self._ending else [])]:
            task.cancel()


def _only_progress(records: list[Any]) -> bool:
    """Too small to be refused for its size."""
    return all(("kind", b"progress") in headers for _, _, headers in records)


def _refuse(future: "asyncio.Future[Any]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


def _heard(task: "asyncio.Task[Any]") -> None:
    if not task.cancelled():
        task.exception()


class Consumer:
    """With a group or without, committed records or all."""

    def __init__(
        self,
        network: Network,
        broker: Broker,
        *,
        group: str | None = None,
        group_instance_id: str | None = None,
        isolation: str = "read_committed",
        reset: str = "none",
    ) -> None:
        self._network = network
        self._broker = broker
        self._group = group
        self._instance = group_instance_id
        self._committed = isolation == "read_committed"
        self._reset = reset
        self._topics: tuple[str, ...] = ()
        self._listener: Any = None
        self._positions: dict[TopicPartition, int | None] = {}
        self._epochs: dict[TopicPartition, int] = {}
        """Counts seeks: what was fetched before one is not for whoever reads after it."""
        self._seeks = itertools.count()
        self._paused: set[TopicPartition] = set()
        self._ends: dict[TopicPartition, int] = {}
        self._member: str | None = None
        self._generation = -1
        self._membership: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def start(self) -> None:
        await asyncio.sleep(0)
        if self._topics and self._membership is None:
            self._membership = asyncio.ensure_future(self._belong())

    async def stop(self) -> None:
        if self._membership is not None:
            self._membership.cancel()
            await asyncio.gather(self._membership, return_exceptions=True)
        if self._member is not None and self._instance is None:
            with contextlib.suppress(KafkaError):
                await self._network.call("leave", self._broker.leave, self._group, self._member)

    # ---- the group

    def subscribe(self, topics: Sequence[str], listener: Any = None) -> None:
        self._topics, self._listener = tuple(topics), listener
        self._membership = asyncio.ensure_future(self._belong())

    async def _belong(self) -> None:
        while True:
            try:
                name, generation, share = await self._network.call(
                    "join", self._broker.join, self._group, self._member, self._instance, self._topics
                )
            except KafkaError:
                await asyncio.sleep(RETRY_S)
                continue
            self._member, self._generation = name, generation
            self._positions = dict.fromkeys(share)
            self._paused &= set(share)
            if self._reset == "earliest":
                await self._find_places(share)
            await _told(self._listener.on_partitions_assigned(set(share)))
            self._look_again()
            await self._until_rebalance()
            await _told(self._listener.on_partitions_revoked(set(self._positions)))

    async def _find_places(self, share: Sequence[TopicPartition]) -> None:
        while True:
            try:
                known = await self._network.call(
                    "committed_offsets", self._broker.committed_offsets, self._group, share
                )
            except KafkaError:
                await asyncio.sleep(RETRY_S)
            else:
                for place in share:
                    self._positions[place] = known[place][0] if place in known else self._broker.logs[place].begin
                return

    async def _until_rebalance(self) -> None:
        while True:
            await asyncio.sleep(self._broker.session_s / 3)
            try:
                told = await self._network.call(
                    "heartbeat", self._broker.heartbeat, self._group, self._member, self._generation
                )
            except KafkaError:
                continue
            if told != "fine":
                if told == "unknown":
                    self._member = None
                return

    async def commit(self, offsets: dict[TopicPartition, Any]) -> None:
        if not offsets:
            raise ValueError(offsets)
        missing = [place for place in offsets if place not in self._positions]
        if missing:
            raise IllegalStateError(f"{missing} are not assigned")
        plain = {place: value if isinstance(value, tuple) else (value, "") for place, value in offsets.items()}
        await self._network.call(
            "commit_offsets", self._broker.commit_offsets, self._group, self._member or "", self._generation, plain
        )

    # ---- places

    def assign(self, places: Sequence[TopicPartition]) -> None:
        self._positions = dict.fromkeys(places)

    def assignment(self) -> set[TopicPartition]:
        return set(self._positions)

    def seek(self, place: TopicPartition, offset: int) -> None:
        if place not in self._positions:
            raise IllegalStateError(f"{place} is not assigned")
        self._positions[place] = offset
        self._epochs[place] = next(self._seeks)
        self._look_again()

    def pause(self, *places: TopicPartition) -> None:
        self._held(places)
        self._paused.update(places)

    def resume(self, *places: TopicPartition) -> None:
        self._held(places)
        self._paused.difference_update(places)
        self._look_again()

    def _held(self, places: Sequence[TopicPartition]) -> None:
        for place in places:
            if place not in self._positions:
                raise IllegalStateError(f"{place} is not assigned")

    def highwater(self, place: TopicPartition) -> int | None:
        assert place in self._positions, "not assigned"
        return self._ends.get(place)

    async def position(self, place: TopicPartition) -> int:
        position = self._positions[place]
        assert position is not None
        return position

    async def beginning_offsets(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return await self._network.call("begins", self._broker.begins, list(places))

    async def end_offsets(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return await self._network.call("offsets", self._broker.offsets, self._committed, list(places))

    # ---- records

    async def getmany(
        self, *places: TopicPartition, timeout_ms: int = 0, max_records: int = 500
    ) -> dict[TopicPartition, list[Stored]]:
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_ms / 1000
        while True:
            found = await self._fetched(places, max_records)
            if found or loop.time() >= until:
                return found
            # What came between the answer and here is found at the next look, at the latest when the time is over.
            self._waiter = self._broker.news({place.topic for place in places or self._positions})
            timer = loop.call_at(until, self._look_again)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None

    def _look_again(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _fetched(self, places: Sequence[TopicPartition], records_max: int) -> dict[TopicPartition, list[Stored]]:
        able = [place for place in places or self._positions if place in self._positions and place not in self._paused]
        if self._group is not None and any(self._positions[place] is None for place in able):
            raise NoOffsetForPartitionError(able)
        wanted = {place: self._positions[place] for place in able}
        epochs = dict(self._epochs)
        if not wanted or not self._broker.has_news(wanted, self._committed):
            return {}
        try:
            answer = await self._network.call("fetch", self._broker.fetch, wanted, self._committed, records_max)
        except AWAY:
            await asyncio.sleep(RETRY_S)
            return {}
        found: dict[TopicPartition, list[Stored]] = {}
        for place, (records, position, end) in answer.items():
            fresh = self._positions.get(place) == wanted[place] and epochs.get(place) == self._epochs.get(place)
            if not fresh or place in self._paused:
                continue
            self._positions[place], self._ends[place] = position, end
            if records:
                found[place] = records
        return found


async def _told(result: Any) -> None:
    if asyncio.iscoroutine(result):
        await result


class Admin:
    """Deletes records, nothing else."""

    def __init__(self, network: Network, broker: Broker) -> None:
        self._network = network
        self._broker = broker

    async def start(self) -> None:
        await asyncio.sleep(0)

    async def close(self) -> None:
        await asyncio.sleep(0)

    async def delete_records(self, wanted: dict[TopicPartition, Any]) -> None:
        for place, record in wanted.items():
            await self._network.call("delete_records", self._broker.delete_before, place, record.before_offset)

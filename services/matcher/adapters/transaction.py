"""Transactions of one partition: results, state and the next input offset, all or nothing.

Three facts of the client shape this file. A send that fails inside a transaction fails only its own future, and the
commit still reports success: so every future is awaited first. After any failure the sequence numbers are off: so a
producer is never used again. And a fenced producer says so in several ways: `_failure` reads them all. A fact of the
broker adds a fourth: a partition may miss the end of a transaction that is complete (see `hanging`), so a start ends
what the previous owner left so, and `touch` what this one did.
"""

import asyncio
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import InvalidProducerEpoch, KafkaError, ProducerFenced

from services.matcher.adapters.hanging import find_hanging
from services.matcher.adapters.results import Result, Routes
from services.matcher.adapters.state_format import encode_changes, encode_slice
from services.matcher.ports import Batch, Fenced, TransactionFailed
from shared.kafka.client import await_sent, producer
from shared.kafka.errors import SendFailed
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics

if TYPE_CHECKING:
    from shared.kafka.producer import TransactionalProducer

ATTEMPT_TIMEOUT_S = 40.0
"""Around a start or a transaction: the client retries through about 14 s of a broker's absence by itself, the
broker aborts after 30 s, and nobody waits for ever."""
CLOSE_TIMEOUT_S = 10.0
SLICE_RECORDS = 500
"""Encoded between two turns of the event loop: about 2 ms."""

log = structlog.get_logger(__name__)
_closing: set[asyncio.Task[None]] = set()
"""Keeps tasks that close producers alive until they end."""


class ProducerTransactions:
    """The transactional producer of one partition, used until its first failure."""

    def __init__(
        self,
        kafka: KafkaSettings,
        topics: Topics,
        routes: Routes,
        transactional_id: str,
        partition: int,
        compression: str = "none",
        partitions: int = 0,
    ) -> None:
        self._kafka = kafka
        self._topics = topics
        self._routes = routes
        self._partition = partition
        self._partitions = partitions
        """How many there are: noted with the state, so that it is noticed when they become others."""
        self._untouched: set[TopicPartition] = set()
        """Written to since the last `touch`."""
        self._producer: TransactionalProducer = producer(
            kafka,
            transactional_id=transactional_id,
            compression_type=None if compression == "none" else compression,
        )

    async def start(self) -> None:
        """Fence the previous owner; see `ports.Transactions`."""
        try:
            async with asyncio.timeout(ATTEMPT_TIMEOUT_S):
                await self._producer.start()
                await self._end_hanging()
        except (KafkaError, OSError, TimeoutError, AssertionError) as error:
            raise _failure(error, f"the producer of partition {self._partition} did not start") from error

    async def _end_hanging(self) -> None:
        """Before anything is read or written: the first transaction would end it too, and perhaps wrongly."""
        state = TopicPartition(self._topics.matcher_state, self._partition)
        dead_letters = self._routes.dead_letters(self._partition)
        # Neither tells the input offset of a result: they follow the others.
        others = [dead_letters, TopicPartition(self._topics.matcher_checkpoints, self._partition)]
        results = self._routes.results(self._partition)
        found = await find_hanging(self._kafka, self._producer, state, results, others)
        if found is None:
            return
        if found.places != [dead_letters]:  # else it may only be another partition's transaction under way
            log.warning(
                "ending a transaction that the broker left without its end",
                partition=self._partition,
                topics=[place.topic for place in found.places],
                committed=found.committed,
            )
        await self._end(found.places, committed=found.committed)

    async def _end(self, places: Iterable[TopicPartition], *, committed: bool) -> None:
        """Write a marker and nothing else to each of `places`."""
        await self._producer.begin_transaction()
        for place in places:
            # The client adds a partition to a transaction only along with a record; the broker asks for none.
            self._producer._txn_manager.maybe_add_partition_to_txn(place)  # noqa: SLF001
        if committed:
            await self._producer.commit_transaction()
        else:
            await self._producer.abort_transaction()
        self._refuse_doubt()

    def _refuse_doubt(self) -> None:
        """Begin no transaction that a late request may end: it could show the state without the results."""
        if self._producer.end_is_doubtful:
            raise TransactionFailed(
                f"the end of a transaction of partition {self._partition} was asked for again: it has ended, "
                "and only a new producer is safe from the first request"
            )

    async def touch(self) -> None:
        """End what the last transactions may have left open; see `ports.Transactions`."""
        places, self._untouched = self._untouched, set()
        if not places:
            return
        try:
            async with asyncio.timeout(ATTEMPT_TIMEOUT_S):
                await self._end(places, committed=True)
        except (KafkaError, OSError, TimeoutError, AssertionError) as error:
            raise _failure(error, f"an empty transaction of partition {self._partition} failed") from error

    async def commit(self, batch: Batch) -> int | None:
        """Write `batch` in one transaction; see `ports.Transactions`."""
        try:
            async with asyncio.timeout(ATTEMPT_TIMEOUT_S):
                return await self._commit(batch)
        except (KafkaError, SendFailed, OSError, TimeoutError, AssertionError) as error:
            raise _failure(error, f"a transaction of partition {self._partition} failed") from error

    async def _commit(self, batch: Batch) -> int | None:
        await self._producer.begin_transaction()
        futures: list[asyncio.Future[Any]] = []
        try:
            slices = await self._send_state(batch, futures)
            await self._send_checkpoint(batch, futures)
            for topic, number, results in self._routes.of(batch):
                await self._send_results(topic, number, results, futures)
        except BaseException:
            for future in futures:
                future.add_done_callback(_forget)
            raise
        await await_sent(futures)
        await self._producer.commit_transaction()
        self._refuse_doubt()
        return slices[0].result().offset if slices and batch.snapshot and batch.snapshot.first else None

    async def _send_state(self, batch: Batch, futures: list[asyncio.Future[Any]]) -> list[asyncio.Future[Any]]:
        """Send the changes, then the slice: its values are newer. Returns the slice's futures."""
        topic = self._topics.matcher_state
        await self._send_values(
            topic,
            batch.partition,
            encode_changes(batch.next_offset, batch.changes.state, batch.mark, batch.base, self._partitions),
            futures,
        )
        if batch.snapshot is None:
            return []
        snapshot = batch.snapshot
        values = encode_slice(
            batch.next_offset,
            snapshot.entries,
            first=snapshot.first,
            last=snapshot.last,
            mark=batch.mark,
            base=batch.base,
            partitions=self._partitions,
        )
        begin = len(futures)
        await self._send_values(topic, batch.partition, values, futures)
        return futures[begin:]

    async def _send_checkpoint(self, batch: Batch, futures: list[asyncio.Future[Any]]) -> None:
        """Send a slice and, between the first one and the last, the changes: together they are the state at its end."""
        piece = batch.checkpoint
        if piece is None:
            return
        part = piece.slice
        values = [] if part.first else encode_changes(batch.next_offset, batch.changes.state)
        values += encode_slice(batch.next_offset, part.entries, first=part.first, last=part.last, head=piece.head)
        await self._send_values(self._topics.matcher_checkpoints, batch.partition, values, futures)

    async def _send_values(
        self, topic: str, number: int, values: list[bytes], futures: list[asyncio.Future[Any]]
    ) -> None:
        self._untouched.add(TopicPartition(topic, number))
        for value in values:
            future = await self._producer.send(topic, value, partition=number)
            futures.append(future)

    async def _send_results(
        self, topic: str, number: int, results: Iterator[Result], futures: list[asyncio.Future[Any]]
    ) -> None:
        """Fill whole batches: a fifth of what sending one by one costs."""
        self._untouched.add(TopicPartition(topic, number))
        builder = self._producer.create_batch()
        for count, (key, value, headers) in enumerate(results, 1):
            if builder.append(key=key, value=value, timestamp=None, headers=headers) is None:
                futures.append(await self._producer.send_batch(builder, topic, partition=number))
                builder = self._producer.create_batch()
                builder.append(key=key, value=value, timestamp=None, headers=headers)
            if not count % SLICE_RECORDS:
                await asyncio.sleep(0)
        futures.append(await self._producer.send_batch(builder, topic, partition=number))

    def discard(self) -> None:
        """Close in the background."""
        task = asyncio.get_running_loop().create_task(self.close())
        _closing.add(task)
        task.add_done_callback(_closing.discard)

    async def close(self) -> None:
        """Close; what is still open is aborted by the next owner's start or by the broker's time-out."""
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._producer.stop()
        except Exception as error:  # noqa: BLE001 - the producer is thrown away: how it ends is of no interest
            log.debug("producer did not close cleanly", partition=self._partition, reason=repr(error))


def _forget(future: "asyncio.Future[Any]") -> None:
    """Read a result nobody waits for, so that it is not reported as lost."""
    if not future.cancelled():
        future.exception()


def _failure(error: BaseException, what: str) -> TransactionFailed:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ProducerFenced | InvalidProducerEpoch):
            return Fenced(f"{what}: another process took it over")
        cause = cause.__cause__
    return TransactionFailed(f"{what}: {type(error).__name__}: {error}")

"""Reads the matcher's results, and what ingest found no rule for, and hands them on batch by batch; places live in PostgreSQL, not in the consumer group.

The consumer group only shares the partitions among sinks. A partition that is assigned stays paused until its place was
read; a batch moves the place only from where this process believes it to be. A process that was presumed dead (a long
pause, a lost network) finds its places moved on, stores nothing and joins again.
"""

import asyncio
import contextlib
import gc
import math
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError

from services.alerts.domain.settled import arrived
from services.alerts.ports.sink import Batch, Checked, Fenced, Found, Place, SinkStore, Span
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.discrepancy import Check, Discrepancy, FeedStatus, LogPosition, Progress
from shared.contracts.event import from_milliseconds
from shared.contracts.matched_pair import read_told
from shared.contracts.not_reconciled import NotReconciledEvent
from shared.errors import DependencyAway, UsageError
from shared.ids import NAMESPACE, canonical
from shared.kafka.client import BULK_FETCH, consumer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import partitions_of
from shared.telemetry.health import Health
from shared.telemetry.metrics import counter, gauge, histogram

STORED_TOPICS: Final = ("discrepancies", "matches", "checks", "not-reconciled")
RESULT_TOPICS: Final = STORED_TOPICS[:3]
GROUP_COMMIT_S: Final = 5.0
"""How often the group's offsets are set, for lag displays only."""
GROUP_COMMIT_TIMEOUT_S: Final = 2.0
"""The client looks for the group's coordinator for ever; what is only shown must not keep results from being stored."""
FENCED_PAUSE_S: Final = 1.0
"""Before joining again, so that two sinks do not take a partition from each other for ever."""
READ_AT_ONCE: Final = 50
"""Records that are read before PostgreSQL is listened to again: half a millisecond. While it waits for the next statement of
the batch before, nothing is gained by reading on."""
BATCH_EVERY_S: Final = 0.02
"""A batch is begun no sooner after the one before: a small one costs little more with three times the records, and what it
saves goes to what else must be told soon. The first one after a pause waits for nothing."""
LARGE_BATCH_RECORDS: Final = 500
"""From so many on a batch is not small: the next one is begun at once."""
AHEAD_S_MAX: Final = 15.0
"""A broker that restarts knows the end of its topics again within seconds."""

_read_discrepancy = msgspec.json.Decoder(Discrepancy).decode
_read_check = msgspec.json.Decoder(Check).decode
_read_not_reconciled = msgspec.json.Decoder(NotReconciledEvent).decode
_read_feed = msgspec.json.Decoder(FeedStatus).decode
_read_progress = msgspec.json.Decoder(Progress).decode

log = structlog.get_logger()

StoreBatch = Callable[[Batch], Awaitable[None]]


GC_THRESHOLDS: Final = (100_000, 20, 50)
"""A batch makes some hundred thousand objects that all go again at its end: looking through them after every 700, as
Python does, takes more than half of the sink's time."""


def calm_collector() -> None:
    """Let Python's cycle collector leave alone what was made at the start, and look at batches seldom."""
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


class PlaceAhead(UsageError):
    """PostgreSQL holds more of a topic than the topic has: another Kafka, or a topic that was made anew."""


class PartitionsDiffer(UsageError):
    """The topics of results have not the same number of partitions: somebody changed one behind tieout's back."""


class SinkLoop:
    """One sink process. `rebuild`: what the topics hold now is stored without telling any endpoint."""

    def __init__(
        self,
        kafka: KafkaSettings,
        sink: SinkStore,
        store: StoreBatch,
        health: Health,
        *,
        group: str,
        instance_id: str | None = None,
        batch_records_max: int = 4_000,
        poll_ms: int = 200,
        retry_pause_s: float = 1.0,
        rebuild: bool = False,
    ) -> None:
        self._kafka = kafka
        self._sink = sink
        self._store = store
        self._health = health
        self._group = group
        self._instance_id = instance_id
        self._batch_records_max = batch_records_max
        self._poll_ms = poll_ms
        self._retry_pause_s = retry_pause_s
        self._rebuild = rebuild
        self._places: dict[TopicPartition, int] = {}
        """Where each partition is read on; only partitions in it are read."""
        self._stored: dict[TopicPartition, int] = {}
        """Up to where it is stored; a batch may lie between."""
        self._unplaced: set[TopicPartition] = set()
        self._placing = 0
        """How often places were given up: what was read before is void then."""
        self._storing: asyncio.Task[None] | None = None
        """The batch before the one that is being read."""
        self._next_at = -math.inf
        """Before this time no batch is read."""
        self._committed_at = 0.0
        self._ahead_since: float | None = None

    async def run(self) -> None:
        """Read and store until cancelled; waits while Kafka or PostgreSQL is away.

        Raises:
            PlaceAhead: the places in PostgreSQL belong to another Kafka.
        """
        self._health.watch("sink")
        while True:
            try:
                await self._member()
            except Fenced as error:
                log.warning("the sink was fenced and joins again", reason=str(error))
                await asyncio.sleep(FENCED_PAUSE_S)
            except (KafkaError, OSError, DependencyAway) as error:
                self._health.set_not_ready("sink", f"waits: {type(error).__name__}")
                log.warning("the sink waits", reason=f"{type(error).__name__}: {error}")
                await self._pause()

    async def _member(self) -> None:
        client = self._consumer()
        self.revoked()
        await client.start()
        try:
            client.subscribe(
                [self._kafka.topic_prefix + name for name in STORED_TOPICS], listener=_Assignment(self, client)
            )
            while True:
                self._health.heartbeat("sink")
                await self._round(client)
        finally:
            await self._drop_storing()
            await _stopped(client)

    async def _drop_storing(self) -> None:
        """Leave no transaction behind; whether it committed is seen where places are read again."""
        storing, self._storing = self._storing, None
        if storing is None:
            return
        storing.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await storing

    def _consumer(self) -> AIOKafkaConsumer:
        # "none": where the topic no longer has what comes next, the sink must see it and say so, not skip in silence.
        bulk: dict[str, Any] = dict(BULK_FETCH)
        return consumer(
            self._kafka, group=self._group, group_instance_id=self._instance_id, auto_offset_reset="none", **bulk
        )

    async def _round(self, client: AIOKafkaConsumer) -> None:
        """Read a batch while PostgreSQL stores the one before, then have it stored."""
        if self._unplaced:
            await self._finish(client)
            await self._place(client)
        placing = self._placing
        await asyncio.sleep(self._next_at - time.monotonic())
        taken = await self._take(await self._polled(client))
        if placing == self._placing:
            self._places |= taken.ends
        await self._finish(client)
        if 0 < sum(taken.counts.values()) < LARGE_BATCH_RECORDS:
            self._next_at = time.monotonic() + BATCH_EVERY_S
        # Places were given up meanwhile, or the batch before was not stored: this one is read again.
        if taken.batch.spans and placing == self._placing:
            self._storing = asyncio.create_task(self._stores(client, taken))

    async def _stores(self, client: AIOKafkaConsumer, taken: "_Taken") -> None:
        started = time.perf_counter()
        await self._store(taken.batch)
        histogram("tieout_alerts_sink_batch_seconds").observe(time.perf_counter() - started)
        for partition, end in taken.ends.items():
            if partition in self._places:
                self._stored[partition] = end
        self._show(client, taken)
        await self._commit_for_display(client)

    async def _finish(self, client: AIOKafkaConsumer) -> None:
        """Wait until the batch before is stored; where PostgreSQL is away, all places are read again."""
        storing, self._storing = self._storing, None
        if storing is None:
            return
        try:
            await storing
        except DependencyAway as error:
            # It may have committed before it went away.
            self._health.set_not_ready("sink", "waits for the database")
            log.warning("a batch was not stored and is read again", reason=str(error))
            self._give_back(client)
            await self._pause()
        except asyncio.CancelledError:
            # This process ends: the transaction must not outlive its loop.
            self._storing = storing
            raise

    async def _polled(self, client: AIOKafkaConsumer) -> dict[TopicPartition, list[ConsumerRecord[Any, Any]]]:
        try:
            polled: dict[TopicPartition, list[ConsumerRecord[Any, Any]]] = await client.getmany(
                timeout_ms=self._poll_ms, max_records=self._batch_records_max
            )
        except NoOffsetForPartitionError:
            # The client looks for a place in the group before ours is read and sought: the group may have none yet.
            # Joining anew for it would begin the same race again.
            return {}
        return polled

    def _give_back(self, client: AIOKafkaConsumer) -> None:
        partitions = set(self._places) & set(client.assignment())
        client.pause(*partitions)
        self._forget_places()
        self._unplaced |= partitions

    def _forget_places(self) -> None:
        self._places.clear()
        self._stored.clear()
        self._placing += 1

    async def _pause(self) -> None:
        self._health.heartbeat("sink")
        await asyncio.sleep(self._retry_pause_s)

    async def _place(self, client: AIOKafkaConsumer) -> None:
        """Read the places of newly assigned partitions, go there, and let them flow."""
        wanted = sorted(self._unplaced)
        await self._refuse_other_counts()
        begin = await client.beginning_offsets(wanted)
        ends = await client.end_offsets(wanted)
        live = {self._name(p): ends[p] for p in wanted} if self._rebuild else {}
        try:
            stored = await self._sink.open_places({self._name(p): begin[p] for p in wanted}, live)
        except DependencyAway as error:
            log.warning("the sink waits for its places", reason=str(error))
            await self._pause()
            return
        if self._is_ahead({p: stored[self._name(p)] for p in wanted}, ends):
            await self._pause()
            return
        for partition in wanted:
            offset = await self._checked(partition, stored[self._name(partition)], begin[partition])
            if partition not in self._unplaced or partition not in client.assignment():
                continue
            client.seek(partition, offset)
            client.resume(partition)
            self._places[partition] = self._stored[partition] = offset
            self._unplaced.discard(partition)
        self._health.set_ready("sink")

    async def _refuse_other_counts(self) -> None:
        """Results of a partition of `legs` go to the same one of each: where counts differ, keys and places do not."""
        counts = await partitions_of(self._kafka, *(self._kafka.topic_prefix + name for name in RESULT_TOPICS))
        if len(set(counts.values())) > 1:
            shown = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
            raise PartitionsDiffer(
                f"these topics must have the same number of partitions: {shown}; somebody changed a count. Make a whole "
                "set of topics under another prefix: `tieout topics migrate` is how a count is changed"
            )

    def _is_ahead(self, stored: dict[TopicPartition, int], ends: dict[TopicPartition, int]) -> bool:
        """Tell whether a topic ends before its place: for a moment after a broker's restart, for ever on a wrong one."""
        ahead = [partition for partition, offset in stored.items() if offset > ends[partition]]
        if not ahead:
            self._ahead_since = None
            return False
        now = time.monotonic()
        self._ahead_since = self._ahead_since or now
        if now - self._ahead_since < AHEAD_S_MAX:
            return True
        partition = ahead[0]
        raise PlaceAhead(
            f"PostgreSQL holds {partition.topic}[{partition.partition}] up to offset {stored[partition]}, the topic ends "
            f"at {ends[partition]}: this database belongs to another Kafka, or the topic was made anew; "
            "point TIEOUT_KAFKA_BOOTSTRAP_SERVERS or TIEOUT_DATABASE_URL at its counterpart"
        )

    async def _checked(self, partition: TopicPartition, stored: int, begin: int) -> int:
        if stored >= begin:
            return stored
        log.error(
            "records are gone that were never stored: the sink was away for longer than the topic keeps them",
            topic=partition.topic,
            partition=partition.partition,
            first_lost=stored,
            goes_on_at=begin,
        )
        await self._sink.skip_to(self._name(partition), stored, begin)
        return begin

    def _name(self, partition: TopicPartition) -> Place:
        return Place(partition.topic.removeprefix(self._kafka.topic_prefix), partition.partition)

    async def _take(self, polled: dict[TopicPartition, list[ConsumerRecord[Any, Any]]]) -> "_Taken":
        batch = Batch(spans=[])
        taken = _Taken(batch, {}, {})
        for partition, records in polled.items():
            start = self._places.get(partition)
            fresh = [] if start is None else [record for record in records if record.offset >= start]
            if start is None or not fresh:
                continue
            place = self._name(partition)
            taken.ends[partition] = fresh[-1].offset + 1
            taken.counts[partition] = len(fresh)
            batch.spans.append(Span(place, start, taken.ends[partition]))
            for at in range(0, len(fresh), READ_AT_ONCE):
                for record in fresh[at : at + READ_AT_ONCE]:
                    read(place, record, batch)
                # PostgreSQL's answers to the batch before are taken in between.
                await asyncio.sleep(0)
        if batch.unreadable:
            # One line per batch: a topic full of a newer build's records must not fill the log as well.
            first = batch.unreadable[0].detail
            log.warning("results cannot be read and are set aside", count=len(batch.unreadable), first=first)
        return taken

    def _show(self, client: AIOKafkaConsumer, taken: "_Taken") -> None:
        for partition, count in taken.counts.items():
            place = self._name(partition)
            counter("tieout_alerts_sink_rows_total").labels(place.topic).inc(count)
            if partition not in client.assignment():
                continue  # given to another sink while it was stored: the client only knows the ends of its own
            end, here = client.highwater(partition), self._stored.get(partition)
            if end is not None and here is not None:
                gauge("tieout_alerts_sink_lag_records").labels(place.topic, place.partition).set(max(end - here, 0))

    async def _commit_for_display(self, client: AIOKafkaConsumer) -> None:
        if time.monotonic() - self._committed_at < GROUP_COMMIT_S:
            return
        self._committed_at = time.monotonic()
        owned = {p: offset for p, offset in self._stored.items() if p in client.assignment()}
        if not owned:
            return  # all went to other sinks while this was stored: the client takes an empty list for a fault of ours
        try:
            async with asyncio.timeout(GROUP_COMMIT_TIMEOUT_S):
                await client.commit(owned)
        except (KafkaError, TimeoutError) as error:
            log.debug("the group's offsets were not set", reason=repr(error))

    def assigned(self, client: AIOKafkaConsumer, partitions: set[TopicPartition]) -> None:
        """Hold the partitions until their places are known."""
        client.pause(*partitions)
        # All places are read again: another sink may have had them in between.
        self._forget_places()
        self._unplaced = set(partitions)
        self._health.set_ready("sink")

    def revoked(self) -> None:
        """Store nothing more for what was taken; a batch under way is fenced where somebody else goes on."""
        self._forget_places()
        self._unplaced.clear()


class _Taken(NamedTuple):
    """A batch, and of each of its partitions where it goes on and how many records it brought."""

    batch: Batch
    ends: dict[TopicPartition, int]
    counts: dict[TopicPartition, int]


class _Assignment(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    def __init__(self, loop: SinkLoop, client: AIOKafkaConsumer) -> None:
        self._loop = loop
        self._client = client

    def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:  # noqa: ARG002 - the protocol's signature
        self._loop.revoked()

    def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        # Paused first: records could otherwise be fetched before the place is known.
        self._loop.assigned(self._client, set(assigned))


async def _stopped(client: AIOKafkaConsumer) -> None:
    try:
        await client.stop()
    except (KafkaError, OSError) as error:
        log.warning("the sink's consumer did not stop cleanly", reason=str(error))


def read(place: Place, record: "ConsumerRecord[Any, Any]", batch: Batch) -> None:
    """Put what `record` says into `batch`; what cannot be read is set aside with its place."""
    if record.value is None:
        return
    try:
        kind = next((value for name, value in record.headers if name == "kind"), None)
        if kind == b"progress":
            _keep_progress(place, _read_progress(record.value).log, batch)
        elif kind == b"feed":
            batch.feeds.append(_read_feed(record.value))
        elif place.topic == "discrepancies":
            batch.discrepancies.append(_found(place, record))
        elif place.topic == "matches":
            batch.items.append(arrived(read_told(record.value)))
        elif place.topic == "not-reconciled":
            batch.not_reconciled.append(_read_not_reconciled(record.value))
        else:
            batch.checks.append(Checked(place, record.offset, _read_check(record.value)))
    except msgspec.MsgspecError as error:
        batch.unreadable.append(_set_aside(place, record, str(error)))


def _keep_progress(place: Place, reached: LogPosition, batch: Batch) -> None:
    batch.progress[place] = reached


def _found(place: Place, record: "ConsumerRecord[Any, Any]") -> Found:
    trace = next((value.decode() for name, value in record.headers if name == "traceparent"), None)
    return Found(
        _read_discrepancy(record.value), place, record.offset, from_milliseconds(record.timestamp), traceparent=trace
    )


def _set_aside(place: Place, record: "ConsumerRecord[Any, Any]", reason: str) -> DeadLetter:
    where = f"{place.topic}[{place.partition}]@{record.offset}"
    return DeadLetter(
        id=str(uuid.uuid5(NAMESPACE, canonical(["unreadable", where]).decode())),
        org=None,
        source=None,
        reason="unreadable",
        detail=f"{where}: {reason}",
        hint="A build that is newer than this one may have written it: update alerts, then rebuild from the topics.",
        rule=None,
        event=None,
        # Its place is in a topic of results: none that a replay could read from inbox.
        inbox_partition=-1,
        inbox_offset=-1,
        received_at=datetime.fromtimestamp(record.timestamp / 1000, UTC),
        raw=record.value,
    )

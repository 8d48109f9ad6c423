"""The inbox loop: reads `inbox`, writes `events`, `not-reconciled`, `legs` and `dead-letters`, and keeps log time flowing.

One round: take records, map them, wait until every record of the round before is acknowledged, send everything; what
is acknowledged is committed. So the next records are mapped while Kafka works, and still nothing is sent before all that
came before it is there. It may repeat itself after a failure, which the order of events and their ids make harmless; it
never skips. A tick says "every earlier leg is before this", so ticks are written only from rounds that are acknowledged
whole.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import structlog
from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from services.ingest.domain.feed_counts import FeedCounts
from services.ingest.domain.normalise import Normaliser, Outcome, SourceAndType
from services.ingest.domain.rule_book import RuleBook
from services.ingest.handlers.batches import NO_HEADERS, Batches, Headers, Lane
from services.ingest.settings import IngestSettings
from shared.contracts.inbox import TickRequested, encode_inbox
from shared.contracts.leg import Leg, encode_leg_record, feed_key
from shared.errors import UsageError
from shared.kafka.client import BULK_FETCH, await_sent, consumer, producer
from shared.kafka.errors import SendFailed
from shared.kafka.group_places import noted_offsets
from shared.kafka.partitioner import partition_of
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics, partitions_of
from shared.telemetry.health import Health
from shared.telemetry.metrics import bounded, counter, gauge
from shared.telemetry.traces import batch_span, forward_headers

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord

LOOP = "normaliser"
CONDITION = "normaliser joined its group"

SLICE_RECORDS = 200
"""Records mapped and packed before other tasks get their turn: about 3 ms, in which HTTP requests and heartbeats wait."""
ACK_LOOK_S = 1.0
"""While Kafka does not acknowledge, the loop still shows every second that it is alive."""
ACK_SLOW_S = 5.0
"""After so long without an acknowledgement the process is not ready."""
BACKOFF_S_MIN = 0.1
BACKOFF_S_MAX = 2.0
CLOSE_TIMEOUT_S = 5.0
COMMIT_INTERVAL_S = 0.2
"""A commit a round would cost more than the round where few records come; what is repeated after a kill is short."""
LEGS_NOTE = "legs="
"""What is committed beside a place: over how many partitions the legs were spread."""
PLACE_HEADER = "inbox"
"""Of events: partition and offset of the inbox record that they were made of, as `3/4711`."""
RULES_TIMEOUT_S = 30.0
"""For rules that are in the topic already; after this the session starts anew and reads them again."""
RULES_PAUSE_S = 0.05
COMMIT_TIMEOUT_S = 15.0
"""aiokafka looks for the group's coordinator for ever; after this the session starts anew."""

Found = dict[TopicPartition, "list[ConsumerRecord[bytes, bytes]]"]
"""What one poll gave."""

_TICK_REQUEST = encode_inbox(TickRequested())
_encode_json = msgspec.json.Encoder().encode

log = structlog.get_logger(__name__)


class Stalled(Exception):
    """Kafka neither fails nor goes on: only a new process helps."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the loop works with."""

    settings: IngestSettings
    kafka: KafkaSettings
    rules: RuleBook
    normaliser: Normaliser
    take_rules: Callable[[], None]
    """Puts what has come in on the topic `rules` into the rule book. Called between batches only, so that every leg
    of a batch is made by rules that were announced before it."""
    health: Health


class NormaliserLoop:
    """Runs the normaliser over the partitions of `inbox` that its group gives it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._stopping = asyncio.Event()
        self.records_done = 0
        """Inbox records whose events and legs are acknowledged, since the start of this process."""
        self.leads = False
        """This process has the first partition of the inbox, and with it what only one has to do."""

    def stop(self) -> None:
        """End after the round that is under way."""
        self._stopping.set()

    async def run(self) -> None:
        """Run until stopped; a failure drops everything and reads on from what is committed.

        Raises:
            Stalled: this process does not come out of it by itself.
        """
        health, stall_timeout_s = self._parts.health, self._parts.settings.stall_timeout_s
        backoff_s = BACKOFF_S_MIN
        health.watch(LOOP, stall_timeout_s + CLOSE_TIMEOUT_S)
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                await self._session()
            except (KafkaError, SendFailed, OSError) as error:
                reason = f"{type(error).__name__}: {error}"
                log.warning("normaliser starts again from its last commit", reason=reason)
                health.set_not_ready(CONDITION, reason)
            health.heartbeat(LOOP)
            if time.monotonic() - began > BACKOFF_S_MAX:
                backoff_s = BACKOFF_S_MIN
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), backoff_s)
            backoff_s = min(backoff_s * 2, BACKOFF_S_MAX)
        health.unwatch(LOOP)

    async def _session(self) -> None:
        """Consume until stopped or something fails."""
        kafka, settings = self._parts.kafka, self._parts.settings
        counts = await _partition_counts(kafka, settings.ingest_group)
        sender = producer(kafka)
        fetch: dict[str, Any] = dict(BULK_FETCH)
        reader = consumer(
            kafka,
            group=settings.ingest_group,
            group_instance_id=settings.group_instance_id,
            auto_offset_reset="earliest",
            session_timeout_ms=settings.session_timeout_ms,
            **fetch,
        )
        session = _Session(self, self._parts, sender, reader, counts)
        try:
            await sender.start()
            reader.subscribe([Topics(kafka.topic_prefix).inbox], listener=session)
            await reader.start()
            while not self._stopping.is_set():
                await session.round()
                self._parts.health.heartbeat(LOOP)
            await session.end()
        finally:
            for client in (reader, sender):
                with suppress(TimeoutError, KafkaError):
                    await asyncio.wait_for(client.stop(), CLOSE_TIMEOUT_S)


async def _partition_counts(kafka: KafkaSettings, group: str) -> dict[str, int]:
    topics = Topics(kafka.topic_prefix)
    wanted = (topics.inbox, topics.events, topics.not_reconciled, topics.legs, topics.dead_letters)
    counts = await partitions_of(kafka, *wanted)
    missing = [name for name in wanted if name not in counts]
    if missing:
        raise UsageError(
            f"topic{'s' if len(missing) > 1 else ''} {', '.join(missing)} missing: "
            "create the topics with `tieout topics apply`"
        )
    await _refuse_other_count(kafka, group, counts[topics.legs])
    return counts


async def _refuse_other_count(kafka: KafkaSettings, group: str, legs: int) -> None:
    """The count that the last legs were spread over stands beside this group's places in the inbox."""
    inbox = Topics(kafka.topic_prefix).inbox
    for noted in (await noted_offsets(kafka, group, inbox)).values():
        note = noted.metadata or ""
        if note.startswith(LEGS_NOTE) and note != f"{LEGS_NOTE}{legs}":
            raise UsageError(
                f"{Topics(kafka.topic_prefix).legs} has {legs} partitions and had "
                f"{note.removeprefix(LEGS_NOTE)}: somebody changed the count, and keys would no longer go where "
                "their state is; nothing was written. Make topics of another prefix with `tieout topics apply`; "
                "`tieout topics migrate` is how a count is changed"
            )


class _Traced:
    """Trace headers of the events and legs, by their place in the outcome, whose inbox record was sampled."""

    __slots__ = ("_context", "_first_event", "_first_leg", "events", "legs")

    def __init__(self) -> None:
        self.events: dict[int, Headers] = {}
        self.legs: dict[int, Headers] = {}

    def begin(self, headers: Sequence[tuple[str, bytes | None]], outcome: Outcome) -> None:
        """Take the headers of the record that is mapped next."""
        self._context = forward_headers(headers)
        self._first_event, self._first_leg = len(outcome.events), len(outcome.legs)

    def end(self, outcome: Outcome) -> None:
        """Give them to what the record came to."""
        if self._context:
            self.events |= dict.fromkeys(range(self._first_event, len(outcome.events)), self._context)
            self.legs |= dict.fromkeys(range(self._first_leg, len(outcome.legs)), self._context)


class _Made:
    """Counts of what a round came to: told once all of it is acknowledged."""

    def __init__(self) -> None:
        self.feeds = FeedCounts()
        self.normalised: Counter[SourceAndType] = Counter()
        self.not_reconciled: Counter[SourceAndType] = Counter()
        self.dead_letters: Counter[tuple[str, str]] = Counter()
        """By source and reason."""
        self.legs: Counter[str] = Counter()
        """By generation of their rule."""

    def add(self, outcome: Outcome) -> None:
        """Count a slice."""
        self.feeds.merge(outcome.feeds)
        self.normalised.update(outcome.normalised)
        self.not_reconciled.update([(one.source, one.type) for one in outcome.not_reconciled])
        self.dead_letters.update([(letter.source or "unknown", letter.reason) for letter in outcome.dead_letters])
        self.legs.update([leg.generation for _, leg in outcome.legs if type(leg) is Leg])


class _Sent(NamedTuple):
    """A round that is not acknowledged yet."""

    futures: list[asyncio.Future[Any]]
    found: "Found"
    made: _Made


class _Session(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """One producer and one consumer, from their start to the first failure."""

    def __init__(
        self,
        loop: NormaliserLoop,
        parts: Parts,
        sender: "AIOKafkaProducer",
        reader: "AIOKafkaConsumer",
        counts: dict[str, int],
    ) -> None:
        self._loop = loop
        self._topics = Topics(parts.kafka.topic_prefix)
        self._settings = parts.settings
        self._health = parts.health
        self._rules = parts.rules
        self._normaliser = parts.normaliser
        self._take_rules = parts.take_rules
        self._sender = sender
        self._reader = reader
        self._counts = counts
        self._legs_partitions = counts[self._topics.legs]
        self._busy = asyncio.Lock()
        """Held during a round: partitions are given up between rounds only."""
        self._times: dict[int, int] = {}
        """By inbox partition: broker time up to which every leg is acknowledged."""
        self._heard: dict[int, float] = {}
        """When a partition last had records (this process's clock)."""
        self._asked: dict[int, float] = {}
        """Since when a partition owes us the tick request that we appended to it."""
        self._next: dict[TopicPartition, int] = {}
        """Offsets that are acknowledged; their events have been counted, but no tick has told it."""
        self._told: dict[TopicPartition, int] = {}
        """Offsets to commit."""
        self._sent: _Sent | None = None
        self._feeds = FeedCounts()
        self._ticked_at = 0.0
        self._committed_at = 0.0
        self._announced = -1

    # ---- partitions come and go

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        async with self._busy:
            try:
                await self._settle()
                await self._tell()
                await self._commit()
            finally:
                self._next, self._told = {}, {}
            self._loop.leads = False
            for partition in revoked:
                self._feeds.forget(partition.partition)
                self._times.pop(partition.partition, None)
                self._heard.pop(partition.partition, None)
                self._asked.pop(partition.partition, None)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        now = time.monotonic()
        for partition in assigned:
            self._heard[partition.partition] = now
            self._loop.leads = self._loop.leads or partition.partition == 0
        self._health.set_ready(CONDITION)

    # ---- a round

    async def round(self) -> None:
        """Take what is there, send what it comes to, commit; then see to the ticks."""
        async with self._busy:
            found = await self._reader.getmany(
                timeout_ms=self._patience_ms(), max_records=self._settings.ingest_batch_records_max
            )
            self._take_rules()
            if found or self._announced != self._rules.revision:
                await self._normalise(found)
            else:
                await self._settle()
            now = time.monotonic()
            if now - self._committed_at >= COMMIT_INTERVAL_S:
                await self._commit()
            if now - self._ticked_at >= self._settings.ingest_tick_interval_ms / 1000:
                self._ticked_at = now
                await self._tick(now)
        # A rebalance that waits for the lock gets it here.
        await asyncio.sleep(0)

    async def end(self) -> None:
        """Wait for what was sent."""
        async with self._busy:
            await self._settle()

    def _patience_ms(self) -> int:
        """Return how long to wait for records: until the next tick, not at all while a round is to be settled."""
        if self._sent is not None:
            return 0
        interval_ms = self._settings.ingest_tick_interval_ms
        return min(max(1, int((self._ticked_at - time.monotonic()) * 1000) + interval_ms), interval_ms)

    async def _normalise(self, found: "Found") -> None:
        """Map records while the round before is acknowledged, then send what they come to."""
        headers_of = [record.headers for records in found.values() for record in records if record.headers]
        with batch_span("normalise", headers_of):
            batches, made = Batches(self._sender), _Made()
            announced = self._announce(batches, self._announced)
            for partition, records in found.items():
                for begin in range(0, len(records), SLICE_RECORDS):
                    outcome, traced = await self._mapped(partition.partition, records[begin : begin + SLICE_RECORDS])
                    announced = self._announce(batches, announced)
                    self._pack(batches, outcome, traced)
                    made.add(outcome)
                    await asyncio.sleep(0)
            await self._settle()
            self._sent = _Sent(await batches.send(), found, made)
        self._announced = announced

    async def _settle(self) -> None:
        """Wait until the round that was sent is acknowledged whole, and note it."""
        if self._sent is None:
            return
        futures, found, made = self._sent
        await self._acknowledged(futures)
        self._sent = None
        self._note(found)
        self._feeds.merge(made.feeds)
        self._count(made)

    async def _mapped(
        self, number: int, records: "Sequence[ConsumerRecord[bytes, bytes]]"
    ) -> "tuple[Outcome, _Traced]":
        """Return what records of inbox partition `number` come to.

        It is packed at once: what a whole round is mapped to would not fit into the processor's cache.
        """
        outcome, traced = Outcome(), _Traced()
        add = self._normaliser.add
        for record in records:
            headers = record.headers
            if headers:
                traced.begin(headers, outcome)
            add(record.value or b"", (number, record.offset, record.timestamp), outcome)
            if headers:
                traced.end(outcome)
            if outcome.awaited > self._rules.version:
                await self._rules_come(outcome.awaited)
        return outcome, traced

    async def _rules_come(self, version: int) -> None:
        """Wait for rules that somebody has seen in the topic: what comes next must be derived by them.

        Raises:
            SendFailed: they do not come.
        """
        for _ in range(round(RULES_TIMEOUT_S / RULES_PAUSE_S)):
            self._take_rules()
            if self._rules.version >= version:
                return
            self._health.heartbeat(LOOP)
            await asyncio.sleep(RULES_PAUSE_S)
        raise SendFailed(f"the topic of rules was not read up to {version} within {RULES_TIMEOUT_S:g} s")

    def _pack(self, batches: Batches, outcome: Outcome, traced: "_Traced") -> None:
        self._pack_events(batches.of(self._topics.events), outcome, traced.events)
        self._pack_legs(batches, outcome, traced.legs)
        topics, counts = self._topics, self._counts
        for unselected in outcome.not_reconciled:
            key = unselected.event_id.encode()
            partition = partition_of(key, counts[topics.not_reconciled])
            batches.add(topics.not_reconciled, partition, key, _encode_json(unselected))
        for letter in outcome.dead_letters:
            key = letter.id.encode()
            partition = partition_of(key, counts[topics.dead_letters])
            batches.add(topics.dead_letters, partition, key, _encode_json(letter))

    def _pack_events(self, lane: Lane, outcome: Outcome, contexts: dict[int, Headers]) -> None:
        partitions = self._counts[self._topics.events]
        for at, (event, (number, offset, _)) in enumerate(zip(outcome.events, outcome.places, strict=True)):
            key = event.uuid.encode()
            headers = [(PLACE_HEADER, b"%d/%d" % (number, offset))]
            if at in contexts:
                headers += contexts[at]
            lane.add(partition_of(key, partitions), key, _encode_json(event), headers)

    def _pack_legs(self, batches: Batches, outcome: Outcome, contexts: dict[int, Headers]) -> None:
        lane, partitions = batches.of(self._topics.legs), self._legs_partitions
        for at, (group, leg) in enumerate(outcome.legs):
            value = encode_leg_record(leg)
            if group is None:
                self._to_every_partition(batches, value)
            else:
                lane.add(partition_of(group, partitions), group, value, contexts.get(at, NO_HEADERS))

    def _announce(self, batches: Batches, announced: int) -> int:
        """Write the rules into every partition before the first leg that was made by them; return their revision."""
        if announced != self._rules.revision:
            for record in self._rules.records():
                self._to_every_partition(batches, encode_leg_record(record))
        return self._rules.revision

    def _to_every_partition(self, batches: Batches, value: bytes) -> None:
        for partition in range(self._legs_partitions):
            batches.add(self._topics.legs, partition, None, value)

    def _note(self, found: "Found") -> None:
        now = time.monotonic()
        for partition, records in found.items():
            number = partition.partition
            if not records or number not in self._heard:
                continue
            self._next[partition] = records[-1].offset + 1
            # The broker's clock may step back when a leader changes; log time never does.
            self._times[number] = max(self._times.get(number, 0), records[-1].timestamp)
            self._heard[number] = now
            self._asked.pop(number, None)
            self._loop.records_done += len(records)
            highwater = self._reader.highwater(partition)
            if highwater is not None:
                gauge("tieout_ingest_normaliser_lag_records").labels(number).set(highwater - self._next[partition])

    def _count(self, made: "_Made") -> None:
        _add("tieout_ingest_normalised_records_total", made.normalised)
        _add("tieout_ingest_not_reconciled_total", made.not_reconciled)
        for (source, reason), count in made.dead_letters.items():
            labels = (bounded("source", source), "unknown", reason)
            counter("tieout_ingest_dead_letters_total").labels(*labels).inc(count)
        for generation, count in made.legs.items():
            counter("tieout_ingest_legs_total").labels(bounded("rule", self._rules.name_of(generation))).inc(count)

    # ---- time

    async def _tick(self, now: float) -> None:
        """Write the time of every partition held, and ask idle ones for one."""
        await self._tell()
        batches = Batches(self._sender)
        idle_s = self._settings.ingest_idle_ms / 1000
        for number, heard in self._heard.items():
            asked = self._asked.get(number)
            if asked is not None and now - asked > self._settings.stall_timeout_s:
                raise Stalled(
                    f"inbox partition {number} has a record that is not delivered for {now - asked:.0f} s; "
                    "the process ends so that a new one reads on"
                )
            if asked is None and now - heard >= idle_s:
                batches.add(self._topics.inbox, number, None, _TICK_REQUEST)
                self._asked[number] = now
        await self._acknowledged(await batches.send())

    async def _tell(self) -> None:
        """Write the time of every partition held, and what came of every feed: then it may be committed.

        A feed whose only event was committed and never counted would be called silent.
        """
        batches = Batches(self._sender)
        inbox_partitions = self._counts[self._topics.inbox]
        for number, time_ms in self._times.items():
            for tick in self._feeds.ticks(number, inbox_partitions, time_ms, self._owner_of):
                self._to_every_partition(batches, encode_leg_record(tick))
        await self._acknowledged(await batches.send())
        for number, time_ms in self._times.items():
            self._feeds.told(number, time_ms)
        self._told |= self._next
        self._next = {}

    def _owner_of(self, org: str, source: str) -> int:
        """Return the partition of `legs` that speaks for a feed."""
        return partition_of(feed_key(org, source), self._legs_partitions)

    # ---- Kafka

    async def _acknowledged(self, futures: Sequence[asyncio.Future[Any]]) -> None:
        """Wait for every acknowledgement.

        aiokafka repeats an idempotent send for as long as Kafka is away, so this waits with it and says so.

        Raises:
            SendFailed: at least one is refused.
            Stalled: nothing for too long.
        """
        if not futures:
            return
        began = time.monotonic()
        while pending := (await asyncio.wait(futures, timeout=ACK_LOOK_S))[1]:
            waited_s = time.monotonic() - began
            self._health.heartbeat(LOOP)
            if waited_s > ACK_SLOW_S:
                self._health.set_not_ready(CONDITION, f"Kafka has not acknowledged for {waited_s:.0f} s")
            if waited_s > self._settings.stall_timeout_s:
                raise Stalled(f"{len(pending)} batches are not acknowledged for {waited_s:.0f} s")
        await await_sent(futures)
        if time.monotonic() - began > ACK_SLOW_S:
            self._health.set_ready(CONDITION)

    async def _commit(self) -> None:
        self._committed_at = time.monotonic()
        if not self._told:
            return
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):
                note = f"{LEGS_NOTE}{self._legs_partitions}"
                await self._reader.commit({place: (offset, note) for place, offset in self._told.items()})
        except (CommitFailedError, IllegalStateError) as error:
            # A rebalance is under way: committed before the partitions are given up, or read again by their next owner.
            log.info("commit put off: the group rebalances", error=type(error).__name__)
        else:
            self._told = {}


def _add(name: str, counts: Counter[SourceAndType]) -> None:
    instrument = counter(name)
    for (source, type_), count in counts.items():
        instrument.labels(bounded("source", source), bounded("type", type_)).inc(count)

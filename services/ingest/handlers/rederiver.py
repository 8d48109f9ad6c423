"""Derives a rule's events anew from the topic `events`, once, after the rule has changed its shape.

A fixed end is found first: every normaliser is asked, through a record in each partition of `inbox`, to go on by the
new rules only; once all have passed it, what `events` holds is all that was derived by the old ones. From the beginning
to that end, each event's legs of this one rule are written to `legs`, with the inbox place and the broker time that the
event came with, so log time does not move by them; in the order of
receipt, which is what readings and counters are judged by. They may be written again: to the matcher a repeated leg is none.
How far it is stands in a consumer group of its own, with the end beside it, so that whoever comes next goes on there.
"""

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from services.ingest.domain.rule_book import Deriving, RuleBook, derivation_group
from services.ingest.handlers.batches import Batches
from services.ingest.handlers.normaliser import PLACE_HEADER, NormaliserLoop
from services.ingest.settings import IngestSettings
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.event import Event, milliseconds
from shared.contracts.inbox import RulesAwaited, encode_inbox
from shared.contracts.leg import encode_leg_record
from shared.contracts.rule_set import RuleDerived, encode_rule_derived, rule_derived_key
from shared.ids import dead_letter_id
from shared.kafka.client import BULK_FETCH, await_sent, consumer, producer
from shared.kafka.errors import SendFailed
from shared.kafka.group_places import noted_offsets
from shared.kafka.partitioner import partition_of
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics, partitions_of
from shared.rules.extract import Extractor
from shared.telemetry.metrics import gauge

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord

LOOK_S = 1.0
"""How often the rules are looked at for something to derive."""
RETRY_PAUSE_S = 1.0
PASSED_PAUSE_S = 0.2
POLL_MS = 500
BATCH_RECORDS = 2_000
"""Half a round of the normaliser, which has the same process to itself while nothing is derived."""
SLICE_RECORDS = 200
WAITING_MAX = 10_000
"""Events of one partition that wait for others: some 10 MB."""
TELL_S = 5.0
CLOSE_TIMEOUT_S = 5.0

_decode_event = msgspec.json.Decoder(Event).decode
_encode_json = msgspec.json.Encoder().encode

log = structlog.get_logger(__name__)


class Reach(msgspec.Struct, frozen=True):
    """Of one partition of `events`: where to stop, and what was asked of the normalisers before that was known."""

    end: int
    asked: list[int]
    """By inbox partition the offset from which on events were derived by the new rules anyway."""


decode_reach = msgspec.json.Decoder(Reach).decode


class _Course(NamedTuple):
    """Where each partition of `events` is read on, and to where."""

    begin: dict[TopicPartition, int]
    reach: dict[TopicPartition, Reach]


class Rederiver:
    """Does what there is to derive, one rule after the other, in the process that leads the normalisers."""

    def __init__(
        self, settings: IngestSettings, kafka: KafkaSettings, rules: RuleBook, normaliser: NormaliserLoop
    ) -> None:
        self._settings = settings
        self._kafka = kafka
        self._topics = Topics(kafka.topic_prefix)
        self._rules = rules
        self._normaliser = normaliser

    async def run(self) -> None:
        """Run until cancelled; after a failure it goes on where its last commit was."""
        while True:
            waiting = self._rules.deriving() if self._normaliser.leads else []
            if not waiting:
                await asyncio.sleep(LOOK_S)
                continue
            try:
                await self._derive(waiting[0])
            except (KafkaError, SendFailed, OSError, TimeoutError) as error:
                log.warning("derivation goes on later", reason=f"{type(error).__name__}: {error}")
                await asyncio.sleep(RETRY_PAUSE_S)

    async def _derive(self, job: Deriving) -> None:
        group = derivation_group(self._settings.ingest_group, job.name)
        sender = producer(self._kafka)
        fetch: dict[str, Any] = dict(BULK_FETCH)
        reader = consumer(self._kafka, group=group, auto_offset_reset="earliest", **fetch)
        try:
            await sender.start()
            await reader.start()
            course = await self._course(job, group, sender, reader)
            await _Work(self, job, sender, reader, course, await self._counts()).run()
            note = RuleDerived(
                org=job.org, pack=job.pack, rule=job.rule.name, number=job.derivation.number, at=datetime.now(UTC)
            )
            key = rule_derived_key(job.org, job.pack, job.rule.name)
            sent = await sender.send_and_wait(self._topics.rules, encode_rule_derived(note), key=key)
            while self._rules.version < sent.offset:  # noqa: ASYNC110 - the topic is followed elsewhere
                await asyncio.sleep(PASSED_PAUSE_S)
        finally:
            for client in (reader, sender):
                with suppress(TimeoutError, KafkaError):
                    await asyncio.wait_for(client.stop(), CLOSE_TIMEOUT_S)

    async def _counts(self) -> dict[str, int]:
        return await partitions_of(self._kafka, self._topics.legs, self._topics.dead_letters)

    async def _course(
        self, job: Deriving, group: str, sender: "AIOKafkaProducer", reader: "AIOKafkaConsumer"
    ) -> _Course:
        """Return where to read: as it was noted before, else from the beginning to an end that is found now."""
        name = self._topics.events
        places = [TopicPartition(name, n) for n in range((await partitions_of(self._kafka, name))[name])]
        reader.assign(places)
        noted = await noted_offsets(self._kafka, group, name)
        if all(place in noted for place in places):
            return _Course(
                {place: noted[place].offset for place in places},
                {place: decode_reach(noted[place].metadata) for place in places},
            )
        asked = await self._all_pass(sender)
        ends = await reader.end_offsets(places)
        begin = await reader.beginning_offsets(places)
        reach = {place: Reach(ends[place], asked) for place in places}
        await reader.commit({place: (begin[place], _encode_json(reach[place]).decode()) for place in places})
        log.info(
            "a rule is derived anew",
            org=job.org,
            rule=job.rule.name,
            derivation=job.derivation.number,
            events=sum(ends[place] - begin[place] for place in places),
        )
        return _Course(begin, reach)

    async def _all_pass(self, sender: "AIOKafkaProducer") -> list[int]:
        """Have every partition of `inbox` go on by the present rules; return from which offset each does."""
        inbox = self._topics.inbox
        count = (await partitions_of(self._kafka, inbox))[inbox]
        value = encode_inbox(RulesAwaited(self._rules.version))
        sent = await await_sent([await sender.send(inbox, value, partition=number) for number in range(count)])
        asked = {record.partition: record.offset for record in sent}
        while True:
            passed = await noted_offsets(self._kafka, self._settings.ingest_group, inbox)
            behind = [
                number
                for number, offset in asked.items()
                if (at := passed.get(TopicPartition(inbox, number))) is None or at.offset <= offset
            ]
            if not behind:
                return [asked[number] for number in range(count)]
            await asyncio.sleep(PASSED_PAUSE_S)

    def is_wanted(self, job: Deriving) -> bool:
        """Tell whether the rules still ask for this derivation, of the rule as it is, of this process."""
        return self._normaliser.leads and job in self._rules.deriving()

    def announcements(self) -> list[bytes]:
        """Return the control records of every rule in force: they go before the first leg of this producer."""
        return [encode_leg_record(record) for record in self._rules.records()]

    @property
    def topics(self) -> Topics:
        return self._topics


class _Read(NamedTuple):
    """A record of `events` that waits for its turn."""

    order: tuple[int, int, int]
    """Receipt (milliseconds), and partition and offset of its inbox record."""
    offset: int
    event: Event | None
    raw: bytes


class _Work:
    """One attempt to read `events` to the end."""

    def __init__(
        self,
        desk: Rederiver,
        job: Deriving,
        sender: "AIOKafkaProducer",
        reader: "AIOKafkaConsumer",
        course: _Course,
        counts: Mapping[str, int],
    ) -> None:
        self._desk = desk
        self._job = job
        self._sender = sender
        self._reader = reader
        self._reach = course.reach
        self._position = dict(course.begin)
        self._counts = counts
        self._extractor = Extractor(job.org, {job.pack: [job.rule]})
        since = job.derivation.since
        self._since_ms = 0 if since is None else milliseconds(since)
        self._told_at = time.monotonic()
        self._waiting: dict[TopicPartition, deque[_Read]] = {place: deque() for place in course.begin}
        """What was read and has to wait for earlier ones of other partitions."""
        self._reading = dict(course.begin)
        """Offset up to which each partition has been read; `_position`: passed on."""

    async def run(self) -> None:
        await self._announce()
        for place, offset in self._position.items():
            self._reader.seek(place, offset)
        while self._remaining():
            if not self._desk.is_wanted(self._job):
                raise SendFailed("the rules have changed, or another process leads now")
            found = await self._reader.getmany(timeout_ms=POLL_MS, max_records=BATCH_RECORDS)
            await self._take(found)
            await self._pass_on()
            await self._note()
        self._tell()

    def _remaining(self) -> int:
        return sum(max(self._reach[place].end - at, 0) for place, at in self._position.items())

    async def _announce(self) -> None:
        batches = Batches(self._sender)
        legs = self._desk.topics.legs
        for value in self._desk.announcements():
            for number in range(self._counts[legs]):
                batches.add(legs, number, None, value)
        await await_sent(await batches.send())

    async def _take(self, found: "Mapping[TopicPartition, Sequence[ConsumerRecord[bytes, bytes]]]") -> None:
        for place, records in found.items():
            reach, waiting = self._reach[place], self._waiting[place]
            for count, record in enumerate(records, start=1):
                if record.offset < reach.end:
                    waiting.append(self._read(record, reach))
                if not count % SLICE_RECORDS:
                    await asyncio.sleep(0)
            if records:
                self._reading[place] = records[-1].offset + 1
        self._hold_back()

    def _hold_back(self) -> None:
        """Read only where something is needed: a partition that is far ahead would fill the memory."""
        full = {place for place, waiting in self._waiting.items() if len(waiting) >= WAITING_MAX}
        done = {place for place, at in self._reading.items() if at >= self._reach[place].end}
        self._reader.resume(*(self._waiting.keys() - full - done))
        self._reader.pause(*(full | done))

    def _read(self, record: "ConsumerRecord[bytes, bytes]", reach: Reach) -> "_Read":
        """Return the record as it takes part in the order; without an event where it makes no leg."""
        partition, offset = _inbox_place(record)
        try:
            event = _decode_event(record.value or b"")
        except msgspec.MsgspecError as error:
            log.error("an event cannot be read", offset=record.offset, reason=str(error))  # noqa: TRY400 - says it all
            return _Read((0, partition, offset), record.offset, None, b"")
        received_ms = milliseconds(event.received_at)
        # From `asked` on the new rules have made its legs already.
        is_wanted = offset < reach.asked[partition] and event.org == self._job.org and received_ms >= self._since_ms
        raw = record.value or b""
        return _Read((received_ms, partition, offset), record.offset, event if is_wanted else None, raw)

    async def _pass_on(self) -> None:
        """Pass on what is the earliest of all partitions; where one has still to be read, the others wait for it."""
        batches = Batches(self._sender)
        heads = [(waiting[0].order, place) for place, waiting in self._waiting.items() if waiting]
        heapify(heads)
        count = 0
        while heads and all(waiting or self._is_read(place) for place, waiting in self._waiting.items()):
            _, place = heappop(heads)
            waiting = self._waiting[place]
            one = waiting.popleft()
            if one.event is not None:
                self._derive(one.event, one, batches)
            self._position[place] = one.offset + 1
            if waiting:
                heappush(heads, (waiting[0].order, place))
            count += 1
            if not count % SLICE_RECORDS:
                await asyncio.sleep(0)
        await await_sent(await batches.send())
        for place, waiting in self._waiting.items():
            if not waiting and self._is_read(place):
                self._position[place] = max(self._position[place], self._reach[place].end)

    def _is_read(self, place: TopicPartition) -> bool:
        return bool(self._reading[place] >= self._reach[place].end)

    def _derive(self, event: Event, one: "_Read", batches: Batches) -> None:
        received_ms, partition, offset = one.order
        topics = self._desk.topics
        extracted = self._extractor.extract(event, partition, offset, received_ms)
        for group, leg in extracted.legs:
            batches.add(topics.legs, partition_of(group, self._counts[topics.legs]), group, encode_leg_record(leg))
        for problem in extracted.problems:
            letter = DeadLetter(
                id=dead_letter_id(problem.reason, partition, offset, f"{problem.rule or ''}/{event.id}"),
                org=event.org,
                source=event.source,
                reason=problem.reason,
                detail=problem.detail,
                hint=problem.hint,
                rule=problem.rule,
                event=event.id,
                inbox_partition=partition,
                inbox_offset=offset,
                received_at=event.received_at,
                raw=one.raw,
            )
            key = letter.id.encode()
            number = partition_of(key, self._counts[topics.dead_letters])
            batches.add(topics.dead_letters, number, key, _encode_json(letter))

    async def _note(self) -> None:
        notes = {
            place: (min(at, self._reach[place].end), _encode_json(self._reach[place]).decode())
            for place, at in self._position.items()
        }
        await self._reader.commit(notes)
        remaining = self._remaining()
        gauge("tieout_ingest_derivation_remaining_records").labels(self._job.rule.name).set(remaining)
        if time.monotonic() - self._told_at > TELL_S:
            self._tell()

    def _tell(self) -> None:
        self._told_at = time.monotonic()
        log.info(
            "derived anew",
            org=self._job.org,
            rule=self._job.rule.name,
            derivation=self._job.derivation.number,
            remaining=self._remaining(),
        )


def _inbox_place(record: "ConsumerRecord[bytes, bytes]") -> tuple[int, int]:
    """Return partition and offset of the inbox record that the event was made of."""
    for name, value in record.headers:
        if name == PLACE_HEADER and value is not None:
            partition, _, offset = value.partition(b"/")
            return int(partition), int(offset)
    return 0, -1

"""`tieout topics migrate`: another number of partitions, under a new topic prefix; the old topics stay as they are.

The state of the matcher lives by partition, so a count never changes under data. Ingest is stopped; matcher and sink come
to the end of what it wrote; then the state is laid out anew, what ingest had not read yet is copied, and at last, in one
transaction of PostgreSQL, the sink's places become those of the new topics. Until then nothing has happened that a second
run would not do again, and whoever starts the services with the old prefix goes on as if nothing had been.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from shared.errors import UsageError

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

    from services.alerts.adapters.database import Database
    from services.matcher.domain.repartition import Entries
    from shared.kafka.settings import KafkaSettings
    from shared.kafka.topics import Topics

Tell = Callable[[str], None]

QUIET_S = 2.0
"""Nobody may write for so long before and after the copy: ingest asks for a tick in each idle partition every 0.25 s."""
DRAIN_PAUSE_S = 0.5
POLL_MS = 500
SLICE_BYTES = 512 * 1024
"""Of state per slice, as the matcher writes it."""
MARK_GROUP = "tieout.migrated"
"""Consumer group whose place in the new topics tells that they are complete, and from where."""
STORED_TOPICS = ("discrepancies", "matches", "checks", "not-reconciled")
COPIED_TOPICS = ("rules", "directory")


def group_after(group: str, old_prefix: str, new_prefix: str) -> str:
    """Return the consumer group to go on with under the new prefix.

    Not the same one: a static member that comes back within its session is given the topics that it had.
    """
    return f"{group.removesuffix('.' + old_prefix.strip('.'))}.{new_prefix.strip('.')}"


class NotDrained(UsageError):
    """Something has still to be read, or is still written."""


class _Mark(msgspec.Struct, frozen=True):
    """What a complete copy was made of."""

    prefix: str
    inbox: list[int]
    """Ends of the old inbox."""


_decode_mark = msgspec.json.Decoder(_Mark).decode
_encode_json = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Migration:
    """From where to where."""

    old: "KafkaSettings"
    new: "KafkaSettings"
    partitions: int
    replication: int | None
    ingest_group: str
    matcher_group: str
    sink_group: str
    database_url: str
    drain_timeout_s: float
    tell: Tell


async def migrate_topics(plan: Migration) -> None:
    """Do it, or find that it is done.

    Raises:
        UsageError: something stands in the way; the message says what to do. Run it again then.
        KafkaAway, DependencyAway: no answer.
    """
    from services.alerts.adapters.database import Database
    from shared.kafka.client import wait_for_kafka
    from shared.kafka.topics import Topics, partitions_of

    await wait_for_kafka(plan.old)
    old = Topics(plan.old.topic_prefix)
    counts = await partitions_of(plan.old, *old.all)
    missing = [name for name in (old.inbox, old.legs, old.matcher_state) if name not in counts]
    if missing:
        raise UsageError(f"{', '.join(missing)}: there is nothing to migrate under TIEOUT_KAFKA_TOPIC_PREFIX")
    database = Database(plan.database_url)
    try:
        move = _Move(plan, old, Topics(plan.new.topic_prefix), counts, database)
        await move.run()
    finally:
        await database.close()


class _Move:
    """One attempt."""

    def __init__(
        self, plan: Migration, old: "Topics", new: "Topics", counts: dict[str, int], database: "Database"
    ) -> None:
        self._plan = plan
        self._old = old
        self._new = new
        self._counts = counts
        self._database = database

    async def run(self) -> None:
        plan = self._plan
        if await self._is_switched():
            plan.tell(f"the topics under {plan.new.topic_prefix} are complete, and the sink's places are theirs")
            return
        mark = await self._mark()
        inbox = await self._quiet_inbox()
        await self._await_matcher()
        stored = await self._await_sink()
        if mark is None or mark.inbox != inbox:
            await self._copy()
        if await self._quiet_inbox() != inbox:
            raise NotDrained("something was written to inbox meanwhile: stop ingest, and run this again")
        await self._set_mark(inbox)
        await self._switch(stored)

    # ---- standing still

    async def _quiet_inbox(self) -> list[int]:
        """Return the ends of the inbox, once nobody has written to it for a while."""
        before = await self._ends(self._old.inbox)
        await asyncio.sleep(QUIET_S)
        if before != await self._ends(self._old.inbox):
            raise NotDrained(
                "ingest is running: stop it first (producers get no answer meanwhile, and send again). Matcher and alerts "
                "go on, so that they come to the end of what it wrote"
            )
        return before

    async def _await_matcher(self) -> None:
        """Return once the matcher's state has everything that is in `legs`."""

        async def behind() -> str | None:
            ends = await self._ends(self._old.legs)
            reached = [await self._next_offset(number) for number in range(len(ends))]
            lag = sum(max(end - at, 0) for end, at in zip(ends, reached, strict=True))
            return f"the matcher has {lag:,} legs to go: it must run" if lag else None

        await self._until_none(behind)

    async def _await_sink(self) -> dict[tuple[str, int], int]:
        """Return the sink's places, once it has stored everything there is."""
        from sqlalchemy import text

        from services.alerts.adapters.database import EVERY_ORG

        stored: dict[tuple[str, int], int] = {}

        async def behind() -> str | None:
            async with self._database.transaction(EVERY_ORG) as connection:
                rows = await connection.execute(text("SELECT topic, partition, next_offset FROM sink_offsets"))
                stored.clear()
                stored.update({(row.topic, row.partition): row.next_offset for row in rows})
            waiting = [name for name in STORED_TOPICS if await self._has_more(name, stored)]
            waiting += ["dead-letters"] if await self._has_letters() else []
            return f"alerts has to store more of {', '.join(waiting)}: it must run" if waiting else None

        await self._until_none(behind)
        return stored

    async def _until_none(self, behind: "Callable[[], Any]") -> None:
        told = ""
        try:
            async with asyncio.timeout(self._plan.drain_timeout_s):
                while (what := await behind()) is not None:
                    if what != told:
                        self._plan.tell(what)
                    told = what
                    await asyncio.sleep(DRAIN_PAUSE_S)
        except TimeoutError:
            raise NotDrained(f"{told}; nothing has changed, run this again when it has come to the end") from None

    async def _has_more(self, name: str, stored: dict[tuple[str, int], int]) -> bool:
        """Tell whether a topic holds a record behind the sink's place: the end alone counts markers as well."""
        from aiokafka import TopicPartition

        topic = self._old.full(name)
        places = {TopicPartition(topic, n): stored.get((name, n), 0) for n in range(self._counts.get(topic, 0))}
        return await _holds_any(self._plan.old, places)

    async def _has_letters(self) -> bool:
        from aiokafka import TopicPartition

        from shared.kafka.group_places import noted_offsets

        topic = self._old.dead_letters
        noted = await noted_offsets(self._plan.old, f"{self._plan.sink_group}-dead-letters", topic)
        places = {}
        for number in range(self._counts.get(topic, 0)):
            place = TopicPartition(topic, number)
            places[place] = noted[place].offset if place in noted else 0
        return await _holds_any(self._plan.old, places)

    async def _next_offset(self, number: int) -> int:
        """Return the input offset that the state of a partition goes on from."""
        from services.matcher.adapters.state_log import KafkaStateLog

        reached = -1
        log = KafkaStateLog(self._plan.old, self._old)
        async for record in log.read(number):
            reached = record.next_offset
        return reached if reached >= 0 else await log.first_input_offset(number)

    async def _ends(self, topic: str) -> list[int]:
        from aiokafka import TopicPartition

        places = [TopicPartition(topic, number) for number in range(self._counts[topic])]
        async with _reader(self._plan.old) as reader:
            ends = await reader.end_offsets(places)
        return [ends[place] for place in places]

    # ---- the copy

    async def _copy(self) -> None:
        from shared.kafka.topics import apply_topics

        plan = self._plan
        orgs = await self._orgs()
        await apply_topics(plan.new, plan.partitions, self._counts[self._old.inbox], plan.replication, orgs=orgs)
        await self._empty()
        entries, places = await self._state()
        base = max(places, default=0)
        await self._write_state(self._laid_out(entries, base))
        for name in COPIED_TOPICS:
            await self._copy_whole(name)
        copied = await self._copy_rest(self._old.inbox, self._new.inbox, plan.ingest_group)
        for org in orgs:
            copier = f"{plan.ingest_group}.copier"
            copied += await self._copy_rest(self._old.inbox_of(org), self._new.inbox_of(org), copier)
        plan.tell(
            f"state of {len(entries)} partitions laid out over {plan.partitions}; "
            f"{copied:,} records copied that ingest had not read yet"
        )

    async def _orgs(self) -> list[str]:
        """Return the orgs that have an inbox of their own."""
        from shared.kafka.client import admin

        client = admin(self._plan.old)
        await client.start()
        try:
            names = await client.list_topics()
        finally:
            await client.close()
        prefix = self._old.inbox_of("")
        return sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))

    async def _empty(self) -> None:
        """Take back what an attempt that was cut short left in the new topics; refuse where they have been used."""
        from aiokafka import TopicPartition
        from aiokafka.admin import RecordsToDelete

        from shared.kafka.client import admin
        from shared.kafka.topics import partitions_of

        # What is copied to compacted topics is the last of each key: copied again it is the same.
        filled = [self._new.inbox, self._new.matcher_state, self._new.matcher_checkpoints]
        names = [self._new.legs, *filled, *[self._new.inbox_of(org) for org in await self._orgs()]]
        counts = await partitions_of(self._plan.new, *names)
        places = [TopicPartition(name, number) for name, count in counts.items() for number in range(count)]
        async with _reader(self._plan.new) as reader:
            ends = await reader.end_offsets(places)
        used = sorted({place.topic for place, end in ends.items() if end and place.topic == self._new.legs})
        if used:
            raise UsageError(f"{used[0]} has been written to: choose another --to-prefix, whose topics nobody has used")
        full = {place: RecordsToDelete(end) for place, end in ends.items() if end}
        if not full:
            return
        client = admin(self._plan.new)
        await client.start()
        try:
            await client.delete_records(full)
        finally:
            await client.close()

    async def _state(self) -> "tuple[list[Entries], list[int]]":
        """Return the entries of every old partition, and the place in the log that each has reached."""
        from services.matcher.adapters.state_log import KafkaStateLog
        from services.matcher.domain.repartition import base_of

        found: list[Entries] = []
        places: list[int] = []
        log = KafkaStateLog(self._plan.old, self._old)
        for number in range(self._counts[self._old.legs]):
            entries: Entries = {}
            reached = 0
            async for record in log.read(number):
                for key, value in record.entries:
                    if value:
                        entries[key] = value
                    else:
                        entries.pop(key, None)
                reached = record.next_offset
            found.append(entries)
            places.append(reached + base_of(entries))
        return found, places

    def _laid_out(self, entries: "list[Entries]", base: int) -> "list[Entries]":
        from services.matcher.domain.repartition import StillDeriving, repartition
        from shared.kafka.partitioner import partition_of

        try:
            return repartition(entries, self._plan.partitions, base, partition_of)
        except StillDeriving as error:
            raise UsageError(f"{error}: start ingest, wait until it is done, and migrate then") from None

    async def _write_state(self, partitions: "list[Entries]") -> None:
        """Write each partition's state, and the same as a checkpoint, in one transaction."""
        from services.matcher.adapters.state_format import encode_slice
        from services.matcher.domain.core import CORE_VERSION, Core
        from services.matcher.domain.repartition import base_of
        from services.matcher.ports import CheckpointHead
        from shared.kafka.client import await_sent, producer

        count = self._plan.partitions
        for number, entries in enumerate(partitions):
            core = Core(number)
            core.restore(entries.items())  # what cannot be read is found before it is written
            head = CheckpointHead(CORE_VERSION, CORE_VERSION, core.log_time)
            sender = producer(self._plan.new, transactional_id=f"{self._plan.matcher_group}-migrate-{number}")
            await sender.start()
            try:
                async with sender.transaction():
                    slices, base = _slices(entries), base_of(entries)
                    for place, part in enumerate(slices):
                        first, last = place == 0, place == len(slices) - 1
                        state = encode_slice(0, part, first=first, last=last, base=base, partitions=count)
                        checkpoint = encode_slice(
                            0, part, first=first, last=last, head=head, base=base, partitions=count
                        )
                        futures = [await sender.send(self._new.matcher_state, one, partition=number) for one in state]
                        futures += [
                            await sender.send(self._new.matcher_checkpoints, one, partition=number)
                            for one in checkpoint
                        ]
                        await await_sent(futures)
            finally:
                await sender.stop()

    async def _copy_whole(self, name: str) -> None:
        """Copy the last record of every key, in order."""
        from aiokafka import TopicPartition

        from shared.kafka.client import producer

        topic = self._old.full(name)
        places = {TopicPartition(topic, number): 0 for number in range(self._counts.get(topic, 0))}
        last: dict[bytes, ConsumerRecord[Any, Any]] = {}
        async with _reader(self._plan.old) as reader:
            async for record in _records(reader, places):
                last.pop(record.key, None)
                if record.value is not None:
                    last[record.key] = record
        sender = producer(self._plan.new)
        await sender.start()
        try:
            for record in last.values():
                await sender.send_and_wait(self._new.full(name), record.value, key=record.key)
        finally:
            await sender.stop()

    async def _copy_rest(self, old: str, new: str, group: str) -> int:
        """Copy what a consumer group has not read yet, to the same partitions; return how many records it was."""
        from aiokafka import TopicPartition

        from shared.kafka.client import producer
        from shared.kafka.group_places import noted_offsets
        from shared.kafka.topics import partitions_of

        noted = await noted_offsets(self._plan.old, group, old)
        count = (await partitions_of(self._plan.old, old)).get(old, 0)
        places = {}
        for number in range(count):
            place = TopicPartition(old, number)
            places[place] = noted[place].offset if place in noted else 0
        copied = 0
        sender = producer(self._plan.new)
        await sender.start()
        try:
            async with _reader(self._plan.old) as reader:
                async for record in _records(reader, places):
                    if _is_wanted(record.value):
                        await _pass_on(sender, new, record)
                        copied += 1
            await sender.flush()
        finally:
            await sender.stop()
        return copied

    # ---- the switch

    async def _mark(self) -> _Mark | None:
        from aiokafka import TopicPartition

        from shared.kafka.group_places import noted_offsets

        noted = (await noted_offsets(self._plan.new, MARK_GROUP, self._new.legs)).get(TopicPartition(self._new.legs, 0))
        return None if noted is None else _decode_mark(noted.metadata)

    async def _set_mark(self, inbox: list[int]) -> None:
        from aiokafka import TopicPartition

        from shared.kafka.client import consumer

        text = _encode_json(_Mark(self._plan.old.topic_prefix, inbox)).decode()
        reader = consumer(self._plan.new, group=MARK_GROUP, auto_offset_reset="earliest")
        await reader.start()
        try:
            place = TopicPartition(self._new.legs, 0)
            reader.assign([place])
            await reader.commit({place: (0, text)})
        finally:
            await reader.stop()

    async def _is_switched(self) -> bool:
        """Tell whether the sink's places can only be those of the new topics."""
        from sqlalchemy import text

        from services.alerts.adapters.database import EVERY_ORG

        async with self._database.transaction(EVERY_ORG) as connection:
            rows = await connection.execute(
                text("SELECT 1 FROM sink_offsets WHERE topic = :note"), {"note": self._note}
            )
            return rows.first() is not None

    @property
    def _note(self) -> str:
        """A row of `sink_offsets` that no topic has: whose places the others are."""
        return f"migrated to {self._new.prefix}"

    async def _switch(self, stored: dict[tuple[str, int], int]) -> None:
        """Give the sink its places in the new topics, unless it has moved meanwhile."""
        from sqlalchemy import text

        from services.alerts.adapters.database import EVERY_ORG

        plan = self._plan
        async with self._database.transaction(EVERY_ORG) as connection:
            rows = await connection.execute(
                text("SELECT topic, partition, next_offset FROM sink_offsets ORDER BY topic, partition FOR UPDATE")
            )
            if {(row.topic, row.partition): row.next_offset for row in rows} != stored:
                raise NotDrained("alerts has stored more meanwhile: run this again")
            await connection.execute(text("DELETE FROM sink_offsets"))
            await connection.execute(text("DELETE FROM progress WHERE partition >= :count"), {"count": plan.partitions})
            await connection.execute(
                text(
                    "INSERT INTO sink_offsets (topic, partition, next_offset) "
                    "SELECT topic, number, 0 FROM unnest(CAST(:topics AS text[])) AS t(topic), "
                    "generate_series(0, :last) AS g(number)"
                ),
                {"topics": list(STORED_TOPICS), "last": plan.partitions - 1},
            )
            await connection.execute(
                text("INSERT INTO sink_offsets (topic, partition, next_offset) VALUES (:note, 0, 0)"),
                {"note": self._note},
            )
            # The places that letters name are in the old inbox, which a replay no longer reads.
            await connection.execute(
                text("UPDATE dead_letters SET inbox_partition = -1, inbox_offset = -1 WHERE inbox_partition >= 0")
            )
        plan.tell(f"the sink's places are those of {self._new.prefix}*; {self._old.prefix}* stay as they are")


def _slices(entries: "Entries") -> "list[list[tuple[bytes, bytes]]]":
    parts: list[list[tuple[bytes, bytes]]] = [[]]
    room = SLICE_BYTES
    for key, value in entries.items():
        if room < 0:
            parts.append([])
            room = SLICE_BYTES
        parts[-1].append((key, value))
        room -= len(key) + len(value)
    return parts


def _is_wanted(value: bytes | None) -> bool:
    """Leave out what speaks of the old topics: their clock, and places in their `rules`."""
    from shared.contracts.inbox import RulesAwaited, TickRequested, decode_inbox

    try:
        return not isinstance(decode_inbox(value or b""), RulesAwaited | TickRequested)
    except (ValueError, msgspec.MsgspecError):
        return True


async def _pass_on(sender: "AIOKafkaProducer", topic: str, record: "ConsumerRecord[Any, Any]") -> None:
    from shared.kafka.client import await_sent

    headers = list(record.headers)
    await await_sent(
        [await sender.send(topic, record.value, key=record.key, partition=record.partition, headers=headers)]
    )


async def _holds_any(kafka: "KafkaSettings", begin: "dict[TopicPartition, int]") -> bool:
    async with _reader(kafka) as reader:
        async for _ in _records(reader, begin):
            return True
    return False


@asynccontextmanager
async def _reader(kafka: "KafkaSettings") -> "AsyncIterator[AIOKafkaConsumer]":
    from shared.kafka.client import consumer

    reader = consumer(kafka, auto_offset_reset="earliest")
    await reader.start()
    try:
        yield reader
    finally:
        await reader.stop()


async def _records(
    reader: "AIOKafkaConsumer", begin: "dict[TopicPartition, int]"
) -> "AsyncIterator[ConsumerRecord[Any, Any]]":
    """Yield every committed record from the given offsets to where the partitions end now."""
    places: Sequence[TopicPartition] = list(begin)
    if not places:
        return
    reader.assign(places)
    ends = await reader.end_offsets(places)
    first = await reader.beginning_offsets(places)
    for place in places:
        reader.seek(place, max(begin[place], first[place]))
    while any([await reader.position(place) < ends[place] for place in places]):
        for records in (await reader.getmany(timeout_ms=POLL_MS)).values():
            for record in records:
                yield record

"""What tests of the matcher's shell are made of: a core that only counts, records of the log, a readable worker."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from services.matcher.adapters.state_log import KafkaStateLog
from services.matcher.adapters.transaction import ProducerTransactions
from services.matcher.app import check_topics, make_consumer, make_workshop, pace_of
from services.matcher.domain.changes import Changes
from services.matcher.handlers.commits import end_if_cancelled
from services.matcher.handlers.worker import Worker
from services.matcher.ports import Batch
from services.matcher.settings import MatcherSettings
from shared.contracts.discrepancy import LogPosition
from shared.contracts.event import from_milliseconds
from shared.contracts.item import Item
from shared.contracts.leg import Leg, LegRecord, Tick, encode_leg_record, group_key
from shared.contracts.matched_pair import read_item
from shared.kafka.client import consumer, producer
from shared.kafka.partitioner import partition_of
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics

START_MS = 1_780_000_000_000
HUGE = "huge:"
"""A leg whose id begins so makes a result of as many bytes as follow."""
TOLD_TIMEOUT_S = 5.0


class CountingCore:
    """Makes one item per leg: its id is the leg's, its revision the number of legs its group has had.

    So the items of a log show both what was lost or doubled (ids) and whether the state went on (revisions).
    """

    version = 1
    offset_base = 0
    discrepancies_wait = False
    run = None

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.log_time = -1
        self.counts: dict[bytes, int] = {}
        self._dirty: dict[bytes, None] = {}
        self._items: list[tuple[bytes, Item]] = []

    @property
    def open_items(self) -> int:
        return len(self.counts)

    @property
    def settled_items(self) -> int:
        return 0

    @property
    def state_bytes(self) -> int:
        return 100 * len(self.counts)

    def apply(self, group: bytes, record: LegRecord, offset: int, value: bytes | None = None) -> None:
        if isinstance(record, Tick):
            self.log_time = max(self.log_time, record.time)
            self._dirty[b"clock"] = None
            return
        assert isinstance(record, Leg)
        self.counts[group] = self.counts.get(group, 0) + 1
        self._dirty[group] = None
        at = from_milliseconds(record.received_at)
        padding = "x" * int(record.id.removeprefix(HUGE)) if record.id.startswith(HUGE) else ""
        item = Item(
            id=record.id,
            revision=self.counts[group],
            status="matched",
            org="acme",
            rule="test",
            pack=padding,
            key=group.decode(),
            sides={},
            discrepancies=[],
            at=at,
            occurred_at=None,
            live=True,
            log=LogPosition(partition=self.partition, offset=offset, time=at),
        )
        self._items.append((group, item))

    def freeze(self) -> bool:
        return False

    def take(self) -> Changes:
        changes = Changes(items=self._items, state=[(key, self._entry(key)) for key in self._dirty])
        self._items, self._dirty = [], {}
        return changes

    def _entry(self, key: bytes) -> bytes:
        return msgspec.msgpack.encode(self.log_time if key == b"clock" else self.counts[key])

    def snapshot(self) -> Iterator[tuple[bytes, bytes]]:
        for key in [b"clock", *self.counts]:
            yield key, self._entry(key)

    def restore(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        for key, value in entries:
            if key == b"clock":
                self.log_time = msgspec.msgpack.decode(value)
            else:
                self.counts[key] = msgspec.msgpack.decode(value)


def leg(id_: str, received_ms: int = START_MS, side: int = 0) -> Leg:
    return Leg(
        "g1", side, "ledger", id_, id_, received_ms * 1000, 0, 0, received_ms, 0, None, "1.00", "EUR", "succeeded"
    )


def legs_of(count: int, groups: int, first: int = 0) -> list[tuple[bytes, bytes]]:
    """(key, value) of `count` legs over `groups` groups."""
    return [
        (group_key("acme", "test", (f"k{number % groups}",)), encode_leg_record(leg(f"e{number}")))
        for number in range(first, first + count)
    ]


def tick(time_ms: int) -> bytes:
    return encode_leg_record(Tick(0, 1, time_ms))


async def write(
    kafka: KafkaSettings, records: Iterable[tuple[bytes | None, bytes]], partitions: int, only: int | None = None
) -> None:
    """Write to `legs` as ingest does: by key, or all to partition `only`."""
    sender = producer(kafka, linger_ms=5)
    await sender.start()
    try:
        sent = []
        for key, value in records:
            number = only if only is not None else partition_of(key or b"", partitions)
            sent.append(await sender.send(Topics(kafka.topic_prefix).legs, value, key=key, partition=number))
        await asyncio.gather(*sent)
    finally:
        await sender.stop()


@dataclass
class Meter:
    """Counts instead of Prometheus."""

    commits: int = 0
    restores: int = 0
    batches: list[Batch] = field(default_factory=list)

    def restored(self, seconds: float) -> None:
        self.restores += 1

    def committed(self, batch: Batch, seconds: float) -> None:
        self.commits += 1
        self.batches.append(batch)


@dataclass
class Running:
    """A worker that runs, and its parts for tests that reach inside."""

    worker: Worker
    task: "asyncio.Task[None]"
    stop: asyncio.Event
    meter: Meter
    reader: AIOKafkaConsumer
    log: KafkaStateLog

    async def until(self, reached: Callable[["Running"], bool], timeout_s: float = 30.0) -> None:
        """Wait; what ended the worker is raised."""
        async with asyncio.timeout(timeout_s):
            while not reached(self):
                if self.task.done():
                    self.task.result()
                    raise AssertionError("the worker ended")
                await asyncio.sleep(0.02)

    async def until_committed(self, records: int, timeout_s: float = 60.0) -> None:
        await self.until(lambda running: running.worker.committed_records >= records, timeout_s)

    async def end(self) -> None:
        """As SIGTERM does."""
        self.stop.set()
        await asyncio.wait_for(self.task, 60)

    async def abandon(self) -> None:
        """As kill -9 does, as far as one process can: no commit, no abort, no goodbye."""
        self.task.cancel()
        await asyncio.wait([self.task])


class Death:
    """Ends an owner without a word at its `count`-th `step`, and keeps it from going any further.

    Steps: `started` (fenced the last owner, has not restored), `applied` (one leg), `sent` (a transaction's records
    are at the broker), `asked` (its commit is under way), `committed` (its commit was answered).
    """

    STEPS = ("started", "applied", "sent", "asked", "committed")

    def __init__(self, step: str, count: int) -> None:
        assert step in self.STEPS
        self.step = step
        self.left = count
        self.happened = False

    def core(self, partition: int) -> CountingCore:
        made = CountingCore(partition)
        apply = made.apply

        def dying(group: bytes, record: LegRecord, offset: int, *rest: object) -> None:
            apply(group, record, offset, *rest)
            if self._reached("applied"):
                raise asyncio.CancelledError

        made.apply = dying  # type: ignore[method-assign]
        return made

    def around(self, made: ProducerTransactions) -> ProducerTransactions:
        start, end = made.start, made._producer.commit_transaction

        async def dying_start() -> None:
            await start()
            await self._pass("started")

        async def dying_end() -> None:
            await self._pass("sent")
            ending = asyncio.ensure_future(end())
            if self.step == "asked":
                await asyncio.sleep(0.001)  # whether it gets through is left to chance
            await self._pass("asked")
            await ending
            await self._pass("committed")

        made.start = dying_start  # type: ignore[method-assign]
        made._producer.commit_transaction = dying_end
        return made

    async def _pass(self, step: str) -> None:
        if self._reached(step):
            end_if_cancelled()
            await asyncio.Event().wait()

    def _reached(self, step: str) -> bool:
        if step == self.step and not self.happened:
            self.left -= 1
            self.happened = self.left == 0
        return self.happened


def settings_for(kafka: KafkaSettings, **given: object) -> MatcherSettings:
    defaults: dict[str, object] = {
        "matcher_group": f"{kafka.topic_prefix}matcher",
        "session_timeout_ms": 6_000,
        "http_port": 0,
        "group_instance_id": None,
    }
    return MatcherSettings.model_validate(defaults | given)


@asynccontextmanager
async def running(
    kafka: KafkaSettings,
    core: Callable[[int], object] = CountingCore,
    around: Callable[[ProducerTransactions], ProducerTransactions] = lambda made: made,
    **given: object,
) -> AsyncIterator[Running]:
    """A worker of its own; abandoned at the end, unless the test ended it.

    `around` gets each partition's transactions before they are used.
    """
    settings = settings_for(kafka, **given)
    meter = Meter()
    log = KafkaStateLog(kafka, Topics(kafka.topic_prefix))
    reader = make_consumer(settings, kafka)
    workshop = make_workshop(settings, kafka, await check_topics(kafka), log, meter)  # type: ignore[arg-type]
    make = workshop.transactions
    workshop = replace(workshop, core=core, transactions=lambda number: around(make(number)))  # type: ignore[arg-type]
    worker = Worker(reader, Topics(kafka.topic_prefix).legs, workshop, pace_of(settings), settings.state_bytes_max)
    await log.start()
    await reader.start()
    stop = asyncio.Event()
    found = Running(worker, asyncio.create_task(worker.run(stop)), stop, meter, reader, log)
    try:
        yield found
    finally:
        found.task.cancel()
        await asyncio.gather(found.task, return_exceptions=True)
        await reader.stop()
        await log.close()


async def read_all(kafka: KafkaSettings, topic: str) -> list[object]:
    """Every committed record of `topic`, in order per partition."""
    reader = consumer(kafka, auto_offset_reset="none")
    await reader.start()
    try:
        numbers = await reader._client._wait_on_metadata(topic)
        places = [TopicPartition(topic, number) for number in sorted(numbers)]
        reader.assign(places)
        begins, ends = await reader.beginning_offsets(places), await _ends(kafka, reader, places)
        for place in places:
            reader.seek(place, begins[place])
        found: list[object] = []
        async with asyncio.timeout(60):
            for place in places:
                while await reader.position(place) < ends[place]:
                    for records in (await reader.getmany(place, timeout_ms=200)).values():
                        found += records
        return found
    finally:
        await reader.stop()


async def _ends(
    kafka: KafkaSettings, reader: AIOKafkaConsumer, places: list[TopicPartition]
) -> dict[TopicPartition, int]:
    """Where committed records end, once the broker has told readers of every transaction that is over.

    It writes that behind the answer to the owner, on a busy machine a second later. A transaction that stays open is not
    waited for.
    """
    everything = consumer(kafka, auto_offset_reset="none", isolation="read_uncommitted")
    await everything.start()
    try:
        written = await everything.end_offsets(places)
    finally:
        await everything.stop()
    committed: dict[TopicPartition, int] = await reader.end_offsets(places)
    give_up_s = time.monotonic() + TOLD_TIMEOUT_S
    while committed != written and time.monotonic() < give_up_s:
        await asyncio.sleep(0.05)
        committed = await reader.end_offsets(places)
    return committed


def is_progress(record: object) -> bool:
    return ("kind", b"progress") in record.headers  # type: ignore[attr-defined]


async def items(kafka: KafkaSettings) -> list[Item]:
    """Committed items without progress records."""
    found = await read_all(kafka, Topics(kafka.topic_prefix).matches)
    return [read_item(one.value) for one in found if not is_progress(one)]  # type: ignore[attr-defined]


def assert_exactly_once(found: list[Item], count: int) -> None:
    """Every leg has one item, and no group's count was set back or skipped."""
    ids = Counter(item.id for item in found)
    lost = [f"e{number}" for number in range(count) if f"e{number}" not in ids]
    doubled = [id_ for id_, times in ids.items() if times > 1]
    assert (len(lost), len(doubled), len(ids)) == (0, 0, count), f"lost {lost[:5]}, doubled {doubled[:5]}"
    revisions: dict[object, list[int]] = {}
    for item in found:
        revisions.setdefault(str(item.key), []).append(item.revision)
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in revisions.values())

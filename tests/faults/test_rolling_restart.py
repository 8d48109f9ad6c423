"""Goal: restarting every matcher and sink one after another under load loses and doubles nothing, and stops little.

Method: legs of known outcome are written at a steady rate; two matchers and two sinks share the partitions. They are
restarted one by one as a StatefulSet does it (SIGTERM, wait for the end, start again under the same name, wait until
ready); then one matcher leaves for good. Once with static group membership, as the chart has it, and once without.
A partition's pause is the longest time between two committed results; the sink's, between two moves of its place.
`-s` shows the figures; TIEOUT_TEST_RESTARTS_LEGS_PER_SECOND sets the rate.
"""

import asyncio
import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import NamedTuple, TypeVar

import asyncpg
import msgspec
import pytest
from sqlalchemy import make_url

from services.alerts.adapters.database import migrate
from shared.contracts.discrepancy import Discrepancy
from shared.contracts.item import Item
from shared.contracts.leg import Leg, decode_leg_record
from shared.kafka.client import await_sent, producer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from tests.support.servers import Server
from tests.support.topic_log import all_records, is_progress, read_item
from tieout.bench.harness import say
from tieout.bench.prepared_legs import ORG, Prepared, prepared_legs
from tieout.local.places import free_ports
from tieout.local.processes import Child, Processes

RATE = int(os.environ.get("TIEOUT_TEST_RESTARTS_LEGS_PER_SECOND", "5000"))
SECONDS_MAX = 300
"""The stream ends with the last disturbance; on a busy machine a start takes many seconds."""
PARTITIONS = 12
SLICE_S = 0.05
LOOK_S = 0.05
CALM_S = 6.0
"""Of undisturbed flow before the first restart and between two."""
STANDING_S = 1.0
READY_TIMEOUT_S = 60.0
DRAIN_TIMEOUT_S = 120.0

T = TypeVar("T")
Window = tuple[float, float]


@dataclass
class Stream:
    """What was written, and what must come of it."""

    written: list[Prepared] = field(default_factory=list)
    agreeing: set[str] = field(default_factory=set)
    differing: set[str] = field(default_factory=set)
    legs: int = 0
    seconds: float = 0.0
    behind_s_max: float = 0.0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def judge(self) -> None:
        """Say what must come of what was written: payments of one side only are still waited for, and tell nothing."""
        amounts: dict[str, list[str]] = defaultdict(list)
        for _, _, value in self.written:
            leg = decode_leg_record(value)
            if isinstance(leg, Leg):
                self.legs += 1
                # pay-… and pi_3Q… of one payment end alike.
                amounts[leg.record[-12:]].append(str(leg.amount))
        for number, found in amounts.items():
            if len(found) == 2:
                (self.agreeing if found[0] == found[1] else self.differing).add(f"pi_3Q{number}")


class Gaps(NamedTuple):
    """Between two results of a partition."""

    longest_s: float
    standing: int
    """Partitions that stood for longer than a second."""


@dataclass
class Pauses:
    """What happened to partitions, by what happened meanwhile."""

    matcher: dict[str, "Gaps"] = field(default_factory=dict)
    sink: dict[str, "Gaps"] = field(default_factory=dict)
    lost: int = 0
    doubled: int = 0


@pytest.mark.kafka
@pytest.mark.postgres
@pytest.mark.timeout(900)
@pytest.mark.partitions(state=PARTITIONS, inbox=6)
@pytest.mark.parametrize("membership", ["static", "dynamic"])
async def test_rolling_restarts_and_scale_in_lose_and_double_nothing(
    membership: str, real_kafka: Server, kafka_settings: KafkaSettings, topics: Topics, database_url: str
) -> None:
    stream = Stream()
    await migrate(database_url)
    windows: dict[str, Window] = {}
    moves: dict[tuple[str, int], list[tuple[float, int]]] = defaultdict(list)
    async with Processes() as processes:
        fleet = Fleet(processes, kafka_settings, database_url, is_static=membership == "static")
        for name in ("matcher-0", "matcher-1", "alerts-0", "alerts-1"):
            await fleet.start(name)
        await fleet.ready("matcher-0", "matcher-1", "alerts-0", "alerts-1")
        watching = asyncio.create_task(_watch(database_url, moves))
        writing = asyncio.create_task(_write(kafka_settings, topics.legs, stream))
        await _disturb(fleet, windows)
        assert not writing.done(), "the stream ended before the last disturbance"
        stream.ended.set()
        await writing
        stream.judge()
        await _stored(database_url, stream)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    pauses = Pauses()
    await _compare(kafka_settings, topics, database_url, stream, pauses)
    times = await _result_times(kafka_settings, topics)
    for name, window in windows.items():
        pauses.matcher[name] = _gaps(times, window)
        pauses.sink[name] = _gaps({place: [at for at, _ in found] for place, found in moves.items()}, window)
    _tell(membership, stream, pauses)
    assert (pauses.lost, pauses.doubled) == (0, 0)


class Fleet:
    """Processes under the names that a StatefulSet gives them."""

    def __init__(self, processes: Processes, kafka: KafkaSettings, url: str, *, is_static: bool) -> None:
        self._processes, self._is_static = processes, is_static
        self._children: dict[str, Child] = {}
        self._ports: dict[str, int] = {}
        self._environment = {
            "TIEOUT_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "TIEOUT_KAFKA_TOPIC_PREFIX": kafka.topic_prefix,
            "TIEOUT_MATCHER_GROUP": f"{kafka.topic_prefix}matcher",
            "TIEOUT_SINK_GROUP": f"{kafka.topic_prefix}sink",
            "TIEOUT_DATABASE_URL": url,
            "TIEOUT_LOG_LEVEL": "warning",
        }

    async def start(self, name: str) -> None:
        self._ports.setdefault(name, free_ports(1)[0])
        own = {"POD_NAME": name, "TIEOUT_SINK_INSTANCE_ID": name} if self._is_static else {"POD_NAME": ""}
        roles = ["sink"] if name.startswith("alerts") else []
        self._children[name] = await self._processes.python(
            name,
            ["-m", f"services.{name.partition('-')[0]}", *roles],
            self._environment | own | {"TIEOUT_HTTP_PORT": str(self._ports[name])},
        )

    async def ready(self, *names: str) -> None:
        for name in names:
            url = f"http://127.0.0.1:{self._ports[name]}/health/ready"
            await self._processes.wait_ready(self._children[name], url, READY_TIMEOUT_S)

    async def stop(self, name: str) -> None:
        """SIGTERM; it must end by itself, and well."""
        assert await self._processes.stop(self._children[name]) == 0, self._children[name].lines

    async def restart(self, name: str) -> None:
        await self.stop(name)
        await self.start(name)
        await self.ready(name)


async def _disturb(fleet: Fleet, windows: dict[str, Window]) -> None:
    await asyncio.sleep(CALM_S)
    begun = time.time()
    await asyncio.sleep(CALM_S)
    windows["undisturbed"] = (begun, time.time())
    for service in ("matcher", "alerts"):
        begun = time.time()
        for number in (1, 0):
            await fleet.restart(f"{service}-{number}")
        await asyncio.sleep(2.0)
        windows[f"rolling restart of {service}"] = (begun, time.time())
        await asyncio.sleep(CALM_S / 2)
    begun = time.time()
    await fleet.stop("matcher-1")
    # A static member that does not come back is missed after its session time-out of 10 s.
    await asyncio.sleep(15.0)
    windows["scale-in of matcher"] = (begun, time.time())


async def _write(kafka: KafkaSettings, topic: str, stream: Stream) -> None:
    """Write at the rate asked for, a batch per partition and slice."""
    sender = producer(kafka)
    await sender.start()
    try:
        begun = time.monotonic()
        for number, part in enumerate(_slices(prepared_legs(RATE * SECONDS_MAX, PARTITIONS), round(RATE * SLICE_S))):
            if stream.ended.is_set():
                break
            late = time.monotonic() - begun - number * SLICE_S
            stream.behind_s_max = max(stream.behind_s_max, late)
            await asyncio.sleep(max(0.0, -late))
            batches = defaultdict(sender.create_batch)
            now_ms = round(time.time() * 1000)
            for partition, key, value in part:
                batches[partition].append(key=key, value=value, timestamp=now_ms)
            await await_sent([await sender.send_batch(batch, topic, partition=at) for at, batch in batches.items()])
            stream.written += part
        stream.seconds = time.monotonic() - begun
    finally:
        await sender.stop()


def _slices(records: Iterator[Prepared], size: int) -> Iterator[list[Prepared]]:
    while part := list(islice(records, size)):
        yield part


# ---- what came of it


async def _connect(url: str) -> asyncpg.Connection:
    found = make_url(url)
    connection = await asyncpg.connect(
        host=found.host, port=found.port, user=found.username, password=found.password, database=found.database
    )
    await connection.execute("SET tieout.org = '*'")
    return connection


async def _watch(url: str, moves: dict[tuple[str, int], list[tuple[float, int]]]) -> None:
    """Note every move of the sink's places in `matches`."""
    connection = await _connect(url)
    try:
        while True:
            for topic, partition, offset in await connection.fetch(
                "SELECT topic, partition, next_offset FROM sink_offsets WHERE topic LIKE '%matches'"
            ):
                seen = moves[topic, partition]
                if not seen or seen[-1][1] != offset:
                    seen.append((time.time(), offset))
            await asyncio.sleep(LOOK_S)
    finally:
        await connection.close()


async def _stored(url: str, stream: Stream) -> None:
    """Wait until everything has arrived in PostgreSQL; what is still missing then, the comparison names."""
    connection = await _connect(url)
    try:
        until = time.monotonic() + DRAIN_TIMEOUT_S
        while time.monotonic() < until:
            if await connection.fetchval("SELECT count(*) FROM items") >= len(stream.agreeing) + len(stream.differing):
                return
            await asyncio.sleep(0.5)
    finally:
        await connection.close()


async def _compare(kafka: KafkaSettings, topics: Topics, url: str, stream: Stream, pauses: Pauses) -> None:
    raised = await _results(kafka, topics.discrepancies, Discrepancy)
    items = await _results(kafka, topics.matches, Item)
    expected = Counter(dict.fromkeys(stream.differing, 1))
    settled = Counter(dict.fromkeys(stream.agreeing | stream.differing, 1))
    on_topics = [(expected, Counter(one.key for one in raised)), (settled, Counter(one.key for one in items))]
    connection = await _connect(url)
    try:
        rows = await connection.fetch(
            "SELECT key FROM discrepancies WHERE type = 'AmountMismatch' AND state = 'raised'"
        )
        kept = await connection.fetch("SELECT key, status FROM items WHERE org = $1", ORG)
    finally:
        await connection.close()
    in_tables = [
        (expected, Counter(json.loads(row["key"]) for row in rows)),
        (settled, Counter(json.loads(row["key"]) for row in kept)),
        (expected, Counter(json.loads(row["key"]) for row in kept if row["status"] == "discrepant")),
    ]
    for wanted, found in on_topics + in_tables:
        pauses.lost += (wanted - found).total()
        pauses.doubled += (found - wanted).total()


async def _results(kafka: KafkaSettings, topic: str, kind: type[T]) -> list[T]:
    decode = read_item if kind is Item else msgspec.json.Decoder(kind).decode
    return [decode(one.value) for one in await all_records(kafka, topic) if one.value and not is_progress(one)]


async def _result_times(kafka: KafkaSettings, topics: Topics) -> dict[tuple[str, int], list[float]]:
    times: dict[tuple[str, int], list[float]] = defaultdict(list)
    for record in await all_records(kafka, topics.matches):
        times[record.topic, record.partition].append(record.timestamp / 1000)
    return times


def _gaps(times: dict[tuple[str, int], list[float]], window: Window) -> Gaps:
    """Return the gaps of every place that overlap the window."""
    begun, ended = window
    longest = [
        max(
            (later - earlier for earlier, later in pairwise(found) if later >= begun and earlier <= ended),
            default=0.0,
        )
        for found in times.values()
    ]
    return Gaps(max(longest, default=0.0), sum(one > STANDING_S for one in longest))


def _tell(membership: str, stream: Stream, pauses: Pauses) -> None:
    legs, rate = stream.legs, stream.legs / stream.seconds
    say(
        f"\n{membership} membership: {legs:,} legs at {rate:,.0f} a second (the writer at most {stream.behind_s_max:.1f} s "
        f"behind), {len(stream.agreeing):,} pairs agree, {len(stream.differing):,} differ; "
        f"lost {pauses.lost}, doubled {pauses.doubled}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    say(f"  {'longest pause, s (partitions over 1 s)':<40}{'results':>12}{'stored':>12}")
    for name, gaps in pauses.matcher.items():
        say(f"  {name:<40}{_shown(gaps):>12}{_shown(pauses.sink[name]):>12}")


def _shown(gaps: Gaps) -> str:
    return f"{gaps.longest_s:.2f} ({gaps.standing})"

"""One run: matchers and sinks from the product, everything around them simulated, all from one seed.

The product's own code runs unchanged: the poll loop, assignments, commits, transactions, the look for hanging ones, the
state log, restore and the core of the matcher; the loop of the sink. Only the clients they are given are ours.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest import mock

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from services.alerts.handlers import sink as sink_module
from services.alerts.handlers.sink import SinkLoop
from services.alerts.ports.sink import Batch as SinkBatch
from services.alerts.ports.sink import Fenced, Place
from services.matcher import app as matcher_app
from services.matcher.adapters import reader, state_log, transaction
from services.matcher.adapters.state_log import KafkaStateLog
from services.matcher.adapters.watchdog import Watchdog
from services.matcher.domain import core as core_module
from services.matcher.handlers import worker as worker_module
from services.matcher.handlers.worker import Worker
from services.matcher.settings import MatcherSettings
from shared.contracts.leg import RuleRecord
from shared.errors import DependencyAway
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from shared.telemetry.health import Health
from tests.simulation import planted
from tests.simulation import stream as streams
from tests.simulation.broker import COMMITTED, PLAIN, Broker
from tests.simulation.clients import Admin, Consumer, Producer
from tests.simulation.event_loop import PROCESS, Process, SimulatedLoop
from tests.simulation.faults import RUN_S, Fault, draw
from tests.simulation.network import Network

KAFKA = KafkaSettings.local("simulated:9092", topic_prefix="s.")
TOPICS = Topics(KAFKA.topic_prefix)
GROUP = "matcher"
SINK_GROUP = "sink"
SESSION_S = 2.0
PROGRESS_S = 150.0
"""After the last fault everything has to be through within this time: the longest time-out twice, and some."""
LOOK_S = 0.25


@dataclass(frozen=True)
class Plan:
    """What distinguishes one run from another; the same plan gives the same run."""

    seed: int
    groups: int = 12
    faults_most: int = 9
    keep: frozenset[int] | None = None
    """Numbers of the faults that happen; None: all."""
    planted: str = ""
    """A fault of the product that the run must find; see `planted.py`."""
    kinds: tuple[str, ...] = ()
    """Of faults; none: any."""

    def faults(self) -> list[Fault]:
        drawn = draw(random.Random(f"faults {self.seed}"), self.faults_most, self.kinds)
        return [fault for fault in drawn if self.keep is None or fault.number in self.keep]


@dataclass
class Database:
    """PostgreSQL as far as the sink's places are concerned: one transaction, all or nothing."""

    up: bool = True
    incarnation: int = 0
    places: dict[Place, int] = field(default_factory=dict)
    rows: list[tuple[str, str, int]] = field(default_factory=list)
    fences: bool = True

    def open(self, begin: Mapping[Place, int]) -> dict[Place, int]:
        return {place: self.places.setdefault(place, offset) for place, offset in begin.items()}

    def store(self, batch: SinkBatch) -> None:
        if self.fences and any(self.places.get(span.place) != span.start for span in batch.spans):
            raise Fenced("a place was not where the batch begins")
        for span in batch.spans:
            self.places[span.place] = span.end
        self.rows += [("discrepancies", one.discrepancy.id, one.discrepancy.revision) for one in batch.discrepancies]
        self.rows += [("matches", one.item.id, one.item.revision) for one in batch.items]


@dataclass
class Slot:
    """A place for one process, which is started again whenever it ends."""

    name: str
    main: Callable[["World", "Slot"], Any]
    process: Process | None = None
    stop: asyncio.Event | None = None
    task: "asyncio.Task[Any] | None" = None
    starts: int = 0
    pause_s: float = 0.0
    exits: list[str] = field(default_factory=list)


class World:
    """Everything of one run."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.chance = random.Random(f"world {plan.seed}")
        self.loop = SimulatedLoop(random.Random(f"steps {plan.seed}"))
        self.broker = Broker(self.loop, random.Random(f"broker {plan.seed}"), SESSION_S)
        self.network = Network(self.loop, self.broker, random.Random(f"network {plan.seed}"))
        self.database = Database(fences=plan.planted != planted.NO_PLACES)
        self.wire = Network(self.loop, self.database, self.chance)  # type: ignore[arg-type] # up and incarnation suffice
        self.entries: list[streams.Entry] = []
        self.done: list[str] = []
        self.wrong: list[str] = []
        self.static = self.chance.random() < 0.5
        self.settled_s = 0.0
        for topic in (*self._paired, TOPICS.matcher_checkpoints):
            self.broker.create(topic, streams.PARTITIONS)
        self.broker.create(TOPICS.dead_letters, 1)
        self.broker.create(TOPICS.not_reconciled, 1)
        matchers, sinks = self.chance.randint(1, 3), self.chance.randint(1, 2)
        self.slots = [Slot(f"matcher-{number}", matcher_main) for number in range(matchers)]
        self.slots += [Slot(f"sink-{number}", sink_main) for number in range(sinks)]

    _paired = (TOPICS.legs, TOPICS.matcher_state, TOPICS.discrepancies, TOPICS.matches, TOPICS.checks)

    # ---- the run

    def run(self) -> None:
        """Let everything happen; what is wrong afterwards stands in `wrong`."""
        made = streams.stream(self.plan.seed % 64, self.plan.groups)
        token = PROCESS.set(self.loop.outside)
        try:
            with self._in_force():
                self.loop.run_until_complete(self._main(made))
        except AssertionError as error:
            self.wrong.append(f"{type(error).__name__}: {error}")
        finally:
            PROCESS.reset(token)
            self.loop.bury()
            transaction._closing.clear()
            reader._stopping.clear()

    @contextlib.contextmanager
    def _in_force(self) -> Iterator[None]:
        def made_producer(kafka: Any, *, transactional_id: str | None = None, **options: Any) -> Producer:
            if self.plan.planted == planted.NO_FENCING and transactional_id is not None:
                transactional_id += PROCESS.get().name
            return Producer(self.network, self.broker, transactional_id)

        def made_consumer(kafka: Any, *, isolation: str = "read_committed", **options: Any) -> Consumer:
            group, instance = options.get("group"), options.get("group_instance_id")
            return Consumer(self.network, self.broker, group=group, group_instance_id=instance, isolation=isolation)

        async def counts(kafka: Any, *topics: str) -> dict[str, int]:
            return {topic: self.broker.counts[topic] for topic in topics}

        quiet = SimpleNamespace(set_threshold=_nothing, collect=_nothing, freeze=_nothing)
        patches = [
            (time, "monotonic", self.loop.monotonic),
            (transaction, "producer", made_producer),
            (reader, "consumer", made_consumer),
            (matcher_app, "consumer", made_consumer),
            (sink_module, "consumer", made_consumer),
            (sink_module, "partitions_of", counts),
            (state_log, "admin", lambda kafka: Admin(self.network, self.broker)),
            (worker_module, "gc", quiet),
            (core_module, "compile_record", _compiled),
            *planted.patches(self.plan.planted),
        ]
        with contextlib.ExitStack() as stack:
            for target, name, value in patches:
                stack.enter_context(mock.patch.object(target, name, value))
            yield

    async def _main(self, made: streams.Stream) -> None:
        keepers = [asyncio.ensure_future(self._keep(slot)) for slot in self.slots]
        feeding = asyncio.ensure_future(self._feed(made.entries))
        breaking = [asyncio.ensure_future(self._break(fault)) for fault in self.plan.faults()]
        await asyncio.gather(feeding, *breaking)
        begun_s = self.loop.time()
        while not self._is_through():
            if self.loop.time() - begun_s > PROGRESS_S:
                self.wrong.append(f"no end {PROGRESS_S:g} s after the last fault: {self._places()}")
                break
            await asyncio.sleep(LOOK_S)
        self.settled_s = self.loop.time() - begun_s
        # What a zombie still has in hand comes now, if ever.
        await asyncio.sleep(3.0)
        for keeper in keepers:
            keeper.cancel()
        if not self.wrong:
            self._check(made)

    async def _feed(self, entries: Sequence[streams.Entry]) -> None:
        pause_s = RUN_S / len(entries)
        waiting = 0.0
        for number, key, value in entries:
            waiting += pause_s * self.chance.uniform(0, 2)
            if waiting > 0.25:
                await asyncio.sleep(waiting)
                waiting = 0.0
            while not self.broker.up:  # noqa: ASYNC110 - seen from outside
                await asyncio.sleep(LOOK_S)
            place = TopicPartition(TOPICS.legs, number)
            log = self.broker.logs[place]
            self.broker.produce(None, 0, 0, place, log.end, [(key, value, ())])
            self.entries.append((number, key, value))

    async def _keep(self, slot: Slot) -> None:
        """Start the slot's process, and start it again whenever it has ended."""
        while True:
            slot.starts += 1
            process = Process(
                f"{slot.name}.{slot.starts}",
                rate=self.chance.choice((1.0, 1.0, 0.97, 1.04)),
                offset_s=self.chance.uniform(-1e6, 1e6),
            )
            slot.process, slot.stop = self.loop.add(process), asyncio.Event()
            slot.task = self.loop.start(process, slot.main(self, slot))
            while process.alive and not slot.task.done():  # noqa: ASYNC110 - it may die without a word
                await asyncio.sleep(LOOK_S)
            if slot.task.done() and not slot.task.cancelled() and slot.task.exception() is not None:
                self._exited(slot, slot.task.exception())
            process.kill()
            await asyncio.sleep(slot.pause_s or 0.3)
            slot.pause_s = 0.0

    def _exited(self, slot: Slot, error: BaseException | None) -> None:
        slot.exits.append(repr(error))
        if type(error).__name__ not in ("Stalled", "MatcherStalled", "KafkaAway"):
            self.wrong.append(f"{slot.name} ended at {self.loop.time():.3f} s: {error!r}")

    # ---- faults

    async def _break(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at_s)
        slots = [slot for slot in self.slots if slot.process is not None and slot.process.alive]
        if not slots:
            return
        slot = slots[int(fault.pick * len(slots))]
        assert slot.process is not None
        self.done.append(f"{fault} {slot.process.name}")
        await getattr(self, "_do_" + fault.kind.replace(" ", "_"))(fault, slot, slot.process)

    async def _do_kill(self, fault: Fault, slot: Slot, process: Process) -> None:
        slot.pause_s = fault.pick * 3
        process.die_at_step = process.steps + int(fault.amount)

    async def _do_freeze(self, fault: Fault, slot: Slot, process: Process) -> None:
        process.frozen = True
        await asyncio.sleep(fault.amount)
        process.frozen = False

    async def _do_stop(self, fault: Fault, slot: Slot, process: Process) -> None:
        slot.pause_s = fault.amount
        if slot.stop is not None:
            slot.stop.set()

    async def _do_cut(self, fault: Fault, slot: Slot, process: Process) -> None:
        await self._away(self.network.cut, process, fault.amount)

    async def _do_silence(self, fault: Fault, slot: Slot, process: Process) -> None:
        await self._away(self.network.silent, process, fault.amount)

    async def _away(self, names: set[str], process: Process, seconds: float) -> None:
        names.add(process.name)
        await asyncio.sleep(seconds)
        names.discard(process.name)

    async def _do_broker(self, fault: Fault, slot: Slot, process: Process) -> None:
        if not self.broker.up:
            return
        self.broker.crash(skip_markers=fault.pick * 0.8)
        await asyncio.sleep(fault.amount)
        self.broker.restart()

    async def _do_lost_commit(self, fault: Fault, slot: Slot, process: Process) -> None:
        if fault.pick < 0.5:  # the request arrives when it has long been repeated, perhaps in the next transaction
            self.network.late.setdefault("end_transaction", []).append(fault.amount / 20)
        else:
            self.network.lose_answer["end_transaction"] += 1

    async def _do_lost_send(self, fault: Fault, slot: Slot, process: Process) -> None:
        self.network.lose_answer[("produce", "add_partitions", "init_producer")[int(fault.pick * 3)]] += 1

    async def _do_lost_join(self, fault: Fault, slot: Slot, process: Process) -> None:
        self.network.lose_answer["join"] += 1

    async def _do_refused(self, fault: Fault, slot: Slot, process: Process) -> None:
        self.network.refuse[(TOPICS.matches, TOPICS.discrepancies, TOPICS.matcher_state)[int(fault.pick * 3)]] += 1

    async def _do_rebalance(self, fault: Fault, slot: Slot, process: Process) -> None:
        self.broker.disturb(GROUP if slot.name.startswith("matcher") else SINK_GROUP)

    async def _do_slow(self, fault: Fault, slot: Slot, process: Process) -> None:
        self.network.slow_s += fault.amount / 10
        await asyncio.sleep(fault.amount)
        self.network.slow_s = max(0.0, self.network.slow_s - fault.amount / 10)

    async def _do_database(self, fault: Fault, slot: Slot, process: Process) -> None:
        if not self.database.up:
            return
        self.database.up, self.database.incarnation = False, self.database.incarnation + 1
        await asyncio.sleep(fault.amount)
        self.database.up = True

    async def _do_lost_store(self, fault: Fault, slot: Slot, process: Process) -> None:
        self.wire.lose_answer["store"] += 1

    # ---- the end

    def seen(self, topic: str, number: int) -> list[Any]:
        """What a reader of committed records sees, without progress."""
        log = self.broker.logs[TopicPartition(topic, number)]
        stable = log.stable
        return [
            record
            for record in log.records[:stable]
            if record.status in (PLAIN, COMMITTED) and ("kind", b"progress") not in record.headers
        ]

    def _places(self) -> list[tuple[int, int, int]]:
        """By partition: the next input offset as the state tells it, the end of the input, open transactions."""
        places = []
        for number in range(streams.PARTITIONS):
            states = self.seen(TOPICS.matcher_state, number)
            told = state_log.StateReader().read(0, states[-1].value).next_offset if states else 0
            end = self.broker.logs[TopicPartition(TOPICS.legs, number)].end
            hanging = sum(bool(self.broker.logs[TopicPartition(topic, number)].open) for topic in self._paired)
            places.append((told, end, hanging))
        return places

    def _is_through(self) -> bool:
        if any(told < end or hanging for told, end, hanging in self._places()):
            return False
        return all(
            self.database.places.get(Place(name, number), -1) >= self._last_of(topic, number) + 1
            for name, topic in (("discrepancies", TOPICS.discrepancies), ("matches", TOPICS.matches))
            for number in range(streams.PARTITIONS)
        )

    def _last_of(self, topic: str, number: int) -> int:
        seen = self.seen(topic, number)
        return seen[-1].offset if seen else -2

    def _check(self, made: streams.Stream) -> None:
        from tests.simulation.oracle import complaints

        self.wrong += complaints(self, made)


_compile = core_module.compile_record
_known_rules: dict[bytes, Any] = {}


def _compiled(record: RuleRecord) -> Any:
    """Rules are compiled once and not again by every process of every run: a fifth of the time."""
    key = msgspec.msgpack.encode(record)
    if key not in _known_rules:
        _known_rules[key] = _compile(record)
    return _known_rules[key]


def _nothing(*args: Any) -> None:
    """In place of the collector: one run is too short for it."""


class _Meter:
    def restored(self, seconds: float) -> None:
        """Nobody watches."""

    def committed(self, batch: Any, seconds: float) -> None:
        """Nobody watches."""


SETTINGS = MatcherSettings.model_validate(
    {
        "matcher_group": GROUP,
        "session_timeout_ms": int(SESSION_S * 1000),
        "group_instance_id": None,
        "snapshot_threshold_bytes": 4_000,
        "snapshot_chunk_bytes": 1_500,
        "checkpoint_interval_s": 7,
        "stall_timeout_s": 60.0,
        "commit_interval_ms": 50,
    }
)


async def matcher_main(world: World, slot: Slot) -> None:
    """What `services.matcher.app` does, without its HTTP server."""
    instance = slot.name if world.static else None
    settings = SETTINGS.model_copy(update={"group_instance_id": instance})
    counts = world.broker.counts
    log = KafkaStateLog(KAFKA, TOPICS, counts[TOPICS.legs])
    consumer = matcher_app.make_consumer(settings, KAFKA)
    workshop = matcher_app.make_workshop(settings, KAFKA, counts, log, _Meter())  # type: ignore[arg-type]
    worker = Worker(consumer, TOPICS.legs, workshop, matcher_app.pace_of(settings), settings.state_bytes_max)
    assert slot.stop is not None
    try:
        await log.start()
        await consumer.start()
        await matcher_app._first_to_end(
            worker.run(slot.stop), Watchdog(settings.stall_timeout_s, time.monotonic).run(worker.status)
        )
    finally:
        await consumer.stop()
        await log.close()


class _Sink:
    """The sink's port on the simulated database."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def open_places(self, begin: Mapping[Place, int], live: Mapping[Place, int]) -> dict[Place, int]:
        return await self._asked("open", self._world.database.open, dict(begin))

    async def skip_to(self, place: Place, stored: int, begin: int) -> None:
        raise AssertionError(f"{place} lost its records from {stored} to {begin}")

    async def store(self, batch: SinkBatch) -> None:
        await self._asked("store", self._world.database.store, batch)

    async def _asked(self, what: str, handler: Callable[..., Any], *args: Any) -> Any:
        try:
            return await self._world.wire.call(what, handler, *args)
        except KafkaError as error:
            raise DependencyAway("the database does not answer") from error


async def sink_main(world: World, slot: Slot) -> None:
    """What `services.alerts.app` does for the sink."""
    sink = _Sink(world)
    instance = slot.name if world.static else None
    loop = SinkLoop(KAFKA, sink, sink.store, Health(["sink"]), group=SINK_GROUP, instance_id=instance)  # type: ignore[arg-type]
    assert slot.stop is not None
    await matcher_app._first_to_end(loop.run(), _awaited(slot.stop))


async def _awaited(stop: asyncio.Event) -> None:
    await stop.wait()

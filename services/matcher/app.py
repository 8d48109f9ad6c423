"""The matcher, put together."""

import asyncio
import contextlib
import socket
from collections.abc import Coroutine
from functools import partial

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import KafkaError

from services.matcher.adapters.input_ends import InputEnds
from services.matcher.adapters.metrics import PrometheusMeter
from services.matcher.adapters.results import Routes
from services.matcher.adapters.state_log import KafkaStateLog
from services.matcher.adapters.transaction import ProducerTransactions
from services.matcher.adapters.watchdog import Watchdog
from services.matcher.domain.compiled import BUILT
from services.matcher.domain.core import Core
from services.matcher.handlers.assignment import Workshop
from services.matcher.handlers.commits import Pace
from services.matcher.handlers.worker import Worker
from services.matcher.ports import Status
from services.matcher.settings import MatcherSettings
from services.matcher.use_cases.partition import Policy
from shared.errors import UsageError
from shared.kafka.client import BULK_FETCH, consumer, wait_for_kafka
from shared.kafka.errors import KafkaAway
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics, partitions_of
from shared.telemetry.health import Health
from shared.telemetry.ops import listen, ops_app, serve_ops
from shared.telemetry.traces import configure_tracing

PROGRESS_INTERVAL_S = 0.8
"""Readers are promised a progress record per second; the rest is for the transaction itself."""
OBSERVE_S = 1.0
REBALANCE_TIMEOUT_MS = 30_000
POLL_LOOP = "poll"
TOPICS = "topics"
RESTORED = "restored"

log = structlog.get_logger(__name__)


class WrongPartitions(UsageError):
    """Topics are missing or their partition counts do not go together."""


async def check_topics(kafka: KafkaSettings) -> dict[str, int]:
    """Return the partition count of every topic of the matcher.

    Raises:
        WrongPartitions: one is missing, or results would not go where their input came from.
    """
    topics = Topics(kafka.topic_prefix)
    results = (topics.discrepancies, topics.matches, topics.checks)
    paired = (topics.legs, topics.matcher_state, topics.matcher_checkpoints, *results)
    counts = await partitions_of(kafka, *paired, topics.dead_letters)
    missing = [name for name in (*paired, topics.dead_letters) if name not in counts]
    if missing:
        raise WrongPartitions(f"topics are missing: {', '.join(missing)}; create them with `tieout topics apply`")
    if len({counts[name] for name in paired}) > 1:
        shown = ", ".join(f"{name} {counts[name]}" for name in paired)
        raise WrongPartitions(
            f"these topics must have the same number of partitions: {shown}. Results of a partition of legs go to the "
            f"same partition of the others; make a whole set with `tieout topics apply` under another "
            f"TIEOUT_KAFKA_TOPIC_PREFIX"
        )
    return counts


def make_consumer(settings: MatcherSettings, kafka: KafkaSettings) -> AIOKafkaConsumer:
    """Return the consumer of legs; it joins the group when it is subscribed."""
    # The assignor keeps its memory on its class: each consumer gets one of its own.
    sticky = type("StickyAssignor", (StickyPartitionAssignor,), {})
    return consumer(
        kafka,
        auto_offset_reset="none",
        group=settings.matcher_group,
        group_instance_id=settings.group_instance_id,
        session_timeout_ms=settings.session_timeout_ms,
        heartbeat_interval_ms=settings.session_timeout_ms // 3,
        rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
        partition_assignment_strategy=(sticky,),
        fetch_min_bytes=BULK_FETCH["fetch_min_bytes"],
        fetch_max_wait_ms=BULK_FETCH["fetch_max_wait_ms"],
    )


def make_workshop(
    settings: MatcherSettings, kafka: KafkaSettings, counts: dict[str, int], log_: KafkaStateLog, meter: PrometheusMeter
) -> Workshop:
    """Return what partitions are made of."""
    topics = Topics(kafka.topic_prefix)
    routes = Routes(topics, counts[topics.dead_letters], pairs_as_json=settings.matches_as_json)

    def transactions(partition: int) -> ProducerTransactions:
        name = f"{settings.matcher_group}-{partition}"
        return ProducerTransactions(kafka, topics, routes, name, partition, settings.compression, counts[topics.legs])

    policy = Policy(
        settings.snapshot_threshold_bytes,
        settings.snapshot_chunk_bytes,
        PROGRESS_INTERVAL_S,
        settings.checkpoint_interval_s * 1000,
    )
    return Workshop(
        core=partial(Core, compiled=settings.compiled),
        transactions=transactions,
        log=log_,
        policy=policy,
        meter=meter,
        partitions=counts[topics.legs],
    )


def pace_of(settings: MatcherSettings) -> Pace:
    """Return how often to commit."""
    return Pace(
        settings.commit_interval_ms / 1000, settings.commit_interval_loaded_ms / 1000, settings.commits_per_second_max
    )


async def run(
    settings: MatcherSettings, kafka: KafkaSettings, stop: asyncio.Event, listener: socket.socket | None = None
) -> None:
    """Match until `stop` is set.

    Raises:
        TieoutError: one clear message and the exit code.
    """
    sock = listener or listen(settings.http_host, settings.http_port)
    health = Health([TOPICS])
    ops = asyncio.create_task(serve_ops(ops_app(health), settings.http_host, settings.http_port, sock))
    end_tracing = configure_tracing("matcher", settings)
    try:
        await wait_for_kafka(kafka)
        counts = await check_topics(kafka)
        await _run_worker(settings, kafka, counts, health, stop)
    except KafkaError as error:
        raise KafkaAway(f"Kafka at {kafka.bootstrap_servers} failed: {error!r}") from error
    finally:
        ops.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ops
        await asyncio.to_thread(end_tracing)


async def _run_worker(
    settings: MatcherSettings, kafka: KafkaSettings, counts: dict[str, int], health: Health, stop: asyncio.Event
) -> None:
    meter = PrometheusMeter()
    state_log = KafkaStateLog(kafka, Topics(kafka.topic_prefix), counts[Topics(kafka.topic_prefix).legs])
    reader = make_consumer(settings, kafka)
    ends = InputEnds(kafka, Topics(kafka.topic_prefix).legs)
    worker = Worker(
        reader,
        Topics(kafka.topic_prefix).legs,
        make_workshop(settings, kafka, counts, state_log, meter),
        pace_of(settings),
        settings.state_bytes_max,
        beat=lambda: health.heartbeat(POLL_LOOP),
        input_end=lambda number: ends.known.get(number, 0),
    )
    health.watch(POLL_LOOP)
    health.check(RESTORED, lambda: _trouble(worker.status()))
    health.set_ready(TOPICS)
    try:
        await state_log.start()
        await reader.start()
        log.info(
            "matcher started",
            group=settings.matcher_group,
            instance=settings.group_instance_id,
            core="compiled" if BUILT and settings.compiled else "Python",
        )
        await _first_to_end(
            worker.run(stop),
            Watchdog(settings.stall_timeout_s).run(worker.status),
            ends.run(worker.owned),
            _observe(worker, meter),
        )
        log.info("matcher stopped")
    finally:
        await reader.stop()
        await state_log.close()


async def _first_to_end(*parts: Coroutine[None, None, None]) -> None:
    """Run all parts until the first ends, and raise what it raised."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _observe(worker: Worker, meter: PrometheusMeter) -> None:
    while True:
        meter.observe(worker.status())
        await asyncio.sleep(OBSERVE_S)


def _trouble(status: Status) -> str | None:
    """Return why the matcher is not ready; None while it is."""
    if status.ready:
        return None
    waiting = sorted(one.number for one in status.partitions if not one.restored)
    return status.halted or (f"restoring partitions {waiting}" if status.joined else "waiting for the consumer group")

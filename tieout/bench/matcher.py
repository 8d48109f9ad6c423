"""`tieout bench matcher`: how many legs per second one matcher process matches, exactly once, on a real broker."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.matcher.adapters.metrics import PrometheusMeter
from services.matcher.adapters.state_log import KafkaStateLog
from services.matcher.app import check_topics, make_consumer, make_workshop, pace_of
from services.matcher.domain.compiled import BUILT
from services.matcher.handlers.worker import Worker
from services.matcher.settings import MatcherSettings
from shared.errors import TieoutError
from shared.kafka.client import admin
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import DEFAULT_PARTITIONS, Topics, apply_topics
from tieout.bench.harness import Result, own_kafka, pass_through, say
from tieout.bench.prepared_legs import prepared_legs, write

DEFAULT_EVENTS = 1_000_000
RUN_TIMEOUT_S = 150.0
LOOK_S = 0.02


class TooSlow(TieoutError):
    """The benchmark did not end in time."""


async def bench(events: int = DEFAULT_EVENTS, partitions: int = DEFAULT_PARTITIONS, kafka: str | None = None) -> Result:
    """Measure the limit, the matcher and the limit again over the same prepared legs."""
    async with broker(kafka) as settings:
        topics = Topics(settings.topic_prefix)
        await apply_topics(settings, partitions)
        await _copy_topics(settings, topics, partitions)
        say(f"preparing {events:,} legs in {partitions} partitions")
        records = await write(settings, topics.legs, prepared_legs(events, partitions), partitions)
        cpu = [time.process_time()]
        before = await pass_through(settings, topics.legs, topics.full("limit-1"), records)
        cpu.append(time.process_time())
        say(f"pass-through: {before:,.0f} records per second")
        matcher = MatcherSettings(group_instance_id=None)
        seconds = await match_all(matcher, settings, records)
        cpu.append(time.process_time())
        say(f"matcher: {records / seconds:,.0f} records per second")
        after = await pass_through(settings, topics.legs, topics.full("limit-2"), records)
        say(f"pass-through again: {after:,.0f} records per second")
    limit = (before + after) / 2
    return Result(
        benchmark="matcher",
        events=events,
        seconds=round(seconds, 3),
        events_per_second=round(records / seconds),
        limit_events_per_second=round(limit),
        ratio=round(records / seconds / limit, 3),
        cpu_us_per_event=round((cpu[2] - cpu[1]) / records * 1e6, 2),
        limit_cpu_us_per_event=round((cpu[1] - cpu[0]) / records * 1e6, 2),
        settings={
            "partitions": partitions,
            "processes": 1,
            "core": "compiled" if BUILT and matcher.compiled else "Python",
            "compression": matcher.compression,
            "commit_interval_ms": matcher.commit_interval_ms,
            "commit_interval_loaded_ms": matcher.commit_interval_loaded_ms,
            "commits_per_second_max": matcher.commits_per_second_max,
            "snapshot_threshold_bytes": matcher.snapshot_threshold_bytes,
        },
    )


@asynccontextmanager
async def broker(address: str | None) -> AsyncIterator[KafkaSettings]:
    """A broker of its own, or topics of a prefix of their own on the one at `address`."""
    if address is not None:
        yield KafkaSettings(bootstrap_servers=address, topic_prefix=f"bench-{time.time_ns()}.")
        return
    say("starting a broker")
    async with own_kafka() as settings:
        yield settings


async def _copy_topics(settings: KafkaSettings, topics: Topics, partitions: int) -> None:
    from aiokafka.admin import NewTopic

    client = admin(settings)
    await client.start()
    try:
        await client.create_topics([NewTopic(topics.full(name), partitions, 1) for name in ("limit-1", "limit-2")])
    finally:
        await client.close()


async def match_all(settings: MatcherSettings, kafka: KafkaSettings, records: int) -> float:
    """Return the seconds that `records` take, measured from the last restore to the last commit.

    Joining the group and restoring nothing are not counted, nor what was matched meanwhile.

    Raises:
        TooSlow: not done within `RUN_TIMEOUT_S`.
    """
    meter = PrometheusMeter()
    log = KafkaStateLog(kafka, Topics(kafka.topic_prefix))
    reader = make_consumer(settings, kafka)
    workshop = make_workshop(settings, kafka, await check_topics(kafka), log, meter)
    worker = Worker(reader, Topics(kafka.topic_prefix).legs, workshop, pace_of(settings), settings.state_bytes_max)
    stop = asyncio.Event()
    await log.start()
    await reader.start()
    run = asyncio.create_task(worker.run(stop))
    try:
        async with asyncio.timeout(RUN_TIMEOUT_S):
            await _restored(worker, run)
            begun, done_before = time.perf_counter(), worker.committed_records
            while worker.committed_records < records and not run.done():  # noqa: ASYNC110 - seen from outside
                await asyncio.sleep(LOOK_S)
        seconds = (time.perf_counter() - begun) * records / (records - done_before)
        stop.set()
        await run
    except TimeoutError:
        raise TooSlow(
            f"{worker.committed_records:,} of {records:,} records after {RUN_TIMEOUT_S:g} s: use fewer --events"
        ) from None
    else:
        return seconds
    finally:
        run.cancel()
        with contextlib.suppress(asyncio.CancelledError, TieoutError):
            await run
        await reader.stop()
        await log.close()


async def _restored(worker: Worker, run: "asyncio.Task[None]") -> None:
    while not worker.status().ready and not run.done():  # noqa: ASYNC110 - seen from outside
        await asyncio.sleep(0.001)

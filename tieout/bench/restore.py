"""`tieout bench restore`: how many items per second one matcher process restores from a real broker, and how smoothly."""

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from aiokafka import TopicPartition

from services.matcher.adapters.reader import opened
from services.matcher.adapters.state_format import encode_slice
from services.matcher.adapters.state_log import POLL_MS, READ_RECORDS_MAX, KafkaStateLog
from services.matcher.domain.core import Core
from services.matcher.handlers.assignment import RESTORES_MAX
from services.matcher.handlers.worker import GC_THRESHOLDS
from services.matcher.settings import MatcherSettings
from services.matcher.use_cases.partition import Policy
from services.matcher.use_cases.restore import restore
from shared.contracts.leg import decode_leg_record
from shared.kafka.client import producer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics, apply_topics
from tieout.bench.harness import machine_facts, say, versions_used
from tieout.bench.matcher import broker
from tieout.bench.prepared_legs import rule_and_ticks, settled_and_waiting

TICK_S = 0.001
"""How often the event loop is looked at: a stall is what one look comes too late."""


@dataclass(frozen=True, slots=True)
class Restored:
    """The outcome. `ratio` is what to compare between machines."""

    benchmark: str
    items: int
    state_bytes: int
    """Of the records in the topic, before compression."""
    seconds: float
    items_per_second: float
    limit_items_per_second: float
    """The same records read, and not looked at."""
    ratio: float
    cpu_us_per_item: float
    longest_stall_s: float
    """Of the event loop, on which heartbeats run."""
    settings: dict[str, Any]
    versions: dict[str, str] = field(default_factory=versions_used)
    machine: dict[str, Any] = field(default_factory=machine_facts)


async def bench(items: int, partitions: int, kafka: str | None = None) -> Restored:
    """Write a state of `items`, half of them open, read it as it is, and restore it."""
    matcher = MatcherSettings(group_instance_id=None)
    async with broker(kafka) as settings:
        await apply_topics(settings, partitions)
        say(f"preparing {items:,} items in {partitions} partitions")
        state_bytes = await _write_state(settings, items // partitions, partitions, matcher)
        items -= items % partitions
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        limit_s = await _read_all(settings, partitions)
        say(f"read only: {items / limit_s:,.0f} items per second")
        cpu_s, begun = time.process_time(), time.perf_counter()
        async with _stalls() as stalls:
            held = await _restore_all(settings, partitions, matcher)
        seconds, cpu_s = time.perf_counter() - begun, time.process_time() - cpu_s
    assert held == items, f"{held} items were restored, {items} were written"
    return Restored(
        benchmark="restore",
        items=items,
        state_bytes=state_bytes,
        seconds=round(seconds, 3),
        items_per_second=round(items / seconds),
        limit_items_per_second=round(items / limit_s),
        ratio=round(limit_s / seconds, 3),
        cpu_us_per_item=round(cpu_s / items * 1e6, 2),
        longest_stall_s=round(max(stalls), 3),
        settings={"partitions": partitions, "at_a_time": RESTORES_MAX, "compression": matcher.compression},
    )


async def _write_state(kafka: KafkaSettings, items: int, partitions: int, matcher: MatcherSettings) -> int:
    topic, state_bytes = Topics(kafka.topic_prefix).matcher_state, 0
    sender = producer(kafka, compression_type=None if matcher.compression == "none" else matcher.compression)
    await sender.start()
    try:
        for number in range(partitions):
            for value in _state_records(number, items, matcher.snapshot_chunk_bytes):
                await sender.send_and_wait(topic, value, partition=number)
                state_bytes += len(value)
        return state_bytes
    finally:
        await sender.stop()


def _state_records(number: int, items: int, chunk_bytes: int) -> list[bytes]:
    """Return a whole snapshot of a partition as records of its state topic."""
    core = Core(number)
    log = [(b"", value) for value in rule_and_ticks()]
    log += settled_and_waiting(items // 2, items - items // 2)
    for offset, (key, value) in enumerate(log):
        core.apply(key, decode_leg_record(value), offset, value)
    core.take()
    entries = list(core.snapshot())
    size = max(1, chunk_bytes * len(entries) // sum(len(key) + len(value) for key, value in entries))
    starts = range(0, len(entries), size)
    return [
        record
        for start in starts
        for record in encode_slice(len(log), entries[start : start + size], first=start == 0, last=start == starts[-1])
    ]


async def _read_all(kafka: KafkaSettings, partitions: int) -> float:
    """Return the seconds that the state's records take to be read, one partition after the other."""
    topic = Topics(kafka.topic_prefix).matcher_state
    begun = time.perf_counter()
    for number in range(partitions):
        place = TopicPartition(topic, number)
        async with opened(kafka, max_partition_fetch_bytes=8_000_000) as reader:
            reader.assign([place])
            end = (await reader.end_offsets([place]))[place]
            reader.seek(place, 0)
            while await reader.position(place) < end:
                await reader.getmany(place, timeout_ms=POLL_MS, max_records=READ_RECORDS_MAX)
    return time.perf_counter() - begun


async def _restore_all(kafka: KafkaSettings, partitions: int, matcher: MatcherSettings) -> int:
    """Restore every partition as an assignment does; return how many items are held then."""
    log = KafkaStateLog(kafka, Topics(kafka.topic_prefix))
    policy = Policy(matcher.snapshot_threshold_bytes, matcher.snapshot_chunk_bytes, 1.0)
    turns = asyncio.Semaphore(RESTORES_MAX)
    cores = [Core(number) for number in range(partitions)]

    async def restored(core: Core) -> None:
        async with turns:
            await restore(core.partition, core, log, policy)

    await asyncio.gather(*map(restored, cores))
    return sum(core.open_items + core.settled_items for core in cores)


@asynccontextmanager
async def _stalls() -> AsyncIterator[list[float]]:
    """Note by how much each look at the event loop came too late, in seconds."""
    late = [0.0]

    async def look() -> None:
        while True:
            due = time.perf_counter() + TICK_S
            await asyncio.sleep(TICK_S)
            late[0] = max(late[0], time.perf_counter() - due)

    task = asyncio.create_task(look())
    try:
        yield late
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def show(result: Restored, *, as_json: bool) -> None:
    """Print a table, or one JSON object last."""
    if as_json:
        print(json.dumps(asdict(result)), flush=True)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title="bench restore", show_header=False)
    table.add_row("items", f"{result.items:,}, {result.state_bytes / 1e6:,.0f} MB of state")
    table.add_row("items per second", f"{result.items_per_second:,.0f}")
    table.add_row("read only, same run", f"{result.limit_items_per_second:,.0f}")
    table.add_row("ratio", f"{result.ratio:.2f}")
    table.add_row("CPU of this process per item", f"{result.cpu_us_per_item:.2f} us")
    table.add_row("longest stall of the event loop", f"{result.longest_stall_s * 1000:.0f} ms")
    for title, facts in (("settings", result.settings), ("versions", result.versions), ("machine", result.machine)):
        table.add_row(title, ", ".join(f"{name} {value}" for name, value in facts.items()))
    Console().print(table)

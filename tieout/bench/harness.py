"""What benchmarks share: a broker of their own, the pass-through limit, facts about the machine, the printed result."""

import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

from aiokafka import TopicPartition

from shared.kafka.client import BULK_FETCH, await_sent, consumer, producer
from shared.kafka.settings import KafkaSettings
from tieout.local.kafka_jvm import JvmKafka, kafka_version

COMMIT_EVERY_S = 0.1
POLL_RECORDS_MAX = 4_000
LIBRARIES = ("tieout", "aiokafka", "msgspec")


def versions_used() -> dict[str, str]:
    """Versions of what was measured."""
    found = {name: version(name) for name in LIBRARIES}
    return {"python": platform.python_version(), "kafka": kafka_version(), **found}


def machine_facts() -> dict[str, Any]:
    """What it ran on; a load above zero at the start says that others ran as well."""
    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "load_before": round(os.getloadavg()[0], 2),
    }


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one benchmark. `ratio` is what to compare: figures drift with the machine, ratios do not."""

    benchmark: str
    events: int
    seconds: float
    events_per_second: float
    limit_events_per_second: float
    ratio: float
    settings: dict[str, Any]
    versions: dict[str, str] = field(default_factory=versions_used)
    machine: dict[str, Any] = field(default_factory=machine_facts)
    cpu_us_per_event: float | None = None
    """CPU of this process alone, where it was measured: tells on a machine where others run as well."""
    limit_cpu_us_per_event: float | None = None


@asynccontextmanager
async def own_kafka(topic_prefix: str = "bench.") -> AsyncIterator[KafkaSettings]:
    """A fresh JVM broker for one benchmark; it and its data end with it."""
    broker = await asyncio.to_thread(JvmKafka().start)
    try:
        yield KafkaSettings(bootstrap_servers=broker.bootstrap_servers, topic_prefix=topic_prefix)
    finally:
        await asyncio.to_thread(broker.close)


async def pass_through(kafka: KafkaSettings, source: str, target: str, records: int) -> float:
    """Return the records per second of the least that a worker can do: read, copy, a transaction every 100 ms."""
    reader = consumer(kafka, auto_offset_reset="none", **BULK_FETCH)  # type: ignore[arg-type] # two of its overrides
    writer = producer(kafka, transactional_id=f"{target}-limit")
    await reader.start()
    await writer.start()
    try:
        partitions = await reader._client._wait_on_metadata(source)  # noqa: SLF001 - the client's own way to wait
        places = [TopicPartition(source, number) for number in sorted(partitions)]
        reader.assign(places)
        for place in places:
            reader.seek(place, 0)
        begun = time.perf_counter()
        await _copy(reader, writer, target, records)
        return records / (time.perf_counter() - begun)
    finally:
        await reader.stop()
        await writer.stop()


async def _copy(reader: Any, writer: Any, target: str, records: int) -> None:
    copied = 0
    sent: list[Any] = []
    await writer.begin_transaction()
    committed = time.perf_counter()
    while copied < records:
        found = await reader.getmany(timeout_ms=100, max_records=POLL_RECORDS_MAX)
        for place, batch in found.items():
            sent += await _send_all(writer, target, place.partition, batch)
            copied += len(batch)
        if time.perf_counter() - committed < COMMIT_EVERY_S and copied < records:
            continue
        await await_sent(sent)
        await writer.commit_transaction()
        sent, committed = [], time.perf_counter()
        if copied < records:
            await writer.begin_transaction()


async def _send_all(writer: Any, target: str, number: int, batch: list[Any]) -> list[Any]:
    sent = []
    builder = writer.create_batch()
    for record in batch:
        if builder.append(key=record.key, value=record.value, timestamp=None) is None:
            sent.append(await writer.send_batch(builder, target, partition=number))
            builder = writer.create_batch()
            builder.append(key=record.key, value=record.value, timestamp=None)
    sent.append(await writer.send_batch(builder, target, partition=number))
    return sent


def show(result: Result, *, as_json: bool) -> None:
    """Print a table, or progress on stderr and one JSON object last."""
    if as_json:
        print(json.dumps(asdict(result)), flush=True)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"bench {result.benchmark}", show_header=False)
    table.add_row("events", f"{result.events:,}")
    table.add_row("events per second", f"{result.events_per_second:,.0f}")
    table.add_row("pass-through limit, same run", f"{result.limit_events_per_second:,.0f}")
    table.add_row("ratio", f"{result.ratio:.2f}")
    if result.cpu_us_per_event is not None:
        cpu = f"{result.cpu_us_per_event:.1f} us, limit {result.limit_cpu_us_per_event:.1f} us"
        table.add_row("CPU of this process per event", cpu)
    for title, facts in (("settings", result.settings), ("versions", result.versions), ("machine", result.machine)):
        table.add_row(title, ", ".join(f"{name} {value}" for name, value in facts.items()))
    Console().print(table)


def say(text: str) -> None:
    """Tell what goes on, on stderr: stdout holds the result."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()

"""`tieout bench sink`: how many result rows per second one sink stores, on a real broker and PostgreSQL."""

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any, NamedTuple

import asyncpg

from services.alerts.adapters.database import Database, migrate
from services.alerts.adapters.sink_store import PostgresSink
from services.alerts.handlers.sink import SinkLoop, calm_collector
from services.alerts.ports.sink import Batch as SinkBatch
from services.alerts.settings import AlertsSettings
from services.alerts.use_cases.sink import store
from services.matcher.adapters.results import Result as Written
from services.matcher.adapters.results import discrepancy_results, in_json, item_results
from services.matcher.domain.core import Core
from services.matcher.ports import Batch
from services.matcher.settings import MatcherSettings
from shared.contracts.leg import decode_leg_record
from shared.contracts.matched_pair import read_item
from shared.errors import TieoutError
from shared.kafka.client import await_sent, producer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import DEFAULT_PARTITIONS, Topics, apply_topics
from shared.settings import load_settings
from shared.telemetry.health import Health
from tieout.bench.harness import Result, own_kafka, pass_through, say
from tieout.bench.prepared_legs import prepared_legs
from tieout.local.postgres import LocalPostgres

DEFAULT_ROWS = 100_000
DISCREPANT_PERCENT_DEFAULT = 2
"""Of the items; each has a discrepancy beside it. A healthy flow: more would be faster, for items are the larger rows."""
RUN_TIMEOUT_S = 180.0
LOOK_S = 0.02

_Record = tuple[int, bytes | None, bytes, list[tuple[str, bytes]]]
"""Partition, key, value and headers."""


class TooSlow(TieoutError):
    """The benchmark did not end in time."""


async def bench(
    rows: int = DEFAULT_ROWS, discrepant_percent: int = DISCREPANT_PERCENT_DEFAULT, *, matches_as_json: bool = False
) -> Result:
    """Measure the pass-through limit over what a matcher published to `matches`, then the sink over all it published."""
    with LocalPostgres() as postgres:
        async with own_kafka() as kafka:
            topics = Topics(kafka.topic_prefix)
            await apply_topics(kafka)
            items, discrepancies = published(rows, discrepant_percent, matches_as_json=matches_as_json)
            say(f"preparing {len(items):,} items and {len(discrepancies):,} discrepancies")
            await _fill(kafka, topics.matches, items)
            await _fill(kafka, topics.discrepancies, discrepancies)
            before = time.process_time()
            limit = await pass_through(kafka, topics.matches, topics.legs, len(items))
            limit_cpu_s = time.process_time() - before
            say(f"pass-through: {limit:,.0f} records per second")
            copied = await plain_copy(postgres.dsn(), items)
            say(f"plain COPY: {copied:,.0f} rows per second")
            await migrate(postgres.url())
            stored = len(items) + len(discrepancies)
            before = time.process_time()
            seconds, batch_rows = await store_all(kafka, postgres.url(), stored)
            cpu_s = time.process_time() - before
    return Result(
        benchmark="sink",
        events=stored,
        seconds=round(seconds, 3),
        events_per_second=round(stored / seconds),
        limit_events_per_second=round(limit),
        ratio=round(stored / seconds / limit, 3),
        settings={
            "partitions": DEFAULT_PARTITIONS,
            "processes": 1,
            "batch_records_max": batch_rows,
            "discrepant_percent": discrepant_percent,
            "matches": "JSON" if matches_as_json else "pairs as their legs",
            "compression": load_settings(MatcherSettings).compression,
            "postgres": "the wheel, fsync on, same machine",
            "plain_copy_rows_per_second": round(copied),
            "ratio_to_plain_copy": round(stored / seconds / copied, 3),
        },
        cpu_us_per_event=round(cpu_s / stored * 1e6, 1),
        limit_cpu_us_per_event=round(limit_cpu_s / len(items) * 1e6, 1),
    )


async def plain_copy(dsn: str, items: Sequence[_Record]) -> float:
    """Return rows per second of the least that PostgreSQL can do with the items: COPY their JSON, index nothing.

    The table is logged as any other, and a transaction is as large as a batch of the sink.
    """
    values = [(read_item(value).id, in_json(value).decode()) for _, _, value, _ in items]
    batch_rows = load_settings(AlertsSettings).sink_batch_records_max
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("CREATE TABLE plain_copy (id uuid, item json)")
        begun = time.perf_counter()
        for at in range(0, len(values), batch_rows):
            await connection.copy_records_to_table("plain_copy", records=values[at : at + batch_rows])
        seconds = time.perf_counter() - begun
        await connection.execute("DROP TABLE plain_copy")
    finally:
        await connection.close()
    return len(values) / seconds


async def store_all(kafka: KafkaSettings, url: str, rows: int) -> tuple[float, int]:
    """Return the seconds from the first batch to the last row stored, in proportion to all rows; and the batch size.

    Raises:
        TooSlow: not done within `RUN_TIMEOUT_S`.
    """
    settings = load_settings(AlertsSettings)
    database = Database(url)
    sink = PostgresSink(database)
    done = 0

    async def counted(batch: SinkBatch) -> None:
        nonlocal done
        await store(sink, batch, datetime.now(UTC))
        done += len(batch.items) + len(batch.discrepancies)

    loop = SinkLoop(
        kafka, sink, counted, Health(["sink"]), group="bench", batch_records_max=settings.sink_batch_records_max
    )
    calm_collector()
    run = asyncio.create_task(loop.run())
    try:
        async with asyncio.timeout(RUN_TIMEOUT_S):
            while not done and not run.done():  # noqa: ASYNC110 - seen from outside
                await asyncio.sleep(0.001)
            begun, before = time.perf_counter(), done
            while done < rows and not run.done():  # noqa: ASYNC110 - as above
                await asyncio.sleep(LOOK_S)
        return (time.perf_counter() - begun) * rows / (rows - before), settings.sink_batch_records_max
    except TimeoutError:
        raise TooSlow(f"{done:,} of {rows:,} rows after {RUN_TIMEOUT_S:g} s") from None
    finally:
        run.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await run
        await database.close()


class Published(NamedTuple):
    """What a matcher publishes, by topic."""

    matches: list[_Record]
    discrepancies: list[_Record]


def published(rows: int, discrepant_percent: int, *, matches_as_json: bool) -> Published:
    """Return what the matcher's own code makes of prepared payments, `rows` results or one more."""
    cores = [Core(number) for number in range(DEFAULT_PARTITIONS)]
    offsets = [count() for _ in cores]
    told = Published([], [])
    legs = prepared_legs(sys.maxsize, DEFAULT_PARTITIONS, mismatched=discrepant_percent / 100, missing=0)
    for number, key, value in legs:
        cores[number].apply(key or b"", decode_leg_record(value), next(offsets[number]), value)
        changes = cores[number].take()
        if not changes.items:
            continue
        batch = Batch(number, 0, 1, changes)
        told.matches.extend(_records(number, item_results(batch, pairs_as_json=matches_as_json)))
        told.discrepancies.extend(_records(number, discrepancy_results(batch)))
        if len(told.matches) + len(told.discrepancies) >= rows:
            break
    return told


def _records(number: int, results: Iterable[Written]) -> Iterator[_Record]:
    return ((number, key, value, headers) for key, value, headers in results)


async def _fill(kafka: KafkaSettings, topic: str, records: Sequence[_Record]) -> None:
    compression = load_settings(MatcherSettings).compression
    sender = producer(kafka, compression_type=None if compression == "none" else compression)
    await sender.start()
    try:
        await await_sent([await sending for sending in _sends(sender, topic, records)])
    finally:
        await sender.stop()


def _sends(sender: Any, topic: str, records: Sequence[_Record]) -> Iterator[Any]:
    batches = {number: sender.create_batch() for number in range(DEFAULT_PARTITIONS)}
    for number, key, value, headers in records:
        if batches[number].append(timestamp=None, key=key, value=value, headers=headers) is None:
            yield sender.send_batch(batches[number], topic, partition=number)
            batches[number] = sender.create_batch()
            batches[number].append(timestamp=None, key=key, value=value, headers=headers)
    for number, batch in batches.items():
        yield sender.send_batch(batch, topic, partition=number)

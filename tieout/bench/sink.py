"""`tieout bench sink`: how many result rows per second one sink stores, on a real broker and PostgreSQL."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec

from services.alerts.adapters.database import Database, migrate
from services.alerts.adapters.sink_store import PostgresSink
from services.alerts.handlers.sink import SinkLoop, calm_collector
from services.alerts.ports.sink import Batch
from services.alerts.settings import AlertsSettings
from services.alerts.use_cases.sink import store
from shared.contracts.discrepancy import Discrepancy, LogPosition, RecordEvidence, SideEvidence
from shared.contracts.item import Item, ItemDiscrepancy, ItemSide
from shared.errors import TieoutError
from shared.ids import NAMESPACE
from shared.kafka.client import await_sent, producer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import DEFAULT_PARTITIONS, Topics, apply_topics
from shared.settings import load_settings
from shared.telemetry.health import Health
from tieout.bench.harness import Result, own_kafka, pass_through, say
from tieout.local.postgres import LocalPostgres

DEFAULT_ROWS = 100_000
DISCREPANT_PERCENT_DEFAULT = 2
"""Of the items; each has a discrepancy beside it. A healthy flow: more would be faster, for items are the larger rows."""
RUN_TIMEOUT_S = 180.0
LOOK_S = 0.02
_NOW = datetime(2026, 11, 20, tzinfo=UTC)


class TooSlow(TieoutError):
    """The benchmark did not end in time."""


async def bench(rows: int = DEFAULT_ROWS, discrepant_percent: int = DISCREPANT_PERCENT_DEFAULT) -> Result:
    """Measure the pass-through limit over prepared items, then the sink over items and discrepancies."""
    with LocalPostgres() as postgres:
        async with own_kafka() as kafka:
            topics = Topics(kafka.topic_prefix)
            await apply_topics(kafka)
            items, discrepancies = _prepared(rows, discrepant_percent)
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
            "postgres": "the wheel, fsync on, same machine",
            "plain_copy_rows_per_second": round(copied),
            "ratio_to_plain_copy": round(stored / seconds / copied, 3),
        },
        cpu_us_per_event=round(cpu_s / stored * 1e6, 1),
        limit_cpu_us_per_event=round(limit_cpu_s / len(items) * 1e6, 1),
    )


async def plain_copy(dsn: str, rows: Sequence["_Row"]) -> float:
    """Return rows per second of the least that PostgreSQL can do with the items: COPY their text, index nothing.

    The table is logged as any other, and a transaction is as large as a batch of the sink.
    """
    values = [(key.decode(), value.decode()) for _, key, value in rows]
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

    async def counted(batch: Batch) -> None:
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


_Row = tuple[int, bytes, bytes]
"""Partition, key, value."""


def _prepared(rows: int, discrepant_percent: int) -> tuple[list[_Row], list[_Row]]:
    items: list[_Row] = []
    discrepancies: list[_Row] = []
    for number in range(rows * 100 // (100 + discrepant_percent)):
        log = LogPosition(partition=number % DEFAULT_PARTITIONS, offset=number, time=_NOW + timedelta(seconds=number))
        found = _discrepancy(number, log) if number % 100 < discrepant_percent else None
        item = _item(number, log, found)
        items.append((log.partition, item.id.encode(), msgspec.json.encode(item)))
        if found is not None:
            discrepancies.append((log.partition, found.id.encode(), msgspec.json.encode(found)))
    return items, discrepancies


def _id(kind: str, number: int) -> str:
    return str(uuid.uuid5(NAMESPACE, f"bench {kind} {number}"))


def _record(number: int, source: str, amount: str) -> dict[str, Any]:
    return {
        "id": f"evt_{source}_{number}",
        "source": source,
        "record": f"{source}_{number}",
        "amount": amount,
        "currency": "EUR",
        "status": "succeeded",
        "occurred_at": _NOW,
    }


def _amounts(found: Discrepancy | None) -> tuple[str, str]:
    return "120.50", "120.50" if found is None else "120.00"


def _item(number: int, log: LogPosition, found: Discrepancy | None) -> Item:
    sides: dict[str, ItemSide | None] = {
        side: ItemSide(records=[RecordEvidence(**_record(number, source, amount))])
        for side, source, amount in zip(("internal", "provider"), ("ledger", "stripe"), _amounts(found), strict=True)
    }
    raised = [] if found is None else [_raised(found)]
    return Item(
        id=_id("item", number),
        revision=1,
        status="discrepant" if raised else "matched",
        org="bench",
        rule="billing.payments",
        pack="billing",
        key=f"pay_{number}",
        sides=sides,
        discrepancies=raised,
        at=_NOW,
        occurred_at=_NOW,
        live=True,
        log=log,
    )


def _raised(found: Discrepancy) -> ItemDiscrepancy:
    return ItemDiscrepancy(
        id=found.id, type=found.type, side=found.side, difference=found.difference, currency=found.currency
    )


def _discrepancy(number: int, log: LogPosition) -> Discrepancy:
    expected, actual = "120.50", "120.00"
    return Discrepancy(
        id=_id("discrepancy", number),
        revision=1,
        state="raised",
        org="bench",
        rule="billing.payments",
        pack="billing",
        type="AmountMismatch",
        severity="medium",
        key=f"pay_{number}",
        side=None,
        account=None,
        sides={
            "internal": SideEvidence(**_record(number, "ledger", expected)),
            "provider": SideEvidence(**_record(number, "stripe", actual)),
        },
        duplicate=None,
        expected=expected,
        actual=actual,
        difference="-0.50",
        currency="EUR",
        raised_at=log.time,
        resolved_at=None,
        resolution=None,
        expired=False,
        explanation="internal has 120.50 EUR, provider has 120.00 EUR: 0.50 EUR less than expected.",
        log=log,
    )


async def _fill(kafka: KafkaSettings, topic: str, rows: Sequence[_Row]) -> None:
    sender = producer(kafka)
    await sender.start()
    try:
        await await_sent([await sending for sending in _sends(sender, topic, rows)])
    finally:
        await sender.stop()


def _sends(sender: Any, topic: str, rows: Sequence[_Row]) -> Iterator[Any]:
    batches = {number: sender.create_batch() for number in range(DEFAULT_PARTITIONS)}
    for number, key, value in rows:
        if batches[number].append(timestamp=None, key=key, value=value) is None:
            yield sender.send_batch(batches[number], topic, partition=number)
            batches[number] = sender.create_batch()
            batches[number].append(timestamp=None, key=key, value=value)
    for number, batch in batches.items():
        yield sender.send_batch(batch, topic, partition=number)

"""`tieout bench normaliser`: how many inbox records per second one normaliser process maps, on a real broker."""

import asyncio
import contextlib
import gc
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.ingest.app import GC_THRESHOLD
from services.ingest.domain.normalise import Normaliser
from services.ingest.domain.providers import MappingOptions
from services.ingest.domain.rule_book import RuleBook
from services.ingest.handlers.normaliser import CONDITION, NormaliserLoop, Parts
from services.ingest.settings import IngestSettings
from shared.contracts.inbox import InboxRecord, RowReceived, WebhookReceived, encode_inbox
from shared.contracts.rule_set import RuleSetRecord
from shared.errors import TieoutError
from shared.ids import canonical
from shared.kafka.client import await_sent, producer
from shared.kafka.partitioner import partition_of
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import DEFAULT_INBOX_PARTITIONS, DEFAULT_PARTITIONS, Topics, apply_topics
from shared.rules.generation import specification
from shared.rules.load import load_rules
from shared.telemetry.health import Health
from tieout.bench.harness import Result, own_kafka, pass_through, say

DEFAULT_EVENTS = 200_000
BILLING = Path(__file__).parents[2] / "shared/packs/billing/rules.yaml"
ORG = "bench"
RUN_TIMEOUT_S = 150.0
LOOK_S = 0.02


class TooSlow(TieoutError):
    """The benchmark did not end in time."""


async def bench(events: int = DEFAULT_EVENTS, webhooks_percent: int = 50) -> Result:
    """Measure the pass-through limit over a prepared inbox, then the normaliser over the same records."""
    async with own_kafka() as kafka:
        topics = Topics(kafka.topic_prefix)
        await apply_topics(kafka)
        say(f"preparing {events:,} inbox records, {webhooks_percent} % of them Stripe webhooks")
        await _fill(kafka, topics.inbox, _records(events, webhooks_percent))
        # As the service does once it has started.
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        limit_begun_s = time.process_time()
        limit = await pass_through(kafka, topics.inbox, topics.checks, events)
        limit_cpu_s = time.process_time() - limit_begun_s
        say(f"pass-through: {limit:,.0f} records per second")
        begun_s = time.process_time()
        seconds = await normalise_all(kafka, events)
        cpu_s = time.process_time() - begun_s
    return Result(
        benchmark="normaliser",
        events=events,
        seconds=round(seconds, 3),
        events_per_second=round(events / seconds),
        limit_events_per_second=round(limit),
        ratio=round(events / seconds / limit, 3),
        settings={
            "partitions": DEFAULT_PARTITIONS,
            "inbox_partitions": DEFAULT_INBOX_PARTITIONS,
            "processes": 1,
            "webhooks_percent": webhooks_percent,
            "rules": "billing",
        },
        cpu_us_per_event=round(cpu_s / events * 1e6, 2),
        limit_cpu_us_per_event=round(limit_cpu_s / events * 1e6, 2),
    )


async def normalise_all(kafka: KafkaSettings, records: int) -> float:
    """Return the seconds from the first acknowledged round to the last, in proportion to all `records`.

    Raises:
        TooSlow: not done within `RUN_TIMEOUT_S`.
    """
    book = RuleBook()
    book.apply(ORG, "billing", _billing(), 0)
    loop = NormaliserLoop(
        Parts(
            IngestSettings(group_instance_id=None),
            kafka,
            book,
            Normaliser(book, lambda _org, _source: MappingOptions()),
            lambda: None,
            Health([CONDITION]),
        )
    )
    run = asyncio.create_task(loop.run())
    try:
        async with asyncio.timeout(RUN_TIMEOUT_S):
            while not loop.records_done and not run.done():  # noqa: ASYNC110 - seen from outside
                await asyncio.sleep(0.001)
            begun, before = time.perf_counter(), loop.records_done
            while loop.records_done < records and not run.done():  # noqa: ASYNC110 - as above
                await asyncio.sleep(LOOK_S)
        seconds = (time.perf_counter() - begun) * records / (records - before)
        loop.stop()
        await run
    except TimeoutError:
        raise TooSlow(f"{loop.records_done:,} of {records:,} records after {RUN_TIMEOUT_S:g} s") from None
    finally:
        run.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await run
    return seconds


def _billing() -> RuleSetRecord:
    file = load_rules(BILLING)
    return RuleSetRecord(
        version=1,
        org=ORG,
        pack=file.pack,
        rules=[specification(rule) for rule in file.rules],
        applied_at=datetime.now(UTC),
        applied_by="bench",
    )


def _records(events: int, webhooks_percent: int) -> Iterator[tuple[bytes, InboxRecord]]:
    now = datetime.now(UTC)
    for number in range(events):
        if number % 100 < webhooks_percent:
            yield canonical([ORG, "stripe", f"evt_{number}"]), _webhook(number, int(now.timestamp()))
        else:
            row = json.dumps(_row(number, now.isoformat())).encode()
            yield canonical([ORG, "ledger", f"pay_{number}"]), RowReceived(org=ORG, row=row)


def _row(number: int, now: str) -> dict[str, Any]:
    return {
        "source": "ledger",
        "type": "payment.succeeded",
        "id": f"evt_{number}",
        "record": f"pay_{number}",
        "occurred_at": now,
        "amount": "120.50",
        "currency": "EUR",
        "status": "succeeded",
        "account": f"customer:{number % 1000}",
        "refs": {"payment_id": f"pay_{number}", "invoice": f"INV-{number}"},
    }


def _webhook(number: int, now: int) -> WebhookReceived:
    intent = {
        "id": f"pi_{number}",
        "object": "payment_intent",
        "amount": 12050,
        "amount_received": 12050,
        "currency": "eur",
        "customer": f"cus_{number % 1000}",
        "metadata": {"payment_id": f"pay_{number}"},
        "payment_method_types": ["card"],
        "status": "succeeded",
        "description": "Order of the benchmark",
        "latest_charge": f"ch_{number}",
    }
    body = {
        "id": f"evt_{number}",
        "object": "event",
        "created": now,
        "type": "payment_intent.succeeded",
        "livemode": True,
        "data": {"object": intent},
    }
    return WebhookReceived(
        org=ORG,
        source="stripe",
        provider="stripe",
        delivery_id=f"evt_{number}",
        body=json.dumps(body).encode(),
        verdict="verified stripe v1",
    )


async def _fill(kafka: KafkaSettings, topic: str, records: Iterator[tuple[bytes, InboxRecord]]) -> None:
    sender = producer(kafka)
    await sender.start()
    try:
        open_batches = {number: sender.create_batch() for number in range(DEFAULT_INBOX_PARTITIONS)}
        sent = []
        for key, record in records:
            number = partition_of(key, DEFAULT_INBOX_PARTITIONS)
            value = encode_inbox(record)
            if open_batches[number].append(timestamp=None, key=key, value=value) is None:
                sent.append(await sender.send_batch(open_batches[number], topic, partition=number))
                open_batches[number] = sender.create_batch()
                open_batches[number].append(timestamp=None, key=key, value=value)
        for number, batch in open_batches.items():
            sent.append(await sender.send_batch(batch, topic, partition=number))
        await await_sent(sent)
    finally:
        await sender.stop()

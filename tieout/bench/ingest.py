"""`tieout bench ingest`: single signed webhooks per second, and rows per second in requests of 1,000, over HTTP.

One ingest process that takes requests only; every answer counts that says 200 or 202, so every record is acknowledged
by Kafka. The client runs on the same machine and takes its share of it.
"""

import asyncio
import hashlib
import hmac
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from shared.contracts.directory import DirectoryEntry, KeyEntry, OrgEntry, SourceEntry, directory_key, encode_entry
from shared.kafka.client import producer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics, apply_topics
from tieout.bench.connections import Connections, NotAnswered, connections, http_post
from tieout.bench.harness import machine_facts, own_kafka, say, versions_used
from tieout.bench.one_service import running

ORG = "bench"
KEY = "tk_bench_" + "0" * 24
SECRET = "whsec_bench"  # noqa: S105 - of a process that lives for this benchmark
CONNECTIONS = 32
ROWS_PER_REQUEST = 1_000


@dataclass(frozen=True, slots=True)
class HttpResult:
    """What one ingest process took in."""

    benchmark: str
    webhooks_per_second: float
    webhook_ms_p50: float
    webhook_ms_p99: float
    rows_per_second: float
    request_ms_p50: float
    settings: dict[str, Any]
    versions: dict[str, str] = field(default_factory=versions_used)
    machine: dict[str, Any] = field(default_factory=machine_facts)


async def bench(webhooks: int = 10_000, requests: int = 50) -> HttpResult:
    """Send single webhooks over keep-alive connections, then requests of 1,000 rows."""
    async with own_kafka() as kafka:
        await apply_topics(kafka)
        await _publish_directory(kafka)
        given = {"TIEOUT_INGEST_ROLE": "http", f"TIEOUT_WEBHOOK_SECRET__{ORG.upper()}__STRIPE": SECRET}
        async with running("ingest", kafka, **given) as (_, port):
            say(f"{webhooks:,} webhooks over {CONNECTIONS} connections")
            seconds, times_ms = await _send(port, _webhooks(webhooks), CONNECTIONS, 200)
            say(f"{webhooks / seconds:,.0f} webhooks per second")
            batch_seconds, batch_ms = await _send(port, _requests(requests), 4, 202)
            say(f"{requests * ROWS_PER_REQUEST / batch_seconds:,.0f} rows per second")
    return HttpResult(
        benchmark="ingest",
        webhooks_per_second=round(webhooks / seconds),
        webhook_ms_p50=round(statistics.median(times_ms), 2),
        webhook_ms_p99=round(statistics.quantiles(times_ms, n=100)[98], 2),
        rows_per_second=round(requests * ROWS_PER_REQUEST / batch_seconds),
        request_ms_p50=round(statistics.median(batch_ms), 2),
        settings={"connections": CONNECTIONS, "rows_per_request": ROWS_PER_REQUEST, "processes": 1},
    )


async def _publish_directory(kafka: KafkaSettings) -> None:
    entries: tuple[DirectoryEntry, ...] = (
        OrgEntry(org=ORG),
        SourceEntry(org=ORG, source="stripe", provider="stripe"),
        KeyEntry(
            org=ORG,
            id="bench",
            sha256=hashlib.sha256(KEY.encode()).hexdigest(),
            role="ingest",
            name="bench",
            created_at=datetime.now(UTC),
        ),
    )
    sender = producer(kafka)
    await sender.start()
    try:
        for entry in entries:
            await sender.send_and_wait(
                Topics(kafka.topic_prefix).directory, encode_entry(entry), key=directory_key(entry)
            )
    finally:
        await sender.stop()


async def _send(
    port: int, requests: Iterator[Callable[[], bytes]], count: int, wanted: int
) -> tuple[float, list[float]]:
    """Return the seconds of all requests and each one's milliseconds."""
    times_ms: list[float] = []

    async def send(over: Connections) -> None:
        for make in requests:
            request = make()
            begun = time.perf_counter()
            status, body = await over.ask(request)
            times_ms.append((time.perf_counter() - begun) * 1000)
            if status != wanted:
                raise NotAnswered(f"answered {status}: {body[:200]!r}")

    begun = time.perf_counter()
    async with connections(port, count) as over:
        await asyncio.gather(*(send(over) for _ in range(count)))
    return time.perf_counter() - begun, times_ms


def _webhooks(count: int) -> Iterator[Callable[[], bytes]]:
    for number in range(count):
        yield lambda number=number: _webhook(number)  # type: ignore[misc]  # mypy does not infer the default


def _webhook(number: int) -> bytes:
    seconds = int(time.time())
    intent = {
        "id": f"pi_{number}",
        "object": "payment_intent",
        "amount_received": 12050,
        "currency": "eur",
        "status": "succeeded",
        "metadata": {"payment_id": f"pay_{number}"},
    }
    document = {
        "id": f"evt_{number}",
        "object": "event",
        "type": "payment_intent.succeeded",
        "created": seconds,
        "data": {"object": intent},
    }
    body = json.dumps(document).encode()
    signature = hmac.new(SECRET.encode(), b"%d." % seconds + body, hashlib.sha256).hexdigest()
    return http_post(f"/webhooks/{ORG}/stripe", body, f"Stripe-Signature: t={seconds},v1={signature}")


def _requests(count: int) -> Iterator[Callable[[], bytes]]:
    now = datetime.now(UTC).isoformat()
    for number in range(count):
        rows = [_row(number * ROWS_PER_REQUEST + at, now) for at in range(ROWS_PER_REQUEST)]
        body = json.dumps(rows).encode()
        request = http_post("/v1/events", body, "Content-Type: application/json", f"Authorization: Bearer {KEY}")
        yield lambda request=request: request  # type: ignore[misc]  # as above


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
        "refs": {"payment_id": f"pay_{number}"},
    }

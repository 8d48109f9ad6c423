"""`tieout bench latency`: how long after the second side of a payment came in its discrepancy is known.

Ledger rows go in batches, as a service's outbox sends them, and half a second later Stripe's webhooks one by one; some
differ by a cent. Measured from the moment that webhook's POST is sent to the discrepancy's appearance before a
committed reader of its topic, and to the arrival of the outgoing webhook. The sender keeps its own pace whatever
comes back, so that a slow answer is not hidden by sending less.
"""

import asyncio
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from aiokafka import TopicPartition

from shared.contracts.discrepancy import Discrepancy
from shared.contracts.inbox import WebhookReceived, decode_inbox
from shared.contracts.leg import Leg, decode_leg_record
from shared.errors import DependencyAway
from shared.kafka.client import consumer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics, partitions_of
from tieout.bench.connections import Connections, connections, http_post
from tieout.bench.harness import machine_facts, say, versions_used
from tieout.local.access import create_access
from tieout.local.choose import choose_kafka, choose_postgres
from tieout.local.follow import following
from tieout.local.stack import Ports, Stack, Wanted, billing_pack, put_in_force, running_stack

ORG = "bench"
WINDOW_S = 0.1
"""Ledger rows of so long go into one request."""
SECOND_LEG_AFTER_S = 0.5
WARM_UP_S = 5.0
"""Not counted: first connections, first transactions, plans of first queries."""
DRAIN_TIMEOUT_S = 60.0
QUIET_WINDOW_S = 10.0
CONNECTIONS = 64
AMOUNT_MINOR = 12_050
HIGH_RATE = 2_000
GOALS_MS = {"topic": {"p50": 100, "p99": 250}, "webhook": {"max": 1000}}
GOALS_HIGH_RATE_MS = {"topic": {"p99": 150}, "webhook": {"p99": 500}}
STAGES = (
    "POST sent to inbox",
    "inbox to leg",
    "leg to result",
    "result to readable",
    "readable to stored",
    "stored to request",
    "request to arrival",
)
"""Between places that keep a time of their own; all clocks are this machine's."""

Percentiles = dict[str, float]


@dataclass(slots=True)
class Seen:
    """What became of one payment whose sides differ; times in seconds since 1970."""

    sent: float
    times: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Observed:
    """All payments that differ, by payment id."""

    payments: dict[str, Seen] = field(default_factory=dict)
    answered: int = 0
    refused: int = 0
    behind_s_max: float = 0.0
    """How far the sender itself was behind its pace."""

    def note(self, payment: str, what: str, at: float) -> None:
        """Keep the first time that something was seen of a payment."""
        seen = self.payments.get(payment)
        if seen is not None:
            seen.times.setdefault(what, at)

    def see(self, one: Discrepancy, written_at: float) -> None:
        """Note when a discrepancy was written to its topic, and that it can be read."""
        assert isinstance(one.key, str), "payments have a key of one field"
        self.note(one.key, "readable", time.time())
        self.note(one.key, "result", written_at)

    def waiting(self, what: str) -> int:
        """Return for how many payments something was not seen yet."""
        return sum(1 for seen in self.payments.values() if what not in seen.times)


async def bench(
    events_per_second: int = 500, seconds: int = 60, differing_percent: int = 8, events_per_request: int = 100
) -> dict[str, Any]:
    """Run everything on this machine and return the figures.

    Raises:
        LocalUnavailable: Java, Maven or PostgreSQL's wheel is missing.
        DependencyAway: discrepancies or webhooks did not come.
    """
    observed, secret = Observed(), "whsec_" + secrets.token_urlsafe(24)
    keys: dict[str, str] = {}
    machine = machine_facts()

    async def prepare(kafka: KafkaSettings, url: str) -> None:
        keys.update(await create_access(url, ORG, ("owner", "ingest"), {"ledger": None, "stripe": "stripe"}))
        await put_in_force(kafka, billing_pack(), ORG, "bench")

    wanted = Wanted(
        choose_kafka("jvm"),
        choose_postgres(),
        Ports.free(),
        environment={
            f"TIEOUT_WEBHOOK_SECRET__{ORG.upper()}__STRIPE": secret,
            "TIEOUT_WEBHOOKS_ALLOW_PRIVATE": "true",
            # The cap against storms would hold back what is to be measured.
            "TIEOUT_WEBHOOKS_PER_MINUTE_MAX": "1000000",
        },
    )
    async with (
        _receiver(observed) as receiver_url,
        running_stack(wanted, prepare, say, lambda name, line: say(f"{name}: {line}")) as stack,
        following(stack.kafka, observed.see),
        connections(int(stack.ingest_url.rpartition(":")[2]), CONNECTIONS) as over,
    ):
        await _register(stack, keys["owner"], receiver_url)
        say(f"{events_per_second} events per second for {seconds} s, {differing_percent} % of the payments differ")
        sender = _Sender(over, keys["ingest"], secret, observed)
        sent = await sender.run(events_per_second, seconds, differing_percent, events_per_request)
        await _drained(observed)
        await _trace(stack, observed)
    return _figures(observed, events_per_second, seconds, sent) | {
        "settings": _settings()
        | {"differing_percent": differing_percent, "rows_per_ledger_request_max": events_per_request},
        "versions": versions_used(),
        "machine": machine | {"load_after": machine_facts()["load_before"]},
    }


# ---- what is sent


class _Sender:
    def __init__(self, over: Connections, key: str, secret: str, observed: Observed) -> None:
        self._over, self._key, self._secret = over, key, secret
        self._observed = observed
        self._begun = 0.0
        self._encode = msgspec.json.Encoder().encode

    async def run(self, events_per_second: int, seconds: int, differing_percent: int, rows_per_request: int) -> int:
        """Send at the pace asked for; return how many events were sent."""
        per_window = max(1, round(events_per_second / 2 * WINDOW_S))
        windows = round((seconds + WARM_UP_S) / WINDOW_S)
        self._begun = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for window in range(windows):
                await self._until(window * WINDOW_S)
                payments = [f"pay_{window * per_window + number:08d}" for number in range(per_window)]
                for begin in range(0, per_window, rows_per_request):
                    tasks.create_task(self._book(payments[begin : begin + rows_per_request]))
                tasks.create_task(self._charge(tasks, window, payments, differing_percent))
        return 2 * windows * per_window

    async def _until(self, at_s: float) -> None:
        behind_s = time.monotonic() - self._begun - at_s
        self._observed.behind_s_max = max(self._observed.behind_s_max, behind_s)
        await asyncio.sleep(max(0.0, -behind_s))

    async def _book(self, payments: list[str]) -> None:
        occurred_at = datetime.now(UTC).isoformat()
        rows = [
            {
                "source": "ledger",
                "type": "payment.booked",
                "id": f"led_{payment}",
                "occurred_at": occurred_at,
                "amount": f"{AMOUNT_MINOR // 100}.{AMOUNT_MINOR % 100:02d}",
                "currency": "EUR",
                "status": "succeeded",
                "refs": {"payment_id": payment},
            }
            for payment in payments
        ]
        headers = (f"Authorization: Bearer {self._key}", "Content-Type: application/json")
        await self._post(http_post("/v1/events", self._encode(rows), *headers))

    async def _charge(
        self,
        tasks: asyncio.TaskGroup,
        window: int,
        payments: list[str],
        differing_percent: int,
    ) -> None:
        """Spread the window's webhooks over it."""
        counted = window * WINDOW_S >= WARM_UP_S
        for number, payment in enumerate(payments):
            await self._until(window * WINDOW_S + SECOND_LEG_AFTER_S + number * WINDOW_S / len(payments))
            differs = int(payment[4:]) * differing_percent % 100 < differing_percent
            tasks.create_task(self._webhook(payment, differs=differs, counted=counted))

    async def _webhook(self, payment: str, *, differs: bool, counted: bool) -> None:
        now = time.time()
        minor = AMOUNT_MINOR + (1 if differs else 0)
        body = self._encode(_intent(payment, minor, int(now)))
        digest = hmac.digest(self._secret.encode(), f"{int(now)}.".encode() + body, hashlib.sha256).hex()
        request = http_post(f"/webhooks/{ORG}/stripe", body, f"Stripe-Signature: t={int(now)},v1={digest}")
        if differs and counted:
            self._observed.payments[payment] = Seen(time.time())
        await self._post(request)
        self._observed.note(payment, "answered", time.time())

    async def _post(self, request: bytes) -> None:
        status, _ = await self._over.ask(request)
        if status < 300 and status != 207:
            self._observed.answered += 1
        else:
            self._observed.refused += 1


def _intent(payment: str, minor: int, now_s: int) -> dict[str, Any]:
    intent = {
        "id": f"pi_{payment}",
        "object": "payment_intent",
        "amount": minor,
        "amount_received": minor,
        "currency": "eur",
        "status": "succeeded",
        "metadata": {"payment_id": payment},
        "created": now_s,
    }
    return {
        "id": f"evt_{payment}",
        "object": "event",
        "type": "payment_intent.succeeded",
        "created": now_s,
        "data": {"object": intent},
    }


# ---- what comes back


@asynccontextmanager
async def _receiver(observed: Observed) -> AsyncIterator[str]:
    """Take webhooks and note when they arrive."""

    async def take(request: web.Request) -> web.Response:
        now = time.time()
        body = json.loads(await request.read())
        observed.note(body["data"].get("key", ""), "arrival", now)
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/tieout", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}/tieout"
    finally:
        await runner.cleanup()


async def _register(stack: Stack, key: str, url: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(stack.alerts_url, headers=headers) as session,
        session.post("/v1/webhooks/endpoints", json={"url": url}) as answer,
    ):
        answer.raise_for_status()


async def _drained(observed: Observed) -> None:
    """Wait until every discrepancy and webhook has come."""
    try:
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            while observed.waiting("readable") or observed.waiting("arrival"):  # noqa: ASYNC110 - filled by others
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise DependencyAway(
            f"{DRAIN_TIMEOUT_S:g} s after the last event {observed.waiting('readable')} of {len(observed.payments)} "
            f"discrepancies are not on their topic and {observed.waiting('arrival')} webhooks have not arrived; "
            f"{observed.refused} requests were refused"
        ) from None


# ---- where the time went


async def _trace(stack: Stack, observed: Observed) -> None:
    """Note the times that topics and tables keep."""
    topics = Topics(stack.kafka.topic_prefix)
    read_id = msgspec.json.Decoder(dict[str, Any]).decode
    async for record in _all(stack.kafka, topics.inbox):
        received = decode_inbox(record.value)
        if isinstance(received, WebhookReceived):
            payment = read_id(received.body)["id"].removeprefix("evt_")
            observed.note(payment, "inbox", record.timestamp / 1000)
    async for record in _all(stack.kafka, topics.legs):
        leg = decode_leg_record(record.value)
        if isinstance(leg, Leg) and leg.source == "stripe":
            observed.note(leg.id.removeprefix("evt_"), "leg", record.timestamp / 1000)
    for payment, stored, requested in await _stored(stack.database_url):
        observed.note(payment, "stored", stored)
        observed.note(payment, "request", requested)


async def _all(kafka: KafkaSettings, topic: str) -> AsyncIterator[Any]:
    reader = consumer(kafka, auto_offset_reset="earliest")
    await reader.start()
    try:
        places = [TopicPartition(topic, number) for number in range((await partitions_of(kafka, topic))[topic])]
        reader.assign(places)
        ends = await reader.end_offsets(places)
        await reader.seek_to_beginning()
        while any([await reader.position(place) < ends[place] for place in places]):
            for records in (await reader.getmany(timeout_ms=100)).values():
                for record in records:
                    yield record
    finally:
        await reader.stop()


async def _stored(url: str) -> list[tuple[str, float, float]]:
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine

    query = (
        "SELECT d.key, extract(epoch FROM o.created_at)::float8, extract(epoch FROM min(a.at))::float8 "
        "FROM discrepancies d JOIN outbox o ON o.discrepancy_id = d.id JOIN delivery_attempts a ON a.outbox_id = o.id "
        "WHERE o.revision = 1 GROUP BY d.key, o.created_at"
    )
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            return [(key, stored, requested) for key, stored, requested in await connection.execute(text(query))]
    finally:
        await engine.dispose()


# ---- figures


def _figures(observed: Observed, events_per_second: int, seconds: int, sent: int) -> dict[str, Any]:
    payments = list(observed.payments.values())
    return {
        "benchmark": "latency",
        "events_per_second": events_per_second,
        "seconds": seconds,
        "events": sent,
        "discrepancies": len(payments),
        "requests_refused": observed.refused,
        "sender_behind_ms_max": round(observed.behind_s_max * 1000),
        "answer_ms": percentiles(seen.times["answered"] - seen.sent for seen in payments),
        "topic_ms": percentiles(seen.times["readable"] - seen.sent for seen in payments),
        "webhook_ms": percentiles(seen.times["arrival"] - seen.sent for seen in payments),
        "goals_ms": GOALS_HIGH_RATE_MS if events_per_second >= HIGH_RATE else GOALS_MS,
        "stages_ms": _stages(payments),
        "quietest_ms": _quietest(payments),
    }


def _quietest(payments: list[Seen]) -> dict[str, Percentiles]:
    """Return the figures of the `QUIET_WINDOW_S` in which webhooks came soonest: what others on the machine add is least."""
    windows: dict[int, list[Seen]] = {}
    first = min((seen.sent for seen in payments), default=0.0)
    for seen in payments:
        windows.setdefault(int((seen.sent - first) / QUIET_WINDOW_S), []).append(seen)
    found = [
        {
            "topic": percentiles(seen.times["readable"] - seen.sent for seen in window),
            "webhook": percentiles(seen.times["arrival"] - seen.sent for seen in window),
        }
        for window in windows.values()
    ]
    return min(found, key=lambda one: one["webhook"]["p99"], default={})


def _stages(payments: list[Seen]) -> dict[str, Percentiles]:
    places = ("sent", "inbox", "leg", "result", "readable", "stored", "request", "arrival")
    times = [{"sent": seen.sent, **seen.times} for seen in payments]
    return {
        name: percentiles(one[end] - one[begin] for one in times if begin in one and end in one)
        for name, begin, end in zip(STAGES, places, places[1:], strict=False)
    }


def percentiles(seconds: Iterable[float]) -> Percentiles:
    """Return milliseconds."""
    ordered = sorted(seconds)
    if not ordered:
        return {}
    last = len(ordered) - 1
    at = {"p50": ordered[round(last * 0.5)], "p99": ordered[round(last * 0.99)], "max": ordered[last]}
    return {name: round(value * 1000, 1) for name, value in at.items()}


def _settings() -> dict[str, Any]:
    """Name the settings that latency is made of; all at their defaults."""
    from services.alerts.settings import AlertsSettings
    from services.ingest.settings import IngestSettings
    from services.matcher.settings import MatcherSettings

    ingest, matcher, alerts = IngestSettings(), MatcherSettings(), AlertsSettings()
    return {
        "ingest_tick_interval_ms": ingest.ingest_tick_interval_ms,
        "commit_interval_ms": matcher.commit_interval_ms,
        "commits_per_second_max": matcher.commits_per_second_max,
        "sink_poll_ms": alerts.sink_poll_ms,
        "webhooks_places": alerts.webhooks_places,
    }


def show(figures: dict[str, Any], *, as_json: bool) -> None:
    """Print a table, or one JSON object last."""
    if as_json:
        print(json.dumps(figures), flush=True)
        return
    from rich.console import Console
    from rich.table import Table

    title = (
        f"bench latency: {figures['events_per_second']} events per second, {figures['discrepancies']} discrepancies, ms"
    )
    table = Table(title=title, title_justify="left")
    for heading in ("from the second side's POST to", "p50", "p99", "max", "goal"):
        table.add_column(heading, justify="left" if heading.startswith("from") else "right")
    _add(table, "its 2xx", figures["answer_ms"])
    _add(table, "the discrepancy on its topic", figures["topic_ms"], _goal(figures["goals_ms"]["topic"]))
    _add(table, "the outgoing webhook's arrival", figures["webhook_ms"], _goal(figures["goals_ms"]["webhook"]))
    _add(table, f"  topic, in the quietest {QUIET_WINDOW_S:.0f} s", figures["quietest_ms"].get("topic", {}))
    _add(table, f"  webhook, in the quietest {QUIET_WINDOW_S:.0f} s", figures["quietest_ms"].get("webhook", {}))
    table.add_section()
    for name, stage in figures["stages_ms"].items():
        _add(table, f"  {name}", stage)
    console = Console()
    console.print(table)
    for facts in ("settings", "versions", "machine"):
        console.print(f"{facts}: " + ", ".join(f"{name} {value}" for name, value in figures[facts].items()))
    console.print(f"sender behind its pace by at most {figures['sender_behind_ms_max']} ms")


def _goal(wanted: dict[str, int]) -> str:
    return ", ".join(f"{part} {value}" for part, value in wanted.items())


def _add(table: Any, name: str, found: Percentiles, goal: str = "") -> None:
    table.add_row(name, *(f"{found[part]:.0f}" if found else "-" for part in ("p50", "p99", "max")), goal)

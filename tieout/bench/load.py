"""`tieout bench load`: how much comes through from end to end before something falls behind.

Two systems of record post their rows to ingest at a pace that is stepped up; one payment in fifty differs by a cent. The
sender keeps its pace whatever comes back. A step holds while ingest accepts everything, the sender keeps up, and what
waits in front of any stage at its end is less than `BACKLOG_S_MAX` of the step's rate. The first step that does not hold
ends the climb; then the time is taken until all of it is stored.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from shared.contracts.discrepancy import Discrepancy
from shared.errors import DependencyAway
from shared.kafka.settings import KafkaSettings
from shared.rules.load import parse_rules
from tieout.bench.harness import machine_facts, say, versions_used
from tieout.local.access import create_access
from tieout.local.choose import KafkaChoice, PostgresChoice, choose_kafka, choose_postgres
from tieout.local.follow import following
from tieout.local.stack import Ports, Stack, Wanted, put_in_force, running_stack

ORG = "load"
RULES = """
version: 1
pack: load
rules:
  - name: load.payments
    kind: match
    sides:
      internal: {source: ledger, type: [payment.*]}
      provider: {source: bank, type: [payment.*]}
    key: refs.payment_id
    compare: {amount: {tolerance: "0.00"}, currency: {}}
    deadline: 1h
    keep: 1m
"""
WINDOW_S = 0.1
"""Rows of so long go into one request, as a service's outbox sends them."""
ROWS_PER_REQUEST_MAX = 500
SECOND_SIDE_AFTER_WINDOWS = 3
DIFFERS_EVERY = 50
"""One payment in so many raises a discrepancy, by which latency is measured."""
BACKLOG_S_MAX = 1.0
"""More than so many seconds' worth of records in front of a stage at the end of a step: it is falling behind."""
BEHIND_S_MAX = 1.0
"""The sender itself: beyond it, the step did not have its rate."""
KNOWN_TIMEOUT_S = 60.0
WARM_UP_S = 3
WARM_UP_RATE = 100
DRAIN_TIMEOUT_S = 300.0
METRICS_AGE_S = 1.0
"""Gauges of lag are brought up to date about once a second."""
MARKER_RECORDS = 1
"""Behind the last record of a transaction stands its marker, which nobody reads: it is no backlog."""
CONNECTIONS = 32
WIDTH_IN_FILES = 150
LAGS: Mapping[str, str] = {
    "normaliser": "tieout_ingest_normaliser_lag_records",
    "matcher": "tieout_matcher_lag_records",
    "sink": "tieout_alerts_sink_lag_records",
}
SERVICES = ("ingest", "matcher", "alerts")

Percentiles = dict[str, float]


@dataclass(frozen=True, slots=True)
class Step:
    """One rate, held for the step's time. Latency: from the second side's POST to the discrepancy on its topic."""

    events_per_second: int
    """Asked for."""
    accepted_per_second: float
    refused_requests: int
    answer_ms: Percentiles
    latency_ms: Percentiles
    lag_records: dict[str, int]
    """At the step's end, in front of each stage."""
    memory_mib: dict[str, float]
    """Resident, per service, at the step's end."""
    sender_behind_s: float
    fell_behind: str | None
    """What did not keep up; None: the step held."""


@dataclass(frozen=True, slots=True)
class Climb:
    """All steps. `sustained_events_per_second` is the greatest rate that held; 0: none did."""

    benchmark: str
    sustained_events_per_second: int
    fell_behind: str | None
    events: int
    drain_s: float
    stored_items: int
    steps: list[Step]
    settings: dict[str, Any]
    versions: dict[str, str] = field(default_factory=versions_used)
    machine: dict[str, Any] = field(default_factory=machine_facts)


@dataclass(slots=True)
class _Seen:
    """What the sender and the reader of discrepancies saw during one step; times in seconds since 1970."""

    sent: dict[str, float] = field(default_factory=dict)
    """Second sides that differ: when they were posted."""
    found: dict[str, float] = field(default_factory=dict)
    answers_s: list[float] = field(default_factory=list)
    accepted: int = 0
    refused: int = 0
    behind_s: float = 0.0


async def bench(
    rates: Iterable[int],
    step_s: int,
    kafka: str = "jvm",
    postgres: str = "auto",
) -> Climb:
    """Climb through `rates` (events per second), `step_s` seconds each, until one does not hold.

    Raises:
        LocalUnavailable: something does not start.
        DependencyAway: what was accepted did not come through.
    """
    keys: dict[str, str] = {}
    chosen: tuple[KafkaChoice, PostgresChoice] = (choose_kafka(kafka), choose_postgres(postgres))

    async def prepare(used: KafkaSettings, url: str) -> None:
        keys.update(await create_access(url, ORG, ("ingest",), {"ledger": None, "bank": None}))
        await put_in_force(used, parse_rules(RULES, "load rules"), ORG, "bench")

    wanted = Wanted(*chosen, Ports.free())
    steps: list[Step] = []
    async with running_stack(wanted, prepare, say, lambda name, line: say(f"{name}: {line}")) as stack:
        load = _Load(stack, keys["ingest"])
        async with load.sending(), following(stack.kafka, load.see):
            # Not counted as a step: first connections, first transactions, plans of first queries.
            await load.known()
            await load.step(WARM_UP_RATE, WARM_UP_S)
            for rate in rates:
                steps.append(await load.step(rate, step_s))
                say(_line(steps[-1]))
                if steps[-1].fell_behind:
                    break
            begun = time.monotonic()
            await load.drained()
            drain_s = time.monotonic() - begun
        stored = await _stored(stack.database_url)
    if load.whole and stored != load.payments:
        raise DependencyAway(f"{load.payments} payments were accepted whole, {stored} items are stored")
    held = [step.events_per_second for step in steps if step.fell_behind is None]
    return Climb(
        benchmark="load",
        sustained_events_per_second=max(held, default=0),
        fell_behind=steps[-1].fell_behind if steps else None,
        events=load.events,
        drain_s=round(drain_s, 1),
        stored_items=stored,
        steps=steps,
        settings={
            "step_s": step_s,
            "differs_every": DIFFERS_EVERY,
            "kafka": chosen[0].kind,
            "postgres": chosen[1].kind,
        },
    )


class _Load:
    """The sender, and what becomes of what it sends."""

    def __init__(self, stack: Stack, key: str) -> None:
        self._stack = stack
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._encode = msgspec.json.Encoder().encode
        self._number = 0
        self.seen = _Seen()
        self.events = 0
        self.whole = True
        """Nothing was refused: each payment has both sides."""

    @property
    def payments(self) -> int:
        """Payments whose sides were sent."""
        return self._number

    @asynccontextmanager
    async def sending(self) -> AsyncIterator[None]:
        """Keep connections open while the block runs."""
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as self._session:
            yield

    def see(self, one: Discrepancy, _at: float) -> None:
        """Note when a discrepancy appeared on its topic."""
        assert isinstance(one.key, str), "payments have a key of one field"
        self.seen.found.setdefault(one.key, time.time())

    async def known(self) -> None:
        """Return once ingest takes a payment: the key reaches it over a topic, a moment after it was made."""
        number, self._number = self._number, self._number + 1
        try:
            async with asyncio.timeout(KNOWN_TIMEOUT_S):
                for source in ("ledger", "bank"):
                    seen = _Seen()
                    while not seen.accepted:
                        await self._post(source, [number], seen)
                        await asyncio.sleep(WINDOW_S)
                    self.events += 1
        except TimeoutError:
            raise DependencyAway(f"for {KNOWN_TIMEOUT_S:g} s ingest refused the first event") from None

    async def step(self, rate: int, step_s: int) -> Step:
        """Send `rate` events per second for `step_s` seconds; return how it went."""
        self.seen = seen = _Seen()
        per_window = max(1, round(rate * WINDOW_S / 2))
        begun = time.monotonic()
        waiting: list[list[int]] = []
        async with asyncio.TaskGroup() as tasks:
            for window in range(round(step_s / WINDOW_S)):
                behind_s = time.monotonic() - begun - window * WINDOW_S
                seen.behind_s = max(seen.behind_s, behind_s)
                await asyncio.sleep(max(0.0, -behind_s))
                waiting.append(list(range(self._number, self._number + per_window)))
                self._number += per_window
                self._send(tasks, "ledger", waiting[-1], seen)
                if len(waiting) > SECOND_SIDE_AFTER_WINDOWS:
                    self._send(tasks, "bank", waiting.pop(0), seen)
            for numbers in waiting:
                self._send(tasks, "bank", numbers, seen)
        took_s = time.monotonic() - begun
        lags = await self._lags()
        fell = self._fell_behind(rate, lags, seen)
        self.events += seen.accepted
        self.whole &= not seen.refused
        if fell is None:
            await self._found(seen)
        return Step(
            events_per_second=rate,
            accepted_per_second=round(seen.accepted / took_s, 1),
            refused_requests=seen.refused,
            answer_ms=_percentiles(seen.answers_s),
            latency_ms=_percentiles(at - seen.sent[key] for key, at in seen.found.items() if key in seen.sent),
            lag_records=lags,
            memory_mib={name: _memory_mib(self._stack.children[name].pid) for name in SERVICES},
            sender_behind_s=round(seen.behind_s, 2),
            fell_behind=fell,
        )

    def _fell_behind(self, rate: int, lags: Mapping[str, int], seen: _Seen) -> str | None:
        if seen.refused:
            return "ingest"
        late = [name for name, lag in lags.items() if lag > rate * BACKLOG_S_MAX]
        if late:
            return max(late, key=lambda name: lags[name])
        return "sender" if seen.behind_s > BEHIND_S_MAX else None

    def _send(self, tasks: asyncio.TaskGroup, source: str, numbers: list[int], seen: _Seen) -> None:
        for place in range(0, len(numbers), ROWS_PER_REQUEST_MAX):
            tasks.create_task(self._post(source, numbers[place : place + ROWS_PER_REQUEST_MAX], seen))

    async def _post(self, source: str, numbers: list[int], seen: _Seen) -> None:
        occurred_at, begun = datetime.now(UTC).isoformat(), time.time()
        rows = [_row(source, number, occurred_at) for number in numbers]
        if source == "bank":
            seen.sent.update({f"p{number}": begun for number in numbers if number % DIFFERS_EVERY == 0})
        url = f"{self._stack.ingest_url}/v1/events"
        try:
            async with self._session.post(url, data=self._encode(rows), headers=self._headers) as answer:
                await answer.read()
                taken = answer.status < 300 and answer.status != 207
        except (aiohttp.ClientError, TimeoutError):
            taken = False
        seen.answers_s.append(time.time() - begun)
        if taken:
            seen.accepted += len(rows)
        else:
            seen.refused += 1

    async def _found(self, seen: _Seen) -> None:
        """Give the step's last discrepancies the time that a backlog within the limit takes."""
        with suppress(TimeoutError):
            async with asyncio.timeout(4 * BACKLOG_S_MAX):
                while len(seen.found) < len(seen.sent):  # noqa: ASYNC110 - filled by the reader
                    await asyncio.sleep(0.05)

    async def _lags(self) -> dict[str, int]:
        await asyncio.sleep(METRICS_AGE_S)
        found = {}
        for stage, url in zip(
            LAGS, (self._stack.ingest_url, self._stack.matcher_url, self._stack.alerts_url), strict=True
        ):
            async with self._session.get(f"{url}/metrics") as answer:
                families = text_string_to_metric_families(await answer.text())
                lags = [sample.value for family in families for sample in family.samples if sample.name == LAGS[stage]]
                found[stage] = round(sum(max(0.0, lag - MARKER_RECORDS) for lag in lags))
        return found

    async def drained(self) -> None:
        """Return once nothing waits in front of any stage and every item is stored."""
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                while any((await self._lags()).values()) or (
                    self.whole and await _stored(self._stack.database_url) < self.payments
                ):
                    pass
        except TimeoutError:
            stored = await _stored(self._stack.database_url)
            raise DependencyAway(
                f"{DRAIN_TIMEOUT_S:g} s after the last event {stored} of {self.payments} payments are stored"
            ) from None


def _row(source: str, number: int, occurred_at: str) -> dict[str, Any]:
    cents = 1_000 + number % 90_000
    cents += source == "bank" and number % DIFFERS_EVERY == 0
    return {
        "source": source,
        "type": "payment.booked",
        "id": f"{source}_{number}",
        "occurred_at": occurred_at,
        "amount": f"{cents // 100}.{cents % 100:02d}",
        "currency": "EUR",
        "status": "succeeded",
        "refs": {"payment_id": f"p{number}"},
    }


async def _stored(url: str) -> int:
    """Return how many items are stored with both sides judged."""
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            count = text("SELECT count(*) FROM items WHERE status <> 'pending'")
            return int((await connection.execute(count)).scalar_one())
    finally:
        await engine.dispose()


def _memory_mib(pid: int) -> float:
    """Return what a process holds in memory; 0 where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0.0
    kib = next((line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")), "0")
    return round(int(kib) / 1024, 1)


def _percentiles(seconds: Iterable[float]) -> Percentiles:
    """Return milliseconds."""
    ordered = sorted(seconds)
    if not ordered:
        return {}
    last = len(ordered) - 1
    return {
        "p50": round(ordered[round(last * 0.5)] * 1000, 1),
        "p99": round(ordered[round(last * 0.99)] * 1000, 1),
        "max": round(ordered[-1] * 1000, 1),
    }


def _line(step: Step) -> str:
    state = f"{step.fell_behind} fell behind" if step.fell_behind else "held"
    lag = ", ".join(f"{name} {records:,}" for name, records in step.lag_records.items())
    return f"{step.events_per_second:,} events/s: {state}; waiting: {lag}"


def show(climb: Climb, *, as_json: bool) -> None:
    """Print a table, or one JSON object last."""
    if as_json:
        print(json.dumps(asdict(climb)), flush=True)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title="bench load", title_justify="left")
    for heading in (
        "asked/s",
        "accepted/s",
        "answer p50",
        "p99",
        "latency p50",
        "p99 ms",
        "lag n/m/s",
        "MiB i/m/a",
        "state",
    ):
        table.add_column(heading, justify="left" if heading == "state" else "right")
    for step in climb.steps:
        table.add_row(
            f"{step.events_per_second:,}",
            f"{step.accepted_per_second:,.0f}",
            *(
                f"{part.get(name, 0):,.0f}" if part else "-"
                for part in (step.answer_ms, step.latency_ms)
                for name in ("p50", "p99")
            ),
            "/".join(f"{lag:,}" for lag in step.lag_records.values()),
            "/".join(f"{mib:,.0f}" for mib in step.memory_mib.values()),
            f"{step.fell_behind} fell behind" if step.fell_behind else "held",
        )
    # In a file or a pipe nothing is cut off to fit a terminal.
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH_IN_FILES)
    console.print(table)
    console.print(
        f"sustained: {climb.sustained_events_per_second:,} events per second; all {climb.events:,} events were stored "
        f"({climb.stored_items:,} items) {climb.drain_s:g} s after the last"
    )
    for facts in ("settings", "versions", "machine"):
        console.print(f"{facts}: " + ", ".join(f"{name} {value}" for name, value in getattr(climb, facts).items()))

"""A drill: all services as real processes, a stream of known outcome, something that breaks, and figures afterwards."""

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import apply_topics
from tests.support.planted import plan
from tests.support.producer_client import ProducerClient
from tests.support.services import Services, prepared, short_rules
from tests.support.webhook_receiver import Receiver
from tests.support.whole_stream import End, Run, check, end_of, opened_and_expected, register, send, tell

EVENTS_PER_SECOND = float(os.environ.get("TIEOUT_FAULTS_EVENTS_PER_SECOND", "250"))
SCALE = float(os.environ.get("TIEOUT_FAULTS_SCALE", "1"))
"""Times the default number of faults and events of every drill."""
RESULTS = os.environ.get("TIEOUT_FAULTS_RESULTS")
"""A file to which every drill adds a line of JSON: the figures of the table in docs/proof.md."""
TIMEOUT_S = 1_800 * max(1.0, SCALE)
"""Of one drill, for pytest."""
DEADLINE_S = 15.0
SETTLE_S = float(os.environ.get("TIEOUT_FAULTS_SETTLE_S", "150"))
"""From the end of the stream: deadlines, time-outs of the last fault, and two busy cores."""
PARTITIONS = 4
INBOX_PARTITIONS = 2
SESSION_MS = 6_000
TRANSACTION_MS = 8_000
LOOK_S = 0.2

QUICK = {
    "TIEOUT_WEBHOOKS_PER_MINUTE_MAX": "1000000",
    "TIEOUT_SESSION_TIMEOUT_MS": str(SESSION_MS),
    "TIEOUT_KAFKA_TRANSACTION_TIMEOUT_MS": str(TRANSACTION_MS),
    "TIEOUT_SNAPSHOT_THRESHOLD_BYTES": "100000",
    "TIEOUT_SNAPSHOT_CHUNK_BYTES": "20000",
}
"""Time-outs that a drill can wait for, and snapshots that happen in it."""


@dataclass
class Drill:
    """What a breaking function works with and tells its figures to."""

    services: Services
    client: ProducerClient
    events: int
    database_url: str
    receiver: Receiver
    faults: Counter[str] = field(default_factory=Counter)
    recoveries: list[tuple[float, str]] = field(default_factory=list)
    """Seconds, and after which fault."""
    notes: dict[str, object] = field(default_factory=dict)

    async def until_sent(self, part: float) -> None:
        """Wait until this part of the stream is acknowledged."""
        while self.client.sent < part * self.events:  # noqa: ASYNC110 - the stream is watched from outside
            await asyncio.sleep(0.02)

    async def recovered(self, fault: str, timeout_s: float = 120.0) -> float:
        """Count a fault that is over, and wait until what arrives from now on is judged and stored: time to progress."""
        self.faults[fault] += 1
        begun, now = time.monotonic(), datetime.now(UTC)
        try:
            async with asyncio.timeout(timeout_s):
                while (reached := await self.stored_up_to()) is None or reached < now:  # noqa: ASYNC110 - seen from outside
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise AssertionError(f"{timeout_s:g} s after {fault} nothing new is stored: {reached}, not {now}") from None
        taken = time.monotonic() - begun
        self.recoveries.append((taken, fault))
        return taken

    async def stored_up_to(self) -> datetime | None:
        """Log time up to which every partition's results stand in PostgreSQL; None while it cannot be asked."""
        engine = create_async_engine(self.database_url)
        query = "SELECT min(log_time), count(*) FROM progress WHERE topic IN ('discrepancies', 'matches')"
        try:
            async with asyncio.timeout(5), engine.connect() as connection:
                least, count = (await connection.execute(text(query))).one()
        except (SQLAlchemyError, DBAPIError, OSError, TimeoutError):
            return None
        finally:
            await engine.dispose()
        return least if count == 2 * PARTITIONS else None


def scaled(faults: int) -> int:
    """So many faults are a drill's least at `TIEOUT_FAULTS_SCALE`."""
    return max(faults, round(faults * SCALE))


Break = Callable[[Drill], Awaitable[None]]


@dataclass
class Outcome:
    """Figures of one drill."""

    name: str
    events: int
    faults: dict[str, int]
    lost: int
    doubled: int
    recovery_s_median: float | None
    recovery_s_max: float | None
    slowest: str | None
    """The fault after which it took longest."""
    seconds: float
    notes: dict[str, object]


async def drill(
    name: str,
    kafka: KafkaSettings,
    database_url: str,
    breaking: Break,
    *,
    seconds: float = 40.0,
    names: tuple[str, ...] = ("ingest", "matcher", "alerts"),
    modules: dict[str, list[str]] | None = None,
    checked: bool = True,
    settle_s: float = SETTLE_S,
    given: dict[str, str] | None = None,
    environments: dict[str, dict[str, str]] | None = None,
    database_admin_url: str | None = None,
    through: Callable[[int], int] = lambda port: port,
) -> Outcome:
    """Run a stream of about `seconds` while `breaking` does its work, and judge what stands afterwards.

    `checked=False` leaves judging to the caller, who wants something to be wrong. `database_admin_url` reaches
    PostgreSQL past whatever stands between it and the services; `through` gives the port by which webhooks come.
    """
    begun = time.monotonic()
    events = max(1_000, int(seconds * EVENTS_PER_SECOND * SCALE))
    run = Run(plan(events, events // 25))
    reading_url = database_admin_url or database_url
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(Receiver())
        rules = short_rules(DEADLINE_S)
        services = await stack.enter_async_context(prepared(kafka, database_url, rules, **QUICK | (given or {})))
        services.modules.update(modules or {})
        for one in names:
            await services.start(one, **(environments or {}).get(one, {}))
        await services.ready(*names)
        await register(services, receiver, through(receiver.port))
        made: list[Drill] = []
        keeping = asyncio.create_task(_keep_up(services, made))
        stack.callback(keeping.cancel)

        async def work(_: Services, client: ProducerClient, total: int) -> None:
            made.append(Drill(services, client, total, reading_url, receiver))
            await breaking(made[0])

        try:
            await send(run, services, EVENTS_PER_SECOND, work)
            end = await end_of(kafka, reading_url, DEADLINE_S, settle_s, PARTITIONS)
        except BaseException as error:
            print(f"{name} FAILED: {error!r}, {vars(made[0]) if made else ''}", flush=True)  # noqa: T201 - as below
            raise
    outcome = _outcome(name, run, end, made[0], time.monotonic() - begun)
    tell(run, end, receiver)
    print(outcome, flush=True)  # noqa: T201 - the figures are the result
    if checked:
        check(run, end, receiver)
        _keep(outcome)
    return outcome


async def _keep_up(services: Services, made: list[Drill]) -> None:
    """Start again what ended by itself, as an orchestrator does: a watchdog counts on it."""
    while True:
        await asyncio.sleep(1)
        for name in sorted(services.up):
            code = services.children[name].exit_code
            if code is not None and made:
                made[0].notes[f"{name} ended by itself"] = code
                await services.start(name)


def _outcome(name: str, run: Run, end: End, made: Drill, seconds: float) -> Outcome:
    open_now, expected = opened_and_expected(run, end)
    repeated = Counter((one.id, one.revision) for _, one in end.found)
    repeated += Counter((one.id, one.revision) for _, one in end.items)
    doubled = sum(times - 1 for times in repeated.values() if times > 1)
    judged = {(item.rule, str(item.key)) for _, item in end.items}
    unjudged = len(run.planned.status.keys() - judged)
    times = sorted(made.recoveries)
    return Outcome(
        name=name,
        events=len(run.planned.events),
        faults=dict(made.faults),
        lost=(expected - open_now).total() + unjudged + len(run.acknowledged - end.inbox),
        doubled=(open_now - expected).total() + doubled,
        recovery_s_median=round(times[len(times) // 2][0], 1) if times else None,
        recovery_s_max=round(times[-1][0], 1) if times else None,
        slowest=times[-1][1] if times else None,
        seconds=round(seconds, 1),
        notes=made.notes,
    )


def _keep(outcome: Outcome) -> None:
    if RESULTS:
        with Path(RESULTS).open("a") as file:
            file.write(json.dumps(vars(outcome)) + "\n")


async def topics_on(kafka: KafkaSettings, replication: int = 1) -> None:
    """The topics of a drill on a broker of its own."""
    await apply_topics(kafka, PARTITIONS, INBOX_PARTITIONS, *(() if replication == 1 else (replication,)))

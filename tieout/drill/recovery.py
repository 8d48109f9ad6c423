"""The drill: PostgreSQL is lost with everything in it, and comes back from the topics, and from a backup.

Two ways back, each compared with what was there before, table by table and row by row:

- *from the topics alone*: an empty database and `tieout alerts --rebuild`. Brings back every result. What people did,
  runs, keys and endpoints are in no topic, and are named with their rows.
- *from a backup and the topics*: yesterday's `pg_dump`, and the sink reads on from the place that it holds. Brings back
  everything but what people did after the backup.
"""

import asyncio
import os
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from shared.errors import DependencyAway, UsageError
from shared.kafka.settings import KafkaSettings
from tieout.demo.receiver import Receiver
from tieout.demo.run import DEADLINE_S, ORG, demo_rules
from tieout.demo.sender import Sender
from tieout.demo.stream import Post, Stream
from tieout.drill.tables import (
    DERIVED_TABLES,
    TOPIC_TABLES,
    Difference,
    Rows,
    backup_only,
    compare,
    fingerprints,
)
from tieout.local.access import create_access
from tieout.local.choose import choose_kafka, choose_postgres
from tieout.local.places import free_ports
from tieout.local.postgres import LocalPostgres
from tieout.local.processes import Processes
from tieout.local.stack import Ports, Stack, Wanted, put_in_force, running_stack

QUIET_TIMEOUT_S = 180.0
"""For what was sent to be matched and stored, on a busy machine with two cores."""
REBUILD_TIMEOUT_S = 6 * 3600.0
"""Of a copy of a large installation: a sink stores some thousand results a second."""
ATTEMPTS_MAX = 20
LOOK_S = 0.5
SETTLED_LOOKS = 6
"""Looks without any change after which tables without progress (the explainer's, dead letters) are taken for settled."""
PAYMENTS_PER_SECOND = 200.0
BEFORE_BACKUP = 0.65
"""Of the stream: the rest comes after the backup, and only the topics have it."""
SECRET_VARIABLE = f"TIEOUT_WEBHOOK_SECRET__{ORG.upper()}__STRIPE"

EVERY_TABLE = (*TOPIC_TABLES, *DERIVED_TABLES, *backup_only())
PLACES = frozenset({"progress", "sink_offsets"})
"""Move every second, also where nothing happens."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class WayBack:
    """What one way of recovery brought back."""

    name: str
    seconds: float
    tables: tuple[Difference, ...]
    not_brought_back: Mapping[str, int] = field(default_factory=dict)
    """Rows before the loss, of tables that this way cannot bring back."""

    @property
    def identical(self) -> bool:
        """Every table that this way brings back is as it was."""
        return all(one.identical for one in self.tables)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The drill's result."""

    events: int
    ways: tuple[WayBack, ...]

    @property
    def passed(self) -> bool:
        """Both ways brought back what they promise."""
        return all(way.identical for way in self.ways)

    def as_json(self) -> dict[str, Any]:
        """Return the result for programs."""
        return {"drill": "recovery", "passed": self.passed, **asdict(self)}


async def recovery(kafka: str, payments: int, say: Say) -> Outcome:
    """Run the drill on a Kafka, a PostgreSQL and services of its own.

    Raises:
        LocalUnavailable: something does not start.
        DependencyAway: what was sent did not come to rest.
    """
    secret, keys = "whsec_" + secrets.token_urlsafe(24), dict[str, str]()
    settings = {SECRET_VARIABLE: secret, "TIEOUT_WEBHOOKS_ALLOW_PRIVATE": "true"}

    async def prepare(used: KafkaSettings, url: str) -> None:
        keys.update(await create_access(url, ORG, ("owner", "ingest"), {"ledger": None, "stripe": "stripe"}))
        await put_in_force(used, demo_rules(), ORG, "drill")

    with tempfile.TemporaryDirectory(prefix="tieout-drill-") as folder:
        backup = Path(folder) / "backup.dump"
        async with AsyncExitStack() as closing:
            server = LocalPostgres(durable=False)
            await asyncio.to_thread(server.start)
            closing.callback(server.close)
            receiver = await closing.enter_async_context(Receiver())
            wanted = Wanted(choose_kafka(kafka), choose_postgres(server.url()), Ports.free(), environment=settings)
            stack = await closing.enter_async_context(running_stack(wanted, prepare, say, _show(say)))
            first, second = _stream(payments)
            sent = await _send(stack, keys, secret, first)
            await _quiet(server.url())
            acts = await _act(stack, keys["owner"], receiver)
            say(f"{sent} events are stored; people {acts}")
            await asyncio.to_thread(server.dump, backup)
            say(f"a backup of {backup.stat().st_size / 1024:,.0f} KiB is taken; then life goes on")
            sent += await _send(stack, keys, secret, second)
            await _quiet(server.url())
            await _stop_writers(stack)
            before = await _settled(server.url(), EVERY_TABLE, without_people=False)
            machine_only = await fingerprints(server.url(), EVERY_TABLE, without_people=True)
            say(f"before the loss: {_counted(before)}")
            await stack.processes.kill(stack.children["alerts"])
            await asyncio.to_thread(server.close)
            say("PostgreSQL is gone, with its folder")
            ways = (
                await _from_topics(stack, machine_only, say),
                await _from_backup(stack, before, backup, say),
            )
        return Outcome(sent, ways)


async def beside(live: str, scratch: str | None, say: Say) -> Outcome:
    """Rebuild a copy from the topics beside an installation that runs, and compare; the installation is only read.

    Kafka is that of `TIEOUT_KAFKA_...`. The copy's sink has a consumer group of its own, and tells no endpoint.

    Args:
        live: the installation's database.
        scratch: an empty one; None: a PostgreSQL is started for it.
        say: told what happens.

    Raises:
        UsageError: `scratch` is the live database or holds results already.
        DependencyAway: results came in for so long that the two were never of one moment.
    """
    begun = time.monotonic()
    async with _scratch(scratch, live) as url, Processes(_show(say)) as processes:
        environment = {
            "TIEOUT_SINK_GROUP": f"tieout-drill-{secrets.token_hex(4)}",
            "TIEOUT_SINK_INSTANCE_ID": "",
            "RECONCILIATION_ALERT_WEBHOOK_URL": "",
        }
        say("a copy is rebuilt from the topics; the installation is only read")
        async with _alerts(processes, environment, url, "sink", "explainer", rebuild=True):
            found = await _of_one_moment(live, url, say)
    took = round(time.monotonic() - begun, 1)
    lost = await fingerprints(live, backup_only(), without_people=True)
    way = WayBack("from the topics, beside the installation", took, found, {n: len(r) for n, r in lost.items() if r})
    return Outcome(0, (way,))


@asynccontextmanager
async def _scratch(url: str | None, live: str) -> AsyncIterator[str]:
    if url is None:
        async with _new_database(None) as made:
            yield made
        return
    from services.alerts.adapters.database import migrate

    if url == live:
        raise UsageError("--scratch is the installation's own database: give an empty one")
    await migrate(url)
    held = [name for name, rows in (await fingerprints(url, TOPIC_TABLES, without_people=True)).items() if rows]
    if held:
        raise UsageError(f"the --scratch database holds {', '.join(held)} already: give an empty one")
    yield url


async def _of_one_moment(live: str, copy: str, say: Say) -> tuple[Difference, ...]:
    """Compare where nothing was stored while both were read; progress alone goes on for ever."""
    tables = [name for name in (*TOPIC_TABLES, *DERIVED_TABLES) if name not in PLACES]
    for attempt in range(ATTEMPTS_MAX):
        before = await fingerprints(live, tables, without_people=True)
        await _passed(copy, await _places(live))
        now = await _settled(copy, tables, without_people=True)
        if await fingerprints(live, tables, without_people=True) == before:
            return tuple(compare(before, now))
        say(f"results came in between: once more ({attempt + 1} of {ATTEMPTS_MAX})")
    raise DependencyAway("the installation does not come to rest: choose a quieter moment, or stop ingest for a minute")


async def _places(url: str) -> dict[tuple[str, int], int]:
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            rows = await connection.execute(text("SELECT topic, partition, next_offset FROM sink_offsets"))
            return {(row.topic, row.partition): row.next_offset for row in rows}
    finally:
        await engine.dispose()


async def _passed(url: str, places: Mapping[tuple[str, int], int]) -> None:
    """Return once the sink of `url` is at `places` or past them."""
    try:
        async with asyncio.timeout(REBUILD_TIMEOUT_S):
            while True:
                reached = await _places(url)
                if all(reached.get(place, -1) >= offset for place, offset in places.items()):
                    return
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise DependencyAway(f"after {REBUILD_TIMEOUT_S:g} s the copy is not where the installation is") from None


async def _from_topics(stack: Stack, before: Mapping[str, Rows], say: Say) -> WayBack:
    name = "from the topics alone"
    begun = time.monotonic()
    async with _new_database(None) as url:
        say(f"{name}: an empty database, `tieout migrate`, `tieout alerts --rebuild`")
        async with _alerts(stack.processes, stack.environment, url, "sink", "explainer", rebuild=True):
            await _reached(url, before)
            took = time.monotonic() - begun
            after = await _settled(url, EVERY_TABLE, without_people=True)
    compared = {table: before[table] for table in (*TOPIC_TABLES, *DERIVED_TABLES)}
    lost = {table: len(before[table]) for table in backup_only() if before[table]}
    return WayBack(name, round(took, 1), tuple(compare(compared, after)), lost)


async def _from_backup(stack: Stack, before: Mapping[str, Rows], backup: Path, say: Say) -> WayBack:
    name = "from the backup and the topics"
    begun = time.monotonic()
    async with _new_database(backup) as url:
        say(f"{name}: `pg_restore`, then `tieout alerts` reads on from the place that the backup holds")
        async with _alerts(stack.processes, stack.environment, url, "sink", "explainer"):
            await _reached(url, before)
            took = time.monotonic() - begun
            after = await _settled(url, EVERY_TABLE, without_people=False)
    return WayBack(name, round(took, 1), tuple(compare(before, after)))


# ---- what happens before


def _stream(payments: int) -> tuple[list[Post], list[Post]]:
    """Return what comes before the backup and what comes after it; some of it heals what came before."""
    posts = Stream(datetime.now(UTC) - timedelta(seconds=1), payments, per_second=PAYMENTS_PER_SECOND).posts()
    cut = posts[round(len(posts) * BEFORE_BACKUP)].at_s
    return [one for one in posts if one.at_s < cut], [
        replace(one, at_s=one.at_s - cut) for one in posts if one.at_s >= cut
    ]


async def _send(stack: Stack, keys: Mapping[str, str], secret: str, posts: Sequence[Post]) -> int:
    async with Sender(stack.ingest_url, ORG, keys["ingest"], secret) as sender:
        await sender.send(posts)
    if sender.refused:
        raise DependencyAway(f"ingest refused {sender.refused} of {len(posts)} events")
    return sender.accepted


async def _act(stack: Stack, key: str, receiver: Receiver) -> str:
    """Do what only people do, and what no topic holds."""
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(stack.alerts_url, headers=headers) as api:
        await _call(api, "POST", "/v1/webhooks/endpoints", {"url": receiver.url})
        found = (await _call(api, "GET", "/v1/discrepancies?status=open&limit=4"))["data"]
        ids = [one["id"] for one in found]
        base = "/billing/reconciliation/discrepancies"
        await _call(api, "PATCH", f"{base}/{ids[0]}/acknowledge")
        await _call(api, "PATCH", f"{base}/{ids[1]}/assign", {"assignee": "ann@example.com"})
        await _call(api, "PATCH", f"{base}/{ids[2]}/resolve", {"reason": "written_off", "notes": "below the limit"})
        await _call(api, "POST", f"{base}/{ids[3]}/notes", {"text": "asked the provider"})
        yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
        await _call(api, "POST", "/v1/runs", {"period": yesterday.isoformat()})
    return "acknowledged, assigned, resolved, noted, made an endpoint and ran a day"


async def _call(api: aiohttp.ClientSession, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    async with api.request(method, path, json=body) as answer:
        if answer.status >= 400:
            raise DependencyAway(f"{method} {path} answered {answer.status}: {await answer.text()}")
        return await answer.json()


async def _stop_writers(stack: Stack) -> None:
    """Nothing new comes, and everything pending is published and stored."""
    for name in ("ingest", "matcher"):
        await stack.processes.stop(stack.children[name])


# ---- when all is quiet


async def _quiet(url: str) -> None:
    """Return once everything up to now, and every deadline of it, is stored: progress says so for each partition."""
    until = datetime.now(UTC) + timedelta(seconds=DEADLINE_S + 1)
    query = text("SELECT min(log_time) AS at, count(*) AS places FROM progress")
    engine = create_async_engine(url)
    try:
        async with asyncio.timeout(QUIET_TIMEOUT_S):
            while True:
                async with engine.connect() as connection:
                    row = (await connection.execute(query)).one()
                if row.places and row.at > until:
                    return
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise DependencyAway(
            f"after {QUIET_TIMEOUT_S:g} s results are stored up to {row.at} only, not up to {until}"
        ) from None
    finally:
        await engine.dispose()


async def _settled(url: str, tables: Sequence[str], *, without_people: bool) -> dict[str, Rows]:
    """Return the rows once they have not changed for some looks: explainer and dead letters have no progress."""
    same, last = 0, await fingerprints(url, tables, without_people=without_people)
    async with asyncio.timeout(QUIET_TIMEOUT_S):
        while same < SETTLED_LOOKS:
            await asyncio.sleep(LOOK_S)
            now = await fingerprints(url, tables, without_people=without_people)
            same, last = (same + 1 if now == last else 0), now
    return last


async def _reached(url: str, before: Mapping[str, Rows]) -> None:
    """Return once the sink is where the lost one was."""
    try:
        async with asyncio.timeout(QUIET_TIMEOUT_S):
            while (await fingerprints(url, ["progress"], without_people=True))["progress"] != before["progress"]:  # noqa: ASYNC110 - another process
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise DependencyAway(f"after {QUIET_TIMEOUT_S:g} s the sink is not where the lost one was") from None


# ---- the new PostgreSQL


@asynccontextmanager
async def _new_database(backup: Path | None) -> AsyncIterator[str]:
    """A server that has nothing, migrated or with a backup read into it."""
    from services.alerts.adapters.database import migrate

    server = LocalPostgres(durable=False)
    await asyncio.to_thread(server.start)
    try:
        if backup is None:
            await migrate(server.url())
        else:
            engine = create_async_engine(server.url())
            async with engine.begin() as connection:
                # A dump of a database names the roles of its rights and does not make them.
                await connection.execute(text("CREATE ROLE tieout_app NOLOGIN"))
            await engine.dispose()
            await asyncio.to_thread(server.restore, backup)
        yield server.url()
    finally:
        await asyncio.to_thread(server.close)


@asynccontextmanager
async def _alerts(
    processes: Processes, given: Mapping[str, str], url: str, *roles: str, rebuild: bool = False
) -> AsyncIterator[None]:
    """Alerts on another database, until the block ends."""
    [port] = free_ports(1)
    words = [word for role in roles for word in ("--role", role)] + (["--rebuild"] if rebuild else [])
    quiet = {"TIEOUT_LOG_LEVEL": os.environ.get("TIEOUT_LOG_LEVEL", "WARNING"), "TIEOUT_LOG_FORMAT": "console"}
    environment = {**quiet, **given, "TIEOUT_DATABASE_URL": url, "TIEOUT_HTTP_PORT": str(port)}
    child = await processes.python("alerts", ["-m", "tieout", "alerts", *words], environment)
    try:
        await processes.wait_ready(child, f"http://127.0.0.1:{port}/health/ready")
        yield
    finally:
        await processes.stop(child)


def _counted(rows: Mapping[str, Rows]) -> str:
    return ", ".join(f"{len(found):,} {name}" for name, found in rows.items() if found)


def _show(say: Say) -> Callable[[str, str], None]:
    return lambda name, line: say(f"{name}: {line}")

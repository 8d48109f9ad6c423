"""`tieout bench replay`: two files of events reconciled offline, beside PostgreSQL that loads and joins the same files."""

import asyncio
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg

from shared.errors import TieoutError
from tieout.bench.harness import machine_facts, say, versions_used
from tieout.local.postgres import LocalPostgres

MISSING = 0.01
DIFFERENT = 0.01
_START = datetime(2026, 11, 1, tzinfo=UTC)
_EVERY = timedelta(milliseconds=100)
_LATER = timedelta(seconds=2)
_NO_CHARACTER = ("\x01", "\x02")
"""Quote and delimiter that stand in no JSON, so that COPY takes a line as it is."""

_JOIN = """
SELECT coalesce(l.key, s.key) AS key, l.amount AS expected, s.amount AS actual,
       CASE WHEN l.key IS NULL THEN 'MissingInternalRecord'
            WHEN s.key IS NULL THEN 'MissingProviderRecord'
            WHEN l.currency <> s.currency THEN 'CurrencyMismatch'
            WHEN l.amount <> s.amount THEN 'AmountMismatch'
            ELSE 'StatusMismatch' END AS type
FROM ledger l FULL OUTER JOIN stripe s USING (key)
WHERE l.key IS NULL OR s.key IS NULL OR l.amount <> s.amount OR l.currency <> s.currency OR l.status <> s.status
"""


class ReplayFailed(TieoutError):
    """The replay that was to be measured did not succeed."""


class Spent(NamedTuple):
    """What one contestant used."""

    seconds: float
    found: int
    """Discrepancies."""


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome: `ratio` is PostgreSQL's seconds to tieout's, so above 1 means that tieout is faster."""

    benchmark: str
    events: int
    seconds: float
    events_per_second: float
    postgresql_seconds: float
    postgresql_load_seconds: float
    ratio: float
    discrepancies: int
    postgresql_found: int
    peak_memory_mb: float
    """Of the replay's largest process."""
    settings: dict[str, Any]
    versions: dict[str, str]
    machine: dict[str, Any]


def bench(payments: int) -> Result:
    """Write two files of about `payments` events each; replay them, and let PostgreSQL load and join them."""
    facts = machine_facts()
    with tempfile.TemporaryDirectory(prefix="tieout-bench-") as folder:
        ledger, stripe = Path(folder) / "ledger.jsonl", Path(folder) / "stripe.jsonl"
        say(f"writing two files of about {payments:,} events")
        events = _write(payments, ledger, stripe)
        with LocalPostgres() as postgres:
            load_s, join = asyncio.run(_in_postgresql(postgres.dsn(), ledger, stripe))
            server = _server_version(postgres)
        say(f"PostgreSQL: loaded in {load_s:.1f} s, joined in {join.seconds:.1f} s, {join.found:,} rows differ")
        replayed = _replayed(ledger, stripe)
        say(f"tieout replay: {replayed.seconds:.1f} s, {replayed.found:,} discrepancies")
    return Result(
        benchmark="replay",
        events=events,
        seconds=round(replayed.seconds, 2),
        events_per_second=round(events / replayed.seconds),
        postgresql_seconds=round(load_s + join.seconds, 2),
        postgresql_load_seconds=round(load_s, 2),
        ratio=round((load_s + join.seconds) / replayed.seconds, 2),
        discrepancies=replayed.found,
        postgresql_found=join.found,
        peak_memory_mb=round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, 1),
        settings={
            "payments": payments,
            "postgresql": "unlogged tables, jsonb lines to typed columns, then FULL OUTER JOIN",
        },
        versions=versions_used() | {"postgresql": server},
        machine=facts,
    )


def _write(payments: int, ledger: Path, stripe: Path) -> int:
    events = 0
    with ledger.open("w") as internal, stripe.open("w") as provider:
        for line, is_internal in _lines(payments):
            (internal if is_internal else provider).write(line)
            events += 1
    return events


def _lines(payments: int) -> Iterator[tuple[str, bool]]:
    chance = random.Random(7)  # noqa: S311 - not a secret: the same data in every run
    for number in range(payments):
        cents = chance.randrange(100, 1_000_000)
        luck = chance.random()
        at = _START + number * _EVERY
        if luck >= MISSING / 2:
            yield _line("ledger", f"pay_{number}", number, cents, at), True
        if luck < MISSING / 2 or luck >= MISSING:
            cents += MISSING <= luck < MISSING + DIFFERENT
            yield _line("stripe", f"pi_{number}", number, cents, at + _LATER), False


def _line(source: str, record: str, number: int, cents: int, at: datetime) -> str:
    return (
        f'{{"source":"{source}","type":"payment.succeeded","id":"{source}-{number}","record":"{record}",'
        f'"occurred_at":"{at.isoformat()}","amount":"{cents // 100}.{cents % 100:02}","currency":"EUR",'
        f'"status":"succeeded","refs":{{"payment_id":"pay_{number}"}}}}\n'
    )


def _replayed(ledger: Path, stripe: Path) -> Spent:
    rules = str(files("shared.packs.billing").joinpath("rules.yaml"))
    command = [sys.executable, "-m", "tieout", "replay", str(ledger), str(stripe), "--rules", rules]
    until = ["--until", (_START + timedelta(days=365)).isoformat()]
    begun = time.perf_counter()
    done = subprocess.run([*command, *until], capture_output=True, check=False, env=os.environ)
    seconds = time.perf_counter() - begun
    if done.returncode:
        raise ReplayFailed(f"tieout replay failed:\n{done.stderr.decode()[-2000:]}")
    return Spent(seconds, done.stdout.count(b"\n"))


async def _in_postgresql(dsn: str, ledger: Path, stripe: Path) -> tuple[float, Spent]:
    connection = await asyncpg.connect(dsn)
    quote, delimiter = _NO_CHARACTER
    try:
        begun = time.perf_counter()
        for name, path in (("ledger", ledger), ("stripe", stripe)):
            await connection.execute(f"CREATE UNLOGGED TABLE {name}_lines (line jsonb)")
            await connection.copy_to_table(
                f"{name}_lines", source=path, format="csv", quote=quote, delimiter=delimiter, timeout=None
            )
            await connection.execute(
                f"CREATE UNLOGGED TABLE {name} AS SELECT line->'refs'->>'payment_id' AS key, "  # noqa: S608 - own names
                "(line->>'amount')::numeric AS amount, line->>'currency' AS currency, line->>'status' AS status "
                f"FROM {name}_lines",
                timeout=None,
            )
        loaded = time.perf_counter()
        found = await connection.fetch(_JOIN, timeout=None)
        return loaded - begun, Spent(time.perf_counter() - loaded, len(found))
    finally:
        await connection.close()


def _server_version(postgres: LocalPostgres) -> str:
    async def ask() -> str:
        connection = await asyncpg.connect(postgres.dsn())
        try:
            version = connection.get_server_version()
        finally:
            await connection.close()
        return f"{version.major}.{version.minor}"

    return asyncio.run(ask())

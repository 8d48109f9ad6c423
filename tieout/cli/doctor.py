"""`tieout doctor`: what is there, what is missing, and what to do about it."""

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import typer

REQUEST_TIMEOUT_S = 3.0
KAFKA_TIMEOUT_S = 5.0
SERVICES = {"ingest": 8080, "alerts": 8081, "matcher": 8082}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    what: str
    is_fine: bool
    detail: str
    needed: bool = True
    """Without it tieout does not run; otherwise it is said only."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor", epilog="Example: TIEOUT_KAFKA_BOOTSTRAP_SERVERS=kafka:9092 tieout doctor")(doctor)


def doctor() -> None:
    """Look at Python, Kafka, topics, PostgreSQL and the services; exit 3 when something that is needed is away."""
    import asyncio

    findings = asyncio.run(_look())
    for finding in findings:
        mark = "ok  " if finding.is_fine else ("FAIL" if finding.needed else "note")
        typer.echo(f"{mark}  {finding.what:<12} {finding.detail}")
    if any(not finding.is_fine and finding.needed for finding in findings):
        raise typer.Exit(3)


async def _look() -> list[Finding]:
    looks: list[Callable[[], Awaitable[list[Finding]]]] = [_python, _local, _kafka, _database, _services]
    return [finding for look in looks for finding in await look()]


async def _python() -> list[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    return [Finding("python", sys.version_info >= (3, 11), f"{version} (3.11 or newer is needed)")]


async def _local() -> list[Finding]:
    from tieout.local.kafka_jvm import missing_programs

    lacking = missing_programs()
    if lacking:
        detail = f"{' and '.join(lacking)} missing: a local Kafka would be the embedded one, which keeps nothing"
        return [Finding("local kafka", is_fine=False, detail=detail, needed=False)]
    return [Finding("local kafka", is_fine=True, detail="Java and Maven are there: `tieout up` runs a real broker")]


async def _kafka() -> list[Finding]:
    from shared.kafka.client import wait_for_kafka
    from shared.kafka.errors import KafkaAway
    from shared.kafka.settings import KafkaSettings
    from shared.kafka.topics import TOPICS, Count, partitions_of
    from shared.settings import load_settings

    settings = load_settings(KafkaSettings)
    try:
        await wait_for_kafka(settings, KAFKA_TIMEOUT_S)
    except KafkaAway as error:
        return [Finding("kafka", is_fine=False, detail=str(error))]
    found = [Finding("kafka", is_fine=True, detail=f"answers at {settings.bootstrap_servers}")]
    names = {settings.topic_prefix + topic.name: topic for topic in TOPICS}
    counts = await partitions_of(settings, *names)
    missing = sorted(set(names) - set(counts))
    state_counts = {counts[name] for name, topic in names.items() if topic.count is Count.STATE and name in counts}
    if missing:
        found.append(
            Finding("topics", is_fine=False, detail=f"missing: {', '.join(missing)}; run `tieout topics apply`")
        )
    elif len(state_counts) > 1:
        found.append(Finding("topics", is_fine=False, detail="legs, state and results have different partition counts"))
    else:
        found.append(
            Finding("topics", is_fine=True, detail=f"all {len(names)}, {state_counts.pop()} partitions of legs")
        )
    return found


async def _database() -> list[Finding]:
    from services.alerts.adapters.database import Database, shown
    from services.alerts.settings import AlertsSettings
    from shared.errors import TieoutError
    from shared.settings import load_settings

    settings = load_settings(AlertsSettings)
    database = Database(settings.database_url.get_secret_value(), role=settings.database_role, pool_size=1)
    try:
        await database.require_schema()
    except TieoutError as error:
        return [Finding("postgresql", is_fine=False, detail=str(error))]
    finally:
        await database.close()
    return [Finding("postgresql", is_fine=True, detail=f"{shown(database.url)} has this build's schema")]


async def _services() -> list[Finding]:
    import asyncio

    return [
        await asyncio.to_thread(_service, name, f"http://127.0.0.1:{port}/health/ready")
        for name, port in SERVICES.items()
    ]


def _service(name: str, url: str) -> Finding:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=REQUEST_TIMEOUT_S):  # noqa: S310 - this machine's own services
            return Finding(name, is_fine=True, detail=f"ready at {url}", needed=False)
    except urllib.error.HTTPError as error:
        return Finding(
            name, is_fine=False, detail=f"not ready: {error.read(500).decode(errors='replace')}", needed=False
        )
    except OSError:
        return Finding(name, is_fine=False, detail=f"does not run here ({url} does not answer)", needed=False)

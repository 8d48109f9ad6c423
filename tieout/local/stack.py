"""Everything that tieout is, on this machine: Kafka, PostgreSQL, topics, tables, rules, keys and the three services."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import apply_topics
from shared.rules.load import parse_rules
from shared.rules.model import RuleFile
from tieout.local.choose import KafkaChoice, PostgresChoice, running_kafka, running_postgres
from tieout.local.places import free_ports
from tieout.local.processes import Child, Processes

PARTITIONS_LOCAL = 4
"""On one machine with a few cores more partitions only cost."""
INBOX_PARTITIONS_LOCAL = 2

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the services listen on 127.0.0.1."""

    ingest: int = 8080
    alerts: int = 8081
    matcher: int = 8082

    @classmethod
    def free(cls) -> "Ports":
        """Ports that nobody uses now."""
        return cls(*free_ports(3))


@dataclass(frozen=True, slots=True)
class Stack:
    """Running services."""

    kafka: KafkaSettings
    database_url: str
    ports: Ports
    processes: Processes
    children: Mapping[str, Child]
    environment: Mapping[str, str]
    """What a command needs to reach the services."""

    @property
    def ingest_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.ingest}"

    @property
    def alerts_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.alerts}"

    @property
    def matcher_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.matcher}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to run."""

    kafka: KafkaChoice
    postgres: PostgresChoice
    ports: Ports
    data_dir: Path | None = None
    """Keeps the data of a local Kafka and PostgreSQL; None: they are gone afterwards."""
    environment: Mapping[str, str] | None = None
    """Added to every service's environment."""


Prepare = Callable[[KafkaSettings, str], Awaitable[None]]
"""Called with Kafka and the database URL once both have their topics and tables, before the services start."""


@asynccontextmanager
async def running_stack(
    wanted: Wanted, prepare: Prepare, say: Say, show: Callable[[str, str], None]
) -> AsyncIterator[Stack]:
    """Start everything in order and wait until each service is ready; leaving the block ends it all.

    Args:
        wanted: which Kafka and PostgreSQL, ports and folders.
        prepare: puts orgs, keys and rules in place.
        say: told what happens, a line each.
        show: gets (service, line) of what the services write.

    Raises:
        LocalUnavailable: something does not start; the message holds its last lines.
    """
    from services.alerts.adapters.database import migrate

    folder = wanted.data_dir
    async with AsyncExitStack() as closing:
        say(wanted.kafka.line)
        kafka = await closing.enter_async_context(running_kafka(wanted.kafka, folder / "kafka" if folder else None))
        say(wanted.postgres.line)
        url = await closing.enter_async_context(
            running_postgres(wanted.postgres, folder / "postgres" if folder else None)
        )
        await apply_topics(kafka, PARTITIONS_LOCAL, INBOX_PARTITIONS_LOCAL)
        await migrate(url)
        await prepare(kafka, url)
        environment = _environment(kafka, url) | dict(wanted.environment or {})
        processes = await closing.enter_async_context(Processes(show))
        children = await _start(processes, wanted.ports, environment)
        for name, child in children.items():
            port = getattr(wanted.ports, name)
            await processes.wait_ready(child, f"http://127.0.0.1:{port}/health/ready")
        say("ingest, matcher and alerts are ready")
        yield Stack(kafka, url, wanted.ports, processes, children, environment)


def _environment(kafka: KafkaSettings, url: str) -> dict[str, str]:
    values = {
        "TIEOUT_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "TIEOUT_KAFKA_TOPIC_PREFIX": kafka.topic_prefix,
        "TIEOUT_KAFKA_CHECK_CRCS": str(kafka.check_crcs).lower(),
        "TIEOUT_DATABASE_URL": url,
    }
    if kafka.security_protocol == "PLAINTEXT":
        values["TIEOUT_KAFKA_SECURITY_PROTOCOL"] = "PLAINTEXT"
    return values


async def _start(processes: Processes, ports: Ports, environment: Mapping[str, str]) -> dict[str, Child]:
    quiet = {
        "TIEOUT_LOG_LEVEL": os.environ.get("TIEOUT_LOG_LEVEL", "WARNING"),
        "TIEOUT_LOG_FORMAT": os.environ.get("TIEOUT_LOG_FORMAT", "console"),
    }
    children: dict[str, Child] = {}
    for name in ("ingest", "matcher", "alerts"):
        own = {**quiet, **environment, "TIEOUT_HTTP_PORT": str(getattr(ports, name))}
        children[name] = await processes.python(name, ["-m", "tieout", name], own)
    return children


def billing_pack() -> RuleFile:
    """Return the billing pack that comes with tieout."""
    return parse_rules((files("shared.packs.billing") / "rules.yaml").read_text(encoding="utf-8"), "billing pack")


async def put_in_force(kafka: KafkaSettings, file: RuleFile, org: str, applied_by: str) -> None:
    """Put the rules of `file` in force for `org`."""
    from tieout.rules_topic import apply_rules

    await apply_rules(kafka, file, org, applied_by)

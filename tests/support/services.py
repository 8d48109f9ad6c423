"""The three services as real processes on a test's Kafka and PostgreSQL, to kill, freeze and start again."""

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

from services.alerts.adapters.database import Database, migrate
from services.alerts.adapters.topic_outbox import TopicOutbox
from shared.kafka.settings import KafkaSettings
from shared.rules.model import RuleFile
from tieout.local.access import create_access
from tieout.local.places import free_ports
from tieout.local.processes import Child, Processes
from tieout.local.stack import billing_pack, put_in_force

ORG = "acme"
SECRET = "whsec_dGllb3V0LWVuZC10by1lbmQ"
# Imports of three services on two busy cores.
READY_TIMEOUT_S = 120.0


def short_rules(deadline_s: float) -> RuleFile:
    """Return the billing pack with deadlines that a test can wait for."""
    pack = billing_pack()
    deadline = f"{round(deadline_s * 1000)}ms" if deadline_s % 1 else f"{round(deadline_s)}s"
    return pack.model_copy(update={"rules": [r.model_copy(update={"deadline": deadline}) for r in pack.rules]})


@dataclass
class Services:
    """Processes by name; a name is a service, or a service and a number (`ingest-2`)."""

    kafka: KafkaSettings
    database_url: str
    processes: Processes
    keys: Mapping[str, str]
    environment: dict[str, str]
    ports: dict[str, int] = field(default_factory=dict)
    children: dict[str, Child] = field(default_factory=dict)
    started: dict[str, dict[str, str]] = field(default_factory=dict)
    up: set[str] = field(default_factory=set)
    """What is meant to run: an orchestrator would start it again."""
    modules: dict[str, list[str]] = field(default_factory=dict)
    """What is run in place of a service's own module, by the name it is started under."""

    async def start(self, name: str, **environment: str) -> Self:
        """Start a service without waiting for it; the same name again starts it as it was."""
        self.ports.setdefault(name, free_ports(1)[0])
        added = self.started.setdefault(name, environment)
        own = {
            **self.environment,
            "TIEOUT_HTTP_PORT": str(self.ports[name]),
            # As a StatefulSet runs them: a process that comes back takes its own partitions at once.
            "POD_NAME": f"{self.kafka.topic_prefix}{name}",
            "TIEOUT_SINK_INSTANCE_ID": f"{self.kafka.topic_prefix}{name}",
            **added,
        }
        service = name.partition("-")[0]
        command = ["-m", *self.modules.get(name, [f"services.{service}"])]
        self.children[name] = await self.processes.python(name, command, own)
        self.up.add(name)
        return self

    async def ready(self, *names: str) -> None:
        for name in names:
            await self.processes.wait_ready(self.children[name], f"{self.url(name)}/health/ready", READY_TIMEOUT_S)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    async def kill(self, name: str) -> None:
        """`kill -9`."""
        self.up.discard(name)
        await self.processes.kill(self.children[name])

    async def end(self, name: str) -> int:
        """SIGTERM; the exit code, which is that of SIGKILL where it did not end by itself."""
        self.up.discard(name)
        return await self.processes.stop(self.children[name])

    def freeze(self, name: str) -> None:
        os.killpg(self.children[name].pid, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.children[name].pid, signal.SIGCONT)


@asynccontextmanager
async def prepared(
    kafka: KafkaSettings, database_url: str, rules: RuleFile, **environment: str
) -> AsyncIterator[Services]:
    """Tables, an organisation with keys and sources, and its rules; topics are there already. Ends what was started."""
    await migrate(database_url)
    sources = {"ledger": None, "stripe": "stripe"}
    keys = await create_access(database_url, ORG, ("owner", "ingest"), sources)
    await _publish_directory(kafka, database_url)
    await put_in_force(kafka, rules, ORG, "test")
    settings = {
        "TIEOUT_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "TIEOUT_KAFKA_TOPIC_PREFIX": kafka.topic_prefix,
        "TIEOUT_KAFKA_CHECK_CRCS": str(kafka.check_crcs).lower(),
        "TIEOUT_DATABASE_URL": database_url,
        "TIEOUT_LOG_LEVEL": os.environ.get("TIEOUT_LOG_LEVEL", "WARNING"),
        "TIEOUT_INGEST_GROUP": f"{kafka.topic_prefix}ingest",
        "TIEOUT_MATCHER_GROUP": f"{kafka.topic_prefix}matcher",
        "TIEOUT_SINK_GROUP": f"{kafka.topic_prefix}sink",
        f"TIEOUT_WEBHOOK_SECRET__{ORG.upper()}__STRIPE": SECRET,
        "TIEOUT_WEBHOOKS_ALLOW_PRIVATE": "true",
        **environment,
    }
    async with Processes() as processes:
        services = Services(kafka, database_url, processes, keys, settings)
        try:
            yield services
        finally:
            for name in services.children:
                services.thaw(name)


async def _publish_directory(kafka: KafkaSettings, database_url: str) -> None:
    """What alerts does all the time, once: so that ingest knows the keys also where alerts does not run."""
    database = Database(database_url)
    outbox = TopicOutbox(database, kafka)
    try:
        await outbox.publish_once()
    finally:
        await outbox.close()
        await database.close()

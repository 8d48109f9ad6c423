"""Real servers for every test that needs one: the best that runs on this machine, named in the summary."""

import atexit
import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from shared.kafka.client import admin
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics, apply_topics
from tests.support import servers
from tests.support.servers import Server
from tieout.local.errors import LocalUnavailable
from tieout.local.kafka_jvm import JvmKafka
from tieout.local.postgres import LocalPostgres, create_database, drop_database

# Few, so that a topic set appears at once; enough that partitions are told apart.
PARTITIONS = 3
INBOX_PARTITIONS = 2


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"partitions(state, inbox): partition counts of the `topics` fixture (default {PARTITIONS}, {INBOX_PARTITIONS})",
    )
    if not hasattr(config, "workerinput"):
        folder = servers.open_folder()
        config.stash[_FOLDER] = folder
        # Also when the run is aborted before pytest_unconfigure.
        atexit.register(servers.close_folder, folder)
        # A run that a time limit ends must not leave a JVM behind: end as after Ctrl-C.
        signal.signal(signal.SIGTERM, signal.default_int_handler)


_FOLDER = pytest.StashKey[Path]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if _FOLDER in config.stash:
        for line in sorted({server.line for server in servers.notes(config.stash[_FOLDER]) if server.line}):
            terminalreporter.write_line(line, bold=True, yellow="!!!" in line)


def pytest_unconfigure(config: pytest.Config) -> None:
    if _FOLDER in config.stash:
        servers.close_folder(config.stash[_FOLDER])


def _worker() -> str:
    return os.environ.get("PYTEST_XDIST_WORKER", "main")


@pytest.fixture(scope="session")
def kafka() -> Iterator[Server]:
    """A running Kafka, shared by the whole run: testcontainers, else the JVM, else embedded."""
    yield from servers.kafka(_worker())


@pytest.fixture(scope="session")
def real_kafka(kafka: Server) -> Server:
    """The same, for tests of what the embedded broker does not have; skips there, with the reason."""
    if kafka.kind == "embedded":
        pytest.skip("needs a real broker: install Java and Maven, or run a Docker engine")
    return kafka


@pytest.fixture
async def kafka_settings(kafka: Server) -> AsyncIterator[KafkaSettings]:
    """Settings with a topic prefix that no other test has; its topics are deleted afterwards."""
    settings = KafkaSettings.local(kafka.address, topic_prefix=f"t{uuid.uuid4().hex[:12]}.")
    yield settings
    if kafka.kind == "embedded":
        return
    client = admin(settings)
    await client.start()
    try:
        mine = [name for name in await client.list_topics() if name.startswith(settings.topic_prefix)]
        if mine:
            await client.delete_topics(mine)
    finally:
        await client.close()


@pytest.fixture
async def topics(kafka_settings: KafkaSettings, request: pytest.FixtureRequest) -> Topics:
    """All declared topics under the test's prefix; `@pytest.mark.partitions(state=4, inbox=1)` sets counts."""
    marker = request.node.get_closest_marker("partitions")
    counts = marker.kwargs if marker else {}
    await apply_topics(kafka_settings, counts.get("state", PARTITIONS), counts.get("inbox", INBOX_PARTITIONS))
    return Topics(kafka_settings.topic_prefix)


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[JvmKafka]:
    """A JVM broker of the test's own, to kill, pause and restart."""
    broker = JvmKafka(tmp_path / "kafka")
    try:
        broker.start()
    except LocalUnavailable as error:
        pytest.skip(f"needs a broker of its own: {error}")
    with servers.remembered(broker.pid):
        yield broker
        broker.resume()
        broker.kill()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A running PostgreSQL, shared by the whole run; its address is the superuser's SQLAlchemy URL."""
    yield from servers.postgres(_worker())


@pytest.fixture
async def database_url(postgres: Server) -> AsyncIterator[str]:
    """The superuser's URL (postgresql+asyncpg://) of an empty database that no other test has."""
    name = f"t{uuid.uuid4().hex[:12]}"
    yield await create_database(postgres.address, name)
    await drop_database(postgres.address, name)


@pytest.fixture
def own_postgres() -> Iterator[LocalPostgres]:
    """A PostgreSQL of the test's own, to kill and restart."""
    with LocalPostgres(durable=False) as server, servers.remembered(server.pid):
        yield server

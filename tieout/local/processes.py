"""The services as child processes: their lines with a name in front, and none left behind.

Each child has its own process group, so a Ctrl-C reaches only us and we end the children in order:
the last started first. The whole group is ended, with what the child itself has started.
"""

import asyncio
import atexit
import contextlib
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tieout.local.errors import LocalUnavailable

# A matcher finishes its transactions, the API its requests; then it is killed.
STOP_TIMEOUT_S = 15.0
# Imports and restore on a loaded machine with two cores.
READY_TIMEOUT_S = 60.0
READY_PAUSE_S = 0.1
READY_REQUEST_TIMEOUT_S = 2.0
# A longer line is printed in pieces instead of ending the reader.
LINE_BYTES_MAX = 1_000_000
# How many last lines an error about a child shows.
_TAIL_LINES = 15


@dataclass(eq=False)
class Child:
    """One running program; `lines` are the last that it wrote."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    """Added to ours."""
    process: asyncio.subprocess.Process
    lines: list[str]
    reader: "asyncio.Task[None] | None" = None

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self.process.returncode


def print_line(name: str, line: str) -> None:
    """One line of a child, flushed, so that it shows at once in a pipe too."""
    print(f"{name:>10} | {line}", flush=True)


class Processes:
    """Start, watch and end child processes. Use as `async with`: leaving it, however, ends them all."""

    def __init__(self, show: Callable[[str, str], None] = print_line, stop_timeout_s: float = STOP_TIMEOUT_S) -> None:
        self._show = show
        self._stop_timeout_s = stop_timeout_s
        self._children: list[Child] = []

    async def start(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Child:
        """Start `command` (the program and its arguments) with our environment and what is added.

        Raises `LocalUnavailable` when the program does not exist.
        """
        child = Child(
            name, tuple(command), dict(environment or {}), await _spawned(name, command, environment or {}), []
        )
        self._children.append(child)
        child.reader = asyncio.create_task(self._read(child), name=f"lines of {name}")
        return child

    async def restart(self, child: Child) -> None:
        """Start what `child` is once more, in a new process; whatever is left of the old one is ended."""
        _signal(child, signal.SIGKILL)
        await child.process.wait()
        await self._drained(child)
        child.process = await _spawned(child.name, child.command, child.environment)
        child.lines = []
        child.reader = asyncio.create_task(self._read(child), name=f"lines of {child.name}")

    async def python(self, name: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Child:
        """Start this same Python with `arguments`, such as `-m tieout matcher`."""
        return await self.start(name, [sys.executable, *arguments], environment)

    async def _read(self, child: Child) -> None:
        assert child.process.stdout is not None
        async for raw in _lines(child.process.stdout):
            line = raw.decode(errors="replace").rstrip("\r\n")
            child.lines = [*child.lines[-_TAIL_LINES + 1 :], line]
            self._show(child.name, line)

    async def wait_ready(self, child: Child, url: str, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Return once a GET of `url` answers 2xx.

        Raises `LocalUnavailable` when the child ends before, or does not answer in time.
        """
        answer = "no answer"
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    if child.exit_code is not None:
                        await self._drained(child)
                        raise LocalUnavailable(
                            f"{child.name} ended with exit code {child.exit_code} before it was ready:\n"
                            + "\n".join(child.lines)
                        )
                    answer = await asyncio.to_thread(_status, url)
                    if answer.startswith("2"):
                        return
                    await asyncio.sleep(READY_PAUSE_S)
        except TimeoutError:
            raise LocalUnavailable(
                f"{child.name} was not ready at {url} within {timeout_s:g} s (last answer: {answer}):\n"
                + "\n".join(child.lines)
            ) from None

    async def first_to_end(self) -> Child:
        """Wait until any child ends, and say which."""
        assert self._children, "start a child first"
        waiting = {asyncio.create_task(child.process.wait()): child for child in self._children}
        try:
            ended, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        child = waiting[ended.pop()]
        await self._drained(child)
        return child

    async def stop(self, child: Child) -> int:
        """SIGTERM, then SIGKILL after the time-out; returns the exit code."""
        if child.exit_code is None:
            _signal(child, signal.SIGTERM)
            try:
                await asyncio.wait_for(child.process.wait(), self._stop_timeout_s)
            except TimeoutError:
                self._show(child.name, f"did not end within {self._stop_timeout_s:g} s of SIGTERM: killed")
        return await self.kill(child)

    async def kill(self, child: Child) -> int:
        """SIGKILL to the child and all it has started; returns the exit code."""
        _signal(child, signal.SIGKILL)
        code = await child.process.wait()
        await self._drained(child)
        if child in self._children:
            self._children.remove(child)
        return code

    async def _drained(self, child: Child) -> None:
        """Its last lines are shown; what a stray grandchild still holds open is not waited for."""
        if child.reader is not None:
            await asyncio.wait([child.reader], timeout=1.0)

    async def stop_all(self) -> None:
        """End every child, the last started first."""
        for child in reversed(list(self._children)):
            await self.stop(child)

    def _kill_now(self) -> None:
        for child in self._children:
            _signal(child, signal.SIGKILL)

    async def __aenter__(self) -> Self:
        # The last guard: an interpreter that ends without leaving the block.
        atexit.register(self._kill_now)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stopping = asyncio.create_task(self.stop_all())
        try:
            await asyncio.shield(stopping)
        except asyncio.CancelledError:
            # A second Ctrl-C: no more patience.
            self._kill_now()
            await stopping
            raise
        finally:
            atexit.unregister(self._kill_now)


@contextlib.asynccontextmanager
async def ended_by_signals() -> AsyncIterator[asyncio.Event]:
    """An event that SIGINT or SIGTERM sets, instead of a traceback; the second one cancels the caller."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    caller = asyncio.current_task()

    def ask() -> None:
        if asked.is_set() and caller is not None:
            caller.cancel()
        asked.set()

    for which in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(which, ask)
    try:
        yield asked
    finally:
        for which in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(which)


async def _spawned(name: str, command: Sequence[str], added: Mapping[str, str]) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **added},
            start_new_session=True,
            limit=LINE_BYTES_MAX,
        )
    except OSError as error:
        raise LocalUnavailable(f"{name}: {command[0]} does not start: {error.strerror}") from error


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while True:
        try:
            line = await stream.readuntil()
        except asyncio.IncompleteReadError as end:
            if end.partial:
                yield end.partial
            return
        except asyncio.LimitOverrunError as long:
            line = await stream.read(max(long.consumed, 1))
        yield line


def _signal(child: Child, which: signal.Signals) -> None:
    # The group may outlive its leader; a recycled id cannot be a group of ours while one member lives.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, which)


def _status(url: str) -> str:
    assert url.startswith("http://127.0.0.1"), "only our own children are asked"
    try:
        with urllib.request.urlopen(url, timeout=READY_REQUEST_TIMEOUT_S) as response:  # noqa: S310 - see above
            return str(response.status)
    except urllib.error.HTTPError as error:
        return str(error.code)
    except OSError as error:
        return f"no answer ({error})"

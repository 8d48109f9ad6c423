"""An event loop without real time, threads or sockets: the same seed gives the same run, step by step.

Time passes only when nobody has anything to do, and then by a leap. Everything that runs belongs to a process (see
`Process`), known by a context variable that tasks inherit. A process that was killed never takes another step; one that
is frozen takes none until it is thawed. Which process takes the next step is drawn from the seed; inside a process steps
keep their order, as asyncio promises.
"""

import asyncio
import contextvars
import heapq
import itertools
import random
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

STEPS_MAX = 3_000_000
"""Of one run: more means that something spins."""


class Spinning(AssertionError):
    """The run takes steps and time stands still, or it never ends."""


@dataclass(eq=False)
class Process:
    """One simulated process and the clock it goes by."""

    name: str
    rate: float = 1.0
    """Seconds that its clock goes on in one true second."""
    offset_s: float = 0.0
    alive: bool = True
    frozen: bool = False
    steps: int = 0
    die_at_step: int = -1
    queue: deque[asyncio.Handle] = field(default_factory=deque)
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)

    def clock(self, now_s: float) -> float:
        """What `time.monotonic` says in this process."""
        return self.offset_s + self.rate * now_s

    def kill(self) -> None:
        """`kill -9`: not one step more, no `finally`, no goodbye."""
        self.alive = False
        self.queue.clear()


PROCESS: contextvars.ContextVar[Process] = contextvars.ContextVar("process")


class SimulatedLoop(asyncio.BaseEventLoop):
    """See above. `outside` is the process of the broker, the network and the test itself."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.now_s = 0.0
        self.steps = 0
        self.processes: list[Process] = []
        self.outside = self.add(Process("outside"))
        self.failures: list[str] = []
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = itertools.count()
        self._waiting: list[Process] = []
        """Those with steps to take."""
        self._chance = chance
        self._clock_resolution = 1e-9
        self.set_exception_handler(self._keep)
        self.set_task_factory(_make_task)

    def add(self, process: Process) -> Process:
        self.processes.append(process)
        return process

    def start(self, process: Process, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run `work` as a task of `process`."""
        context = contextvars.copy_context()
        context.run(PROCESS.set, process)
        return self.create_task(work, context=context)

    def time(self) -> float:
        return self.now_s

    def call_at(
        self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """As its parent, with a heap of plain tuples: handles that compare themselves cost a sixth of a run."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def monotonic(self) -> float:
        """What stands in for `time.monotonic`."""
        return PROCESS.get(self.outside).clock(self.now_s)

    def _keep(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # Not an error by itself: a task that fails and that nobody awaits is what a real process would only log.
        self.failures.append(f"{context.get('message')}: {context.get('exception')!r}")

    def _run_once(self) -> None:
        """Take steps until somebody stops the loop."""
        while not self._stopping:
            self._sort_in()
            handle = self._next()
            if handle is not None:
                self.steps += 1
                if self.steps > STEPS_MAX:
                    raise Spinning(f"{STEPS_MAX} steps, and the simulated time is {self.now_s:.3f} s")
                handle._run()
            elif self._timers:
                self.now_s = max(self.now_s, self._timers[0][0])
            else:
                raise Spinning("nothing will ever happen again")

    def _sort_in(self) -> None:
        timers, ready, now_s = self._timers, self._ready, self.now_s
        while timers and timers[0][0] <= now_s:
            ready.append(heapq.heappop(timers)[2])
        while ready:
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(PROCESS, self.outside)
            if process.alive:
                if not process.queue:
                    self._waiting.append(process)
                process.queue.append(handle)

    def _next(self) -> asyncio.Handle | None:
        """The next step of any process that has one."""
        while able := [one for one in self._waiting if not one.frozen]:
            process = able[0] if len(able) == 1 else able[int(self._chance.random() * len(able))]
            if not process.queue:  # it was killed
                self._waiting.remove(process)
                continue
            handle = process.queue.popleft()
            if not process.queue:
                self._waiting.remove(process)
            process.steps += 1
            if process.steps == process.die_at_step:
                process.kill()
            elif not handle._cancelled:
                return handle
        return None

    def _write_to_self(self) -> None:
        """There is no other thread to wake."""

    def _process_events(self, event_list: object) -> None:
        """There are no sockets."""

    def bury(self) -> None:
        """End everything that is still there without letting it do anything."""
        for process in self.processes:
            process.kill()
        self._ready.clear()
        self._timers.clear()
        for process in self.processes:
            for task in process.tasks:
                task._log_destroy_pending = False
                _close(task)
        self.close()


def _close(task: "asyncio.Task[Any]") -> None:
    coroutine = task.get_coro()
    try:
        if not task.done() and coroutine is not None:
            coroutine.close()
    except BaseException:  # noqa: BLE001 - what a dead process's `finally` would do is of no interest
        pass


def _make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, context: Any = None) -> "asyncio.Task[Any]":
    task = asyncio.Task(coroutine, loop=loop, context=context)
    process = (context.get(PROCESS) if context is not None else None) or PROCESS.get(None)
    # Kept until the end: a task that nobody holds would be closed at some time, and run its `finally` then.
    if process is not None:
        process.tasks.append(task)
    return task

"""Services that end by themselves are started again, as an orchestrator does.

The matcher's watchdog counts on it: it ends a process that stands still.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine
from typing import Any

from shared.errors import DependencyAway
from tieout.local.processes import Child, Processes

ENDS_MAX = 5
"""Of one service within `ENDS_WINDOW_S`: what ends so often does not get better by being started again."""
ENDS_WINDOW_S = 60.0
PAUSE_FIRST_S = 0.5
PAUSE_MAX_S = 8.0


class ServiceEnded(DependencyAway):
    """A service ends again and again while it should run."""


async def run_until_asked(
    asked: asyncio.Event, processes: Processes, say: Callable[[str], None], *work: Coroutine[Any, Any, None]
) -> None:
    """Keep the children of `processes` running until `asked` is set or one of `work` is done.

    Raises:
        ServiceEnded: see `keep_running`.
        Exception: what `work` raised.
    """
    stop = asyncio.create_task(asked.wait())
    tasks = [asyncio.create_task(part) for part in (keep_running(processes, say), *work)]
    try:
        done, _ = await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in [stop, *tasks]:
            task.cancel()
        await asyncio.gather(stop, *tasks, return_exceptions=True)
    for task in tasks:
        if task in done:
            task.result()


async def keep_running(processes: Processes, say: Callable[[str], None]) -> None:
    """Start every child again that ends by itself, after a pause that grows; ends only when it is cancelled.

    Raises:
        ServiceEnded: one ended `ENDS_MAX` times within `ENDS_WINDOW_S`.
    """
    ends_s: defaultdict[Child, deque[float]] = defaultdict(lambda: deque(maxlen=ENDS_MAX))
    while True:
        child = await processes.first_to_end()
        now_s = time.monotonic()
        ends_s[child].append(now_s)
        recent = sum(now_s - at_s < ENDS_WINDOW_S for at_s in ends_s[child])
        if recent >= ENDS_MAX:
            raise ServiceEnded(
                f"{child.name} ended {recent} times within {ENDS_WINDOW_S:g} s, at last with exit code {child.exit_code}; "
                "its last lines are above. It is not started again, and the others are ended too."
            )
        pause_s = min(PAUSE_FIRST_S * 2 ** (recent - 1), PAUSE_MAX_S)
        say(f"{child.name} ended with exit code {child.exit_code}: it is started again in {pause_s:g} s")
        await asyncio.sleep(pause_s)
        await processes.restart(child)

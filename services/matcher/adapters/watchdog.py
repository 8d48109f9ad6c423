"""Ends a process that stands still: a consumer can stay stuck after a broker's restart, and only a new one helps."""

import asyncio
import time
from collections.abc import Callable

from services.matcher.ports import PartitionStatus, Status
from shared.errors import DependencyAway

LOOK_S = 1.0


class Stalled(DependencyAway):
    """No progress for too long; a new process may do better."""


class Watchdog:
    """Knows for each partition, and for the assignment, since when there was no progress."""

    def __init__(self, stall_timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._stall_timeout_s = stall_timeout_s
        self._clock = clock
        self._joined_s = clock()
        self._looked_s = clock()
        self._steps: dict[int, tuple[int, float]] = {}

    async def run(self, status: Callable[[], Status]) -> None:
        """Look every second.

        Raises:
            Stalled: the process should end.
        """
        while True:
            self.look(status())
            await asyncio.sleep(LOOK_S)

    def look(self, status: Status) -> None:
        """Compare with the last look; see `run`."""
        now = self._clock()
        if now - self._looked_s > self._stall_timeout_s / 2:
            # This process itself stood still (SIGSTOP, a suspended machine): what it waited for had no chance.
            self._joined_s = now
            self._steps = {}
        self._looked_s = now
        if status.joined:
            self._joined_s = now
        elif now - self._joined_s > self._stall_timeout_s:
            raise Stalled(
                f"no assignment from the consumer group for {now - self._joined_s:.0f} s: ending, start again"
            )
        self._steps = {one.number: self._last_step(one, status, now) for one in status.partitions}

    def _last_step(self, one: PartitionStatus, status: Status, now: float) -> tuple[int, float]:
        steps, since = self._steps.get(one.number, (-1, now))
        waits = status.halted is None and (one.lag > 0 or not one.restored)
        if one.steps != steps or not waits:
            return one.steps, now
        if now - since > self._stall_timeout_s:
            what = f"{one.lag} records wait" if one.restored else "its state is not restored"
            raise Stalled(
                f"partition {one.number}: {what} and nothing moved for {now - since:.0f} s: ending, start again"
            )
        return steps, since

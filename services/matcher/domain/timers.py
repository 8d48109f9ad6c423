"""Timers of a partition: which group is due when. Order of firing: (time, group key)."""

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from typing import Any

BUCKET_MS = 4096
"""Timers are kept unsorted in buckets of this width and sorted when their bucket comes up: setting one costs a list append."""

NEVER = 1 << 62


class Timers:
    """A group may stand here more often than once; whoever fires it looks at the group's own `due_at`."""

    def __init__(self) -> None:
        self.next_at = NEVER
        """Nothing is due before this time (a lower bound)."""
        self._buckets: dict[int, list[Any]] = {}
        """Time and group in turn: one list per bucket, no tuple per timer."""
        self._order: list[int] = []
        self._ready: list[tuple[int, bytes]] = []
        self._opened_until = -1
        self._to_sift = 0
        self._unsifted: list[int] = []
        """Buckets to be sifted next, the last one first."""

    def set(self, time: int, group: bytes) -> None:
        """Let `group` be due at `time`."""
        if time < self._opened_until:
            heappush(self._ready, (time, group))
        else:
            bucket = time // BUCKET_MS
            timers = self._buckets.get(bucket)
            if timers is None:
                timers = self._buckets[bucket] = []
                heappush(self._order, bucket)
            timers += (time, group)
        if time < self.next_at:  # noqa: PLR1730 - min() costs three times as much here
            self.next_at = time

    def due(self, log_time: int) -> Iterator[tuple[int, bytes]]:
        """Yield (time, group) of every timer before `log_time`, in order, also those set meanwhile."""
        ready, order = self._ready, self._order
        while True:
            start = order[0] * BUCKET_MS if order else NEVER
            if start < log_time and (not ready or ready[0][0] >= start):
                self._open(heappop(order))
            elif ready and ready[0][0] < log_time:
                yield heappop(ready)
            else:
                self.next_at = min(start, ready[0][0] if ready else NEVER)
                return

    def sift(self, is_idle: Callable[[bytes], bool], timers: int) -> None:
        """Drop what belongs to idle groups from the next buckets in turn, until so many timers were looked at.

        An idle group is one that something else wakes. Buckets are looked at whole: what is too many counts next time.
        """
        self._to_sift += timers
        while self._to_sift > 0:
            if not self._unsifted:
                self._unsifted = list(reversed(self._buckets))
                if not self._unsifted:
                    return
            found = self._buckets.get(self._unsifted.pop())
            self._to_sift -= 1
            if found:
                self._to_sift -= len(found) // 2
                both = zip(found[::2], found[1::2], strict=True)
                found[:] = [part for timer in both if not is_idle(timer[1]) for part in timer]

    def _open(self, bucket: int) -> None:
        timers = self._buckets.pop(bucket)
        self._ready += zip(timers[::2], timers[1::2], strict=True)
        heapify(self._ready)
        self._opened_until = max(self._opened_until, (bucket + 1) * BUCKET_MS)

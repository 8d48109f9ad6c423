"""How many events of each source came between two ticks, and when: what tells a silent feed from one that is late."""

from collections.abc import Callable
from typing import NamedTuple

from shared.contracts.leg import FeedCount, Tick

FEEDS_PER_TICK_MAX = 2000
"""Some 100 KB: a tick is one record, written to every partition of `legs`."""

SourceOfOrg = tuple[str, str]


class _Seen(NamedTuple):
    """Events of one source; receipts by the broker's clock, milliseconds."""

    events: int
    first_at: int
    last_at: int
    longest_ms: int


class FeedCounts:
    """Events by inbox partition, org and source."""

    def __init__(self) -> None:
        self._seen: dict[int, dict[SourceOfOrg, _Seen]] = {}
        self._told: dict[int, int] = {}
        """Time of the last tick, by inbox partition."""

    def add(self, inbox_partition: int, org: str, source: str, time_ms: int) -> None:
        """Count an event."""
        self._put(inbox_partition, (org, source), _Seen(1, time_ms, time_ms, 0))

    def merge(self, other: "FeedCounts") -> None:
        """Add what another has counted."""
        for partition, counts in other._seen.items():  # noqa: SLF001 - its own kind
            for name, seen in counts.items():
                self._put(partition, name, seen)

    def forget(self, inbox_partition: int) -> None:
        """Drop what was counted of a partition that somebody else reads now."""
        self._seen.pop(inbox_partition, None)
        self._told.pop(inbox_partition, None)

    def ticks(self, inbox_partition: int, of: int, time_ms: int, owner_of: Callable[[str, str], int]) -> list[Tick]:
        """Return the ticks that bring one inbox partition (one `of` so many) to `time_ms` with all that was counted of it.

        Of several only the last one carries the new time: nothing counted is told after its time has come.
        """
        counts = [
            FeedCount(*name, *seen, owner_of(*name))
            for name, seen in sorted(self._seen.get(inbox_partition, {}).items())
        ]
        pieces = [counts[at : at + FEEDS_PER_TICK_MAX] for at in range(0, len(counts), FEEDS_PER_TICK_MAX)] or [[]]
        before = self._told.get(inbox_partition, min((count.first_at for count in counts), default=time_ms))
        times = [before] * (len(pieces) - 1) + [time_ms]
        return [Tick(inbox_partition, of, time, piece) for time, piece in zip(times, pieces, strict=True)]

    def told(self, inbox_partition: int, time_ms: int) -> None:
        """Begin anew: the ticks of a partition are acknowledged."""
        self._seen.pop(inbox_partition, None)
        self._told[inbox_partition] = time_ms

    def _put(self, inbox_partition: int, name: SourceOfOrg, seen: _Seen) -> None:
        counts = self._seen.setdefault(inbox_partition, {})
        before = counts.get(name)
        if before is not None:
            seen = _Seen(
                before.events + seen.events,
                min(before.first_at, seen.first_at),
                max(before.last_at, seen.last_at),
                max(before.longest_ms, seen.longest_ms, seen.first_at - before.last_at),
            )
        counts[name] = seen

"""How many events of each source came between two ticks, and when: what tells a silent feed from one that is late."""

from collections.abc import Callable

from shared.contracts.leg import FeedCount, Tick

FEEDS_PER_TICK_MAX = 2000
"""Some 100 KB: a tick is one record, written to every partition of `legs`."""

SourceOfOrg = tuple[str, str]


_Seen = list[int]
"""Events of one source, receipt of the first and of the last (broker's clock, milliseconds), the longest time between two."""


class FeedCounts:
    """Events by inbox partition, org and source."""

    def __init__(self) -> None:
        self._seen: dict[int, dict[SourceOfOrg, _Seen]] = {}
        self._told: dict[int, int] = {}
        """Time of the last tick, by inbox partition."""

    def add(self, inbox_partition: int, org: str, source: str, time_ms: int) -> None:
        """Count an event."""
        counts = self._seen.get(inbox_partition)
        if counts is None:
            counts = self._seen[inbox_partition] = {}
        seen = counts.get((org, source))
        if seen is None:
            counts[org, source] = [1, time_ms, time_ms, 0]
        elif time_ms == seen[2]:
            seen[0] += 1  # the broker stamps whole batches
        else:
            _add(seen, 1, time_ms, time_ms, 0)

    def merge(self, other: "FeedCounts") -> None:
        """Add what another has counted."""
        for partition, counts in other._seen.items():  # noqa: SLF001 - its own kind
            own = self._seen.setdefault(partition, {})
            for name, seen in counts.items():
                before = own.get(name)
                if before is None:
                    own[name] = list(seen)
                else:
                    _add(before, *seen)

    def forget(self, inbox_partition: int) -> None:
        """Drop what was counted of a partition that somebody else reads now."""
        self._seen.pop(inbox_partition, None)
        self._told.pop(inbox_partition, None)

    def ticks(self, inbox_partition: int, of: int, time_ms: int, owner_of: Callable[[str, str], int]) -> list[Tick]:
        """Return the ticks that bring one inbox partition (one `of` so many) to `time_ms` with all that was counted of it.

        Of several only the last one carries the new time: nothing counted is told after its time has come.
        """
        counts = [
            FeedCount(*name, seen[0], seen[1], seen[2], seen[3], owner_of(*name))
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


def _add(seen: _Seen, events: int, first_at: int, last_at: int, longest_ms: int) -> None:
    seen[0] += events
    gap = first_at - seen[2]
    gap = max(gap, longest_ms)
    seen[3] = max(seen[3], gap)
    seen[1] = min(seen[1], first_at)
    seen[2] = max(seen[2], last_at)

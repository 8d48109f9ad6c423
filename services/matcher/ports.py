"""What the matcher's use cases need from outside, and what may go wrong there."""

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from services.matcher.domain.changes import Changes
from shared.contracts.discrepancy import Progress
from shared.contracts.leg import LegRecord

Entry = tuple[bytes, bytes]
"""A piece of state: key and packed value; an empty value says that the key was forgotten."""
Headers = Sequence[tuple[str, bytes]]


class Core(Protocol):
    """The pure matcher of one partition: a function of the records applied, nothing else."""

    @property
    def version(self) -> int:
        """What makes other results of the same log has another version."""

    @property
    def log_time(self) -> int:
        """Milliseconds; -1 while unknown."""

    @property
    def offset_base(self) -> int:
        """What has to be added to an offset of the input for its place in the log."""

    @property
    def discrepancies_wait(self) -> bool:
        """There are some that no batch has taken yet."""

    @property
    def open_items(self) -> int: ...
    @property
    def settled_items(self) -> int: ...
    @property
    def state_bytes(self) -> int: ...

    @property
    def run(self) -> "Run | None":
        """A faster way for the commonest records, where there is one.

        It applies those of the records from a place on, given the next offset to apply, and returns the place of the
        first one that `apply` has to do, or their number.
        """

    def apply(self, group: bytes, record: LegRecord, offset: int, value: bytes | None = None) -> None:
        """Apply one record of the log; `group` is its Kafka key, `value` its Kafka value where that is at hand."""

    def freeze(self) -> bool:
        """Make some of what is settled small, for a moment (2 ms); False: there was nothing to do."""

    def take(self) -> Changes:
        """What happened since the last `take`."""

    def snapshot(self) -> Iterator[Entry]:
        """The whole state. Records may be applied between two steps: each step gives a value as it is then."""

    def restore(self, entries: Iterable[Entry]) -> None:
        """Put entries back in the order they were written; called once per piece of the log."""


Run = Callable[[list[Any], int, int], int]


class InputRecord(Protocol):
    """A record of `legs` as the consumer gives it."""

    @property
    def offset(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...


@dataclass(slots=True)
class Slice:
    """A piece of a snapshot. All pieces together, with the changes written between them, are the whole state."""

    entries: list[Entry]
    first: bool
    last: bool


class Mark(NamedTuple):
    """When the last checkpoint began, and which core made the state since then. Kept with every state record."""

    period: int = -1
    """Log time divided by the interval of checkpoints; -1: none yet."""
    core_version: int = 0


NO_MARK = Mark()


@dataclass(frozen=True, slots=True)
class CheckpointHead:
    """What a checkpoint says of itself."""

    core_version: int
    """Of the core that goes on from here."""
    made_by: int
    """Of the core that made the state up to here."""
    log_time: int
    """Milliseconds, where the checkpoint began."""


@dataclass(slots=True)
class CheckpointPiece:
    """A slice of a checkpoint; all slices, with the changes written between them, are the state at `next_offset`."""

    slice: Slice
    head: CheckpointHead | None = None
    """With the first slice."""


@dataclass(slots=True)
class Batch:
    """Everything that goes into one transaction of one partition."""

    partition: int
    next_offset: int
    """The input offset to go on from; stored with the state."""
    records: int
    changes: Changes
    snapshot: Slice | None = None
    checkpoint: CheckpointPiece | None = None
    mark: Mark = NO_MARK
    progress: Progress | None = None
    contexts: Mapping[bytes, Headers] = field(default_factory=dict)
    """Trace headers of sampled legs by group: passed on to the group's results."""
    kinds: Mapping[str, int] = field(default_factory=dict)
    """Records by kind."""
    base: int = 0
    """What has to be added to the input offset for its place in the log."""


@dataclass(frozen=True, slots=True)
class StateRecord:
    """One record of the state topic, read."""

    offset: int
    next_offset: int
    entries: list[Entry]
    size_bytes: int
    snapshot: bool = False
    first: bool = False
    last: bool = False
    mark: Mark = NO_MARK
    head: CheckpointHead | None = None
    partitions: int = 0
    """How many partitions `legs` had; 0: not noted."""


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """One partition, as gauges and the watchdog see it."""

    number: int
    restored: bool
    lag: int
    """Records in the log that are not committed yet; 0 while unknown."""
    steps: int
    """Rises with every commit and while the state is first restored; a repeated attempt is no step."""
    log_time: int = -1
    open_items: int = 0
    settled_items: int = 0
    state_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """What this process does now."""

    joined: bool
    """The group has given this process its partitions, which may be none."""
    partitions: list[PartitionStatus]
    halted: str | None = None
    """Why nothing is consumed any more, for a person; None in the normal course."""

    @property
    def ready(self) -> bool:
        return self.joined and self.halted is None and all(one.restored for one in self.partitions)


class TransactionFailed(Exception):
    """The transaction did not happen, or nobody knows: drop the state and restore it."""


class Fenced(TransactionFailed):
    """Another process took the partition over: find out who of the two is the zombie."""


class Transactions(Protocol):
    """Transactions of one partition, by one producer."""

    async def start(self) -> None:
        """Fence the partition's previous owner, abort what it left open and end what a broker left without its end.

        Raises:
            TransactionFailed: no answer in time.
        """

    async def commit(self, batch: Batch) -> int | None:
        """Write all of `batch` or nothing; the state offset of the snapshot's first piece, if it holds that.

        Raises:
            Fenced: another owner started.
            TransactionFailed: unusable from here on; `discard` it.
        """

    async def touch(self) -> None:
        """Make readers see what was committed, should a broker have died before it told them.

        Raises:
            Fenced: another owner started.
            TransactionFailed: unusable from here on; `discard` it.
        """

    def discard(self) -> None:
        """Close in the background; never raises, never waits."""

    async def close(self) -> None:
        """Close in order, after the last commit."""


class Meter(Protocol):
    """Told what happened; keeps it for whoever watches."""

    def restored(self, seconds: float) -> None:
        """Tell of a state that was restored."""

    def committed(self, batch: Batch, seconds: float) -> None:
        """Tell of a transaction that was committed."""


class StateLog(Protocol):
    """The topic that remembers the state."""

    def read(self, partition: int) -> AsyncGenerator[StateRecord, None]:
        """Every committed record up to the end as of now.

        Raises:
            TransactionFailed: it cannot be read now.
        """

    async def first_input_offset(self, partition: int) -> int:
        """Where a partition without any state begins: the oldest input that is there."""

    def trim(self, partition: int, offset: int) -> None:
        """Delete what a snapshot replaced, in the background; a failure is logged and harms nothing."""

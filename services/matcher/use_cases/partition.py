"""One partition's progress from the records read to the batches that are committed. Synchronous and without Kafka."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from services.matcher.domain.changes import Changes
from services.matcher.domain.compiled import bytes_of
from services.matcher.ports import (
    Batch,
    CheckpointHead,
    CheckpointPiece,
    Core,
    Entry,
    Headers,
    InputRecord,
    Mark,
    Run,
    Slice,
)
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.discrepancy import LogPosition, Progress
from shared.contracts.event import EPOCH, from_milliseconds
from shared.contracts.leg import Cut, Leg, RuleRecord, Tick, UnknownVersion, Withdraw, decode_leg_record
from shared.errors import TieoutError
from shared.ids import event_id

ENTRY_OVERHEAD_BYTES = 6
"""What msgpack adds to an entry: an array of two and two lengths."""
OTHERS_MAX = 64
"""Records that are applied one by one before the fast way is tried again, where it got no further."""
CONTEXTS_MAX = 256
"""Sampled legs whose trace goes on, per batch: the rest is counted, not traced."""
TRACE_HEADERS = ("traceparent", "tracestate")
NO_INBOX_PLACE = -1
KINDS: dict[type, str] = {Leg: "leg", Tick: "tick", RuleRecord: "rules", Cut: "cut", Withdraw: "withdraw"}


class NewerRecord(TieoutError):
    """The log holds a record of a newer build: an older one must not go past it."""


class CoreFailed(TieoutError):
    """Applying a record broke: a fault of the program. Going on would make wrong results."""


@dataclass(frozen=True, slots=True)
class Policy:
    """When snapshots and progress are due."""

    snapshot_threshold_bytes: int
    snapshot_chunk_bytes: int
    progress_interval_s: float
    checkpoint_interval_ms: int = 86_400_000
    """Of log time. One is begun where it passes a multiple of this, and where another core takes over."""


class Partition:
    """The state of one input partition and what of it is not committed yet."""

    def __init__(self, number: int, core: Core, policy: Policy, position: int) -> None:
        self.number = number
        self.core = core
        self.position = position
        """Next input offset to apply."""
        self.collected = position
        self.pending_records = 0
        self.change_bytes = 0
        """Written to the state log since the last whole snapshot."""
        self.snapshot_bytes = 0
        """Of the last whole snapshot."""
        self.mark = Mark()
        """Of the last checkpoint that is whole."""
        self._policy = policy
        self._kinds: Counter[type] = Counter()
        self._dead_letters: list[DeadLetter] = []
        self._contexts: dict[bytes, Headers] = {}
        self._slices: Iterator[Entry] | None = None
        self._slice_bytes = 0
        self._checkpoint: Iterator[Entry] | None = None
        self._checkpoint_mark = Mark()
        self._told_time = -1
        self._told_at_s = float("-inf")

    @property
    def pending(self) -> bool:
        """Something waits for a transaction, be it only the next slice of a snapshot."""
        return self.position > self.collected or self.slicing

    @property
    def slicing(self) -> bool:
        return self._slices is not None or self._checkpoint is not None

    @property
    def progress_waits(self) -> bool:
        """Log time has moved, and there is a place in the log to tell it with."""
        return self.core.log_time > self._told_time and self.position + self.core.offset_base > 0

    @property
    def progress_due_s(self) -> float:
        """Monotonic time at which the next progress must be on its way."""
        return self._told_at_s + self._policy.progress_interval_s

    def apply(self, records: list[InputRecord]) -> None:
        """Apply records in order; those below the position were applied before.

        Raises:
            NewerRecord: stop; deploy the newer build.
            CoreFailed: stop; the state in memory is not to be trusted.
        """
        run = self.core.run
        if run is None:
            self._apply(records)
            return
        place, others = 0, 1
        while place < len(records):
            reached = self._run(run, records, place)
            # What is not plain often comes in rows, too.
            others = 1 if reached > place else min(2 * others, OTHERS_MAX)
            place = reached + others
            self._apply(records[reached:place])

    def _run(self, run: Run, records: list[InputRecord], place: int) -> int:
        """Apply what is plain; return the place of the first record that is not."""
        try:
            reached = run(records, place, self.position)
        except Exception as error:
            raise CoreFailed(
                f"partition {self.number} of legs, offset {records[place].offset} or one of the next: the matcher failed "
                f"({type(error).__name__}: {error}); nothing from there on was committed. Report it with the records"
            ) from error
        if reached > place:
            self.position = records[reached - 1].offset + 1
            self.pending_records += reached - place
            self._kinds[Leg] += reached - place
        return reached

    def _apply(self, records: Sequence[InputRecord]) -> None:
        apply, position, applied, legs = self.core.apply, self.position, 0, 0
        for record in records:
            offset = record.offset
            if offset < position:
                continue
            try:
                decoded = decode_leg_record(record.value)  # type: ignore[arg-type] # None is caught as unreadable
            except UnknownVersion as error:
                raise NewerRecord(
                    f"partition {self.number} of legs, offset {offset}: {error}; deploy the newer matcher, nothing is lost"
                ) from error
            except (msgspec.MsgspecError, TypeError, IndexError, UnicodeDecodeError) as error:
                self._set_aside(record, str(error))
            else:
                try:
                    apply(record.key or b"", decoded, offset, record.value)
                except Exception as error:
                    raise CoreFailed(
                        f"partition {self.number} of legs, offset {offset}: the matcher failed on this record "
                        f"({type(error).__name__}: {error}); nothing after it was committed. Report it with the record"
                    ) from error
                if type(decoded) is Leg:
                    legs += 1
                else:
                    self._kinds[type(decoded)] += 1
            if record.headers:
                self._remember_context(record)
            position = offset + 1
            applied += 1
        self.position = position
        self.pending_records += applied
        self._kinds[Leg] += legs

    def _remember_context(self, record: InputRecord) -> None:
        if record.key and len(self._contexts) < CONTEXTS_MAX:
            self._contexts[record.key] = [
                (name, value) for name, value in record.headers if name in TRACE_HEADERS and value is not None
            ]

    def _set_aside(self, record: InputRecord, reason: str) -> None:
        place = f"partition {self.number} of legs, offset {record.offset}"
        self._dead_letters.append(
            DeadLetter(
                id=event_id("tieout", "legs", f"{self.number}/{record.offset}"),
                org=None,
                source=None,
                reason="unreadable",
                detail=f"{place} is no legs record: {reason}",
                hint="Only ingest may write to legs: find who else does (ACLs), and send the event through ingest",
                rule=None,
                event=None,
                inbox_partition=NO_INBOX_PLACE,
                inbox_offset=NO_INBOX_PLACE,
                received_at=from_milliseconds(self.core.log_time) if self.core.log_time >= 0 else EPOCH,
                raw=record.value or b"",
            )
        )

    def collect(self, now_s: float) -> Batch | None:
        """Take everything that waits into one batch; None when nothing does. `now_s` is monotonic."""
        progress = self._progress(now_s)
        if self.position == self.collected and progress is None and not self.slicing:
            return None
        changes = self._changes()
        batch = Batch(
            partition=self.number,
            next_offset=self.position,
            base=self.core.offset_base,
            records=self.pending_records,
            changes=changes,
            progress=progress,
            contexts=self._contexts,
            kinds={KINDS[kind]: count for kind, count in self._kinds.items() if count},
        )
        self.change_bytes += size_of(changes.state)
        batch.snapshot = self._next_slice()
        batch.checkpoint = self._next_checkpoint()
        batch.mark = self.mark
        self.collected = self.position
        self.pending_records = 0
        self._contexts, self._kinds = {}, Counter()
        return batch

    def _changes(self) -> Changes:
        changes = self.core.take()
        if self._dead_letters:
            changes.dead_letters = changes.dead_letters + self._dead_letters
            self._dead_letters = []
        return changes

    def _progress(self, now_s: float) -> Progress | None:
        if not self.progress_waits or now_s < self.progress_due_s:
            return None
        self._told_time, self._told_at_s = self.core.log_time, now_s
        time = from_milliseconds(self.core.log_time)
        return Progress(
            log=LogPosition(partition=self.number, offset=self.position - 1 + self.core.offset_base, time=time)
        )

    def _next_slice(self) -> Slice | None:
        first = self._slices is None
        if self._slices is None:
            if self.change_bytes <= max(self._policy.snapshot_threshold_bytes, 2 * self.snapshot_bytes):
                return None
            self._slices = iter(self.core.snapshot())
            self._slice_bytes = self.change_bytes = 0
        entries, taken_bytes, last = _take(self._slices, self._policy.snapshot_chunk_bytes)
        self._slice_bytes += taken_bytes
        if last:
            self._slices = None
            self.snapshot_bytes = self._slice_bytes
        return Slice(entries, first=first, last=last)

    def _next_checkpoint(self) -> CheckpointPiece | None:
        head = None
        if self._checkpoint is None:
            if not self._checkpoint_due():
                return None
            self._checkpoint = iter(self.core.snapshot())
            version, log_time = self.core.version, self.core.log_time
            head = CheckpointHead(version, self.mark.core_version or version, log_time)
            self._checkpoint_mark = Mark(log_time // self._policy.checkpoint_interval_ms, version)
        entries, _, last = _take(self._checkpoint, self._policy.snapshot_chunk_bytes)
        if last:
            self._checkpoint, self.mark = None, self._checkpoint_mark
        return CheckpointPiece(Slice(entries, first=head is not None, last=last), head)

    def _checkpoint_due(self) -> bool:
        """Tell whether a new period of log time began, or another core goes on; the first period needs none."""
        if self.core.log_time < 0:
            return False
        period = self.core.log_time // self._policy.checkpoint_interval_ms
        if self.mark.period < 0:
            self.mark = Mark(period, self.core.version)
            return False
        return period > self.mark.period or self.mark.core_version != self.core.version


def _take(entries: Iterator[Entry], bytes_max: int) -> tuple[list[Entry], int, bool]:
    """Return the next entries, their bytes, and whether they are the last."""
    taken: list[Entry] = []
    taken_bytes = 0
    for entry in entries:
        taken.append(entry)
        taken_bytes += len(entry[0]) + len(entry[1]) + ENTRY_OVERHEAD_BYTES
        if taken_bytes >= bytes_max:
            return taken, taken_bytes, False
    return taken, taken_bytes, True


def size_of(entries: Sequence[Entry]) -> int:
    """Bytes of packed entries, within a percent."""
    return bytes_of(entries) + ENTRY_OVERHEAD_BYTES * len(entries)

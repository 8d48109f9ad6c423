"""Restoring a partition from a log held in memory."""

from collections.abc import AsyncGenerator

from services.matcher.adapters.state_format import StateReader, encode_changes, encode_slice
from services.matcher.ports import StateRecord
from services.matcher.use_cases.partition import Partition, Policy
from services.matcher.use_cases.restore import restore
from tests.support.matcher_shell import CountingCore
from tests.unit.matcher.shell.test_partition import records

POLICY = Policy(snapshot_threshold_bytes=800, snapshot_chunk_bytes=300, progress_interval_s=0.8)


class MemoryLog:
    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.begin = 0
        self.trimmed: list[int] = []

    async def read(self, partition: int) -> AsyncGenerator[StateRecord, None]:
        reader = StateReader()
        for offset in range(self.begin, len(self.values)):
            yield reader.read(offset, self.values[offset])

    async def first_input_offset(self, partition: int) -> int:
        return 42

    def trim(self, partition: int, offset: int) -> None:
        self.trimmed.append(offset)

    def write(self, batch) -> int | None:
        """What a transaction writes; the offset of the first slice."""
        self.values += encode_changes(batch.next_offset, batch.changes.state)
        first = len(self.values)
        if batch.snapshot is None:
            return None
        piece = batch.snapshot
        self.values += encode_slice(batch.next_offset, piece.entries, first=piece.first, last=piece.last)
        return first if piece.first else None


async def test_an_empty_log_begins_at_the_oldest_input():
    partition = await restore(0, CountingCore(0), MemoryLog(), POLICY)
    assert partition.position == 42


async def test_every_prefix_of_a_log_restores_the_state_it_was_written_by():
    """Goal: a crash anywhere is harmless. Method: restore after every transaction, trimmed and untrimmed."""
    log, live = MemoryLog(), Partition(0, CountingCore(0), POLICY, 0)
    begin_of_snapshot, trims = None, 0
    for start in range(0, 1_000, 20):
        live.apply(records(20, groups=60, first=start))
        batch = live.collect(0.0)
        begin_of_snapshot = log.write(batch) or begin_of_snapshot
        if batch.snapshot and batch.snapshot.last:
            log.begin = begin_of_snapshot
            trims += 1
        restored = await restore(0, CountingCore(0), log, POLICY)
        assert (restored.position, restored.core.counts) == (live.position, live.core.counts)
        assert restored.snapshot_bytes > 0 or trims == 0
    assert trims > 2


async def test_a_trim_that_did_not_happen_is_asked_for_again():
    log, live = MemoryLog(), Partition(0, CountingCore(0), POLICY, 0)
    first = None
    for start in range(0, 400, 20):
        live.apply(records(20, groups=60, first=start))
        batch = live.collect(0.0)
        first = log.write(batch) or first
        if batch.snapshot and batch.snapshot.last:
            break
    await restore(0, CountingCore(0), log, POLICY)
    assert log.trimmed == [first]


async def test_sizes_go_on_after_a_restart_so_the_log_is_bounded_over_restarts_too():
    log, live = MemoryLog(), Partition(0, CountingCore(0), POLICY, 0)
    for start in range(0, 200, 20):
        live.apply(records(20, groups=60, first=start))
        log.write(live.collect(0.0))
    restored = await restore(0, CountingCore(0), log, POLICY)
    assert restored.change_bytes + restored.snapshot_bytes > 0

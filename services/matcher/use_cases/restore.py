"""Build a partition's state again from its log."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from services.matcher.ports import Core, Mark, StateLog
from services.matcher.use_cases.partition import Partition, Policy

SLICE_ENTRIES = 5_000
"""Restored between two turns of the event loop: about 10 ms, so heartbeats go on."""


async def restore(
    number: int, core: Core, log: StateLog, policy: Policy, progressed: Callable[[], None] = lambda: None
) -> Partition:
    """Read the state log of partition `number` to its end into `core`.

    Every snapshot slice holds values as they were when it was written, in order with the changes around it: so a
    snapshot that was cut short by a crash, or whose predecessors are not deleted yet, needs no special case.
    """
    next_offset: int | None = None
    mark = Mark()
    change_bytes = snapshot_bytes = slice_bytes = 0
    # Changes since the first slice of the snapshot that is being read; they count once it turns out whole.
    since_first_bytes = 0
    replaced_until: int | None = None
    first_slice_offset: int | None = None
    first_read_offset: int | None = None
    async with aclosing(log.read(number)) as records:
        async for record in records:
            if first_read_offset is None:
                first_read_offset = record.offset
            for start in range(0, len(record.entries), SLICE_ENTRIES):
                core.restore(record.entries[start : start + SLICE_ENTRIES])
                await asyncio.sleep(0)
            next_offset, mark = record.next_offset, record.mark
            progressed()
            if not record.snapshot:
                change_bytes += record.size_bytes
                since_first_bytes += record.size_bytes
                continue
            if record.first:
                first_slice_offset, slice_bytes, since_first_bytes = record.offset, 0, 0
            slice_bytes += record.size_bytes
            if record.last and first_slice_offset is not None:
                replaced_until, snapshot_bytes, change_bytes = first_slice_offset, slice_bytes, since_first_bytes
    if replaced_until is not None and first_read_offset is not None and first_read_offset < replaced_until:
        log.trim(number, replaced_until)
    if next_offset is None:
        next_offset = await log.first_input_offset(number)
    partition = Partition(number, core, policy, next_offset)
    partition.change_bytes, partition.snapshot_bytes = change_bytes, snapshot_bytes
    partition.mark = mark
    return partition

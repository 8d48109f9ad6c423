"""When a partition's work becomes a transaction, and what happens after it."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from aiokafka import TopicPartition

from services.matcher.ports import Batch, Meter, StateLog, Transactions
from services.matcher.use_cases.partition import Partition
from shared.telemetry.traces import batch_span

TRANSACTION_RECORDS = 10_000
"""Input records after which a transaction does not wait for its time."""
PENDING_RECORDS_MAX = 30_000
"""Applied and not committed, per partition: reading waits here while the broker is slow."""
LOADED_LAG_RECORDS = 5_000
"""From this lag on, larger transactions serve better than earlier ones."""
QUIET_S = 5.0
"""Without a transaction for so long, the last one is made sure of once: see `Transactions.touch`. Progress does the same
every second, as long as log time moves."""


@dataclass(slots=True)
class Slot:
    """One partition that the group gave to this process."""

    place: TopicPartition
    partition: Partition | None = None
    """None while it is being restored. Another object after each restore: who kept the old one must stop."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    throttled: bool = False
    stopping: bool = False
    failures: int = 0
    """In a row."""
    steps: int = 0
    committed: int = -1
    """Next input offset as of the last commit; -1 while unknown."""
    lag: int = 0
    """Of the records applied, as of the last poll."""
    task: asyncio.Task[None] | None = None

    @property
    def number(self) -> int:
        return int(self.place.partition)

    def applied(self) -> None:
        """Tell the commits that there may be work."""
        self.changed.set()


@dataclass(frozen=True, slots=True)
class Pace:
    """How often to commit."""

    interval_s: float
    loaded_interval_s: float
    commits_per_second_max: int

    def wait_s(self, slot: Slot, slots: Iterable[Slot], begun: "Recent") -> float:
        """Seconds between two transactions of `slot`: short when there is little to do, longer under load.

        A discrepancy is somebody's alarm and goes first, while there are few: half of the transactions are kept for it,
        and the others wait accordingly.
        """
        if slot.lag > LOADED_LAG_RECORDS:
            return self.loaded_interval_s
        busy = sum(1 for other in slots if other.partition is not None and other.partition.pending)
        shared_s = busy / self.commits_per_second_max
        if shared_s <= self.interval_s:
            return self.interval_s
        assert slot.partition is not None, "only what was applied is committed"
        if not slot.partition.core.discrepancies_wait:
            return 2 * shared_s
        return self.interval_s if begun.in_last_second() < self.commits_per_second_max else shared_s


class Recent:
    """When transactions of this process began."""

    def __init__(self) -> None:
        self._at_s: deque[float] = deque()

    def add(self, at_s: float) -> None:
        self._at_s.append(at_s)

    def in_last_second(self) -> int:
        since_s = time.monotonic() - 1
        while self._at_s and self._at_s[0] < since_s:
            self._at_s.popleft()
        return len(self._at_s)


def end_if_cancelled() -> None:
    """Raise a cancellation that the Kafka client has swallowed: several of its waits return as if nothing was."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class Commits:
    """The commits of every partition; one `run` per partition, beside the poll loop."""

    def __init__(self, slots: dict[int, Slot], pace: Pace, log: StateLog, meter: Meter) -> None:
        self._slots = slots
        self._pace = pace
        self._log = log
        self._meter = meter
        self._snapshot_begins: dict[int, int] = {}
        self._begun = Recent()

    async def run(
        self, slot: Slot, partition: Partition, transactions: Transactions, resume: Callable[[], None]
    ) -> None:
        """Commit what `partition` has, until `slot.stopping`; the last commit takes the rest.

        `resume` is called when a throttled partition may be read again.

        Raises:
            TransactionFailed: drop the state and restore it.
        """
        self._snapshot_begins.pop(slot.number, None)
        begun_s, touch_s = float("-inf"), None
        while True:
            end_if_cancelled()
            await self._due(slot, partition, begun_s, touch_s)
            await asyncio.sleep(0)  # whatever is due and comes to nothing must not keep heartbeats from running
            now_s = time.monotonic()
            batch = partition.collect(now_s)
            if batch is not None:
                begun_s = now_s
                self._begun.add(now_s)
                await self._commit(slot, batch, transactions)
                touch_s = time.monotonic() + QUIET_S
                if slot.throttled and partition.pending_records <= PENDING_RECORDS_MAX // 2:
                    slot.throttled = False
                    resume()
            elif slot.stopping:
                return
            elif touch_s is not None and now_s >= touch_s:
                touch_s = None
                await transactions.touch()

    async def _due(self, slot: Slot, partition: Partition, begun_s: float, touch_s: float | None) -> None:
        """Return when it is time for the next transaction, at the latest at `touch_s`."""
        while not slot.stopping:
            slot.changed.clear()
            if partition.pending_records >= TRANSACTION_RECORDS:
                return
            due_s = min((at for at in (self._due_s(slot, partition, begun_s), touch_s) if at is not None), default=None)
            wait_s = None if due_s is None else due_s - time.monotonic()
            if wait_s is not None and wait_s <= 0:
                return
            try:
                async with asyncio.timeout(wait_s):
                    await slot.changed.wait()
            except TimeoutError:
                return

    def _due_s(self, slot: Slot, partition: Partition, begun_s: float) -> float | None:
        if partition.position > partition.collected or partition.slicing:
            return begun_s + self._pace.wait_s(slot, self._slots.values(), self._begun)
        if partition.progress_waits:
            return partition.progress_due_s
        return None

    async def _commit(self, slot: Slot, batch: Batch, transactions: Transactions) -> None:
        begun_s = time.monotonic()
        with batch_span("matcher.transaction", batch.contexts.values()):
            slice_offset = await transactions.commit(batch)
        slot.committed = batch.next_offset
        slot.steps += 1
        slot.failures = 0
        self._meter.committed(batch, time.monotonic() - begun_s)
        self._trim(slot.number, batch, slice_offset)

    def _trim(self, number: int, batch: Batch, slice_offset: int | None) -> None:
        """Once a snapshot is whole, delete what is older than its first slice."""
        if batch.snapshot is None:
            return
        if batch.snapshot.first and slice_offset is not None:
            self._snapshot_begins[number] = slice_offset
        if batch.snapshot.last and number in self._snapshot_begins:
            self._log.trim(number, self._snapshot_begins.pop(number))

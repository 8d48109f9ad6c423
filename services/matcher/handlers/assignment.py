"""The life of a partition in this process: assigned, paused, restored, resumed, lost.

Rebalancing is eager: the group takes everything away and gives most of it back. The state of a partition that comes
back is kept and goes on from its own position; if a peer had it in between, the peer's producer has fenced ours, and
the next commit says so.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from services.matcher.handlers.commits import Commits, Slot, end_if_cancelled
from services.matcher.ports import Core, Fenced, Meter, StateLog, TransactionFailed, Transactions
from services.matcher.use_cases.partition import Partition, Policy
from services.matcher.use_cases.restore import restore
from shared.errors import TieoutError, UsageError

RESTORES_MAX = 4
"""States read at a time: more only take turns at one CPU. Starts before them wait for the broker, all at once."""
FENCED_PAUSE_S = 1.0
"""After being fenced: time for the group to tell which of two owners is the zombie."""
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 2.0
CLOSE_TIMEOUT_S = 45.0
"""For the last transactions: longer than one attempt may take."""

log = structlog.get_logger(__name__)


class PartitionsAdded(UsageError):
    """The number of partitions was changed behind tieout's back."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """What a partition is made of."""

    core: Callable[[int], Core]
    transactions: Callable[[int], Transactions]
    log: StateLog
    policy: Policy
    meter: Meter
    partitions: int = 0
    """How many the input had when this process began; 0: any number."""


class Assignment(ConsumerRebalanceListener):  # type: ignore[misc] # the client has no types
    """The partitions of this process, and a task for each."""

    def __init__(
        self, consumer: AIOKafkaConsumer, workshop: Workshop, slots: dict[int, Slot], commits: Commits
    ) -> None:
        self.joined = False
        self.halted: str | None = None
        """Set: nothing may be read."""
        self.failure: BaseException | None = None
        """Ends the process; listeners and tasks cannot raise where somebody hears them."""
        self._consumer = consumer
        self._workshop = workshop
        self._slots = slots
        self._commits = commits
        self._restoring = asyncio.Semaphore(RESTORES_MAX)
        self._ending: set[asyncio.Task[None]] = set()

    # ---- what the group says

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Keep everything: most of it comes back, and fencing guards the rest."""

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Take over what is new, go on with what came back, drop what is gone.

        Not a coroutine: heartbeats start only after it returns, and nothing can be read between its statements.
        """
        try:
            # First of all: the client fetches assigned partitions at once.
            self._consumer.pause(*assigned)
            self._take(list(assigned))
        except Exception as error:  # noqa: BLE001 - the client would only log it and go on without us
            self.failure = error

    def _take(self, assigned: list[TopicPartition]) -> None:
        if self._workshop.partitions and any(place.partition >= self._workshop.partitions for place in assigned):
            raise PartitionsAdded(
                f"{assigned[0].topic} had {self._workshop.partitions} partitions when this process began and has more now: "
                "somebody changed the count, and keys no longer lie where their state is. Stop ingest, and see "
                "`tieout topics migrate` for how a count is changed"
            )
        for lost in self._slots.keys() - {place.partition for place in assigned}:
            self._drop(self._slots.pop(lost))
        for place in assigned:
            slot = self._slots.get(place.partition)
            if slot is None:
                slot = self._slots[place.partition] = Slot(place)
                slot.task = asyncio.get_running_loop().create_task(self._live(slot))
            # Any position: it only keeps the client from asking for one that is never used.
            self._consumer.seek(place, slot.partition.position if slot.partition is not None else 0)
            self.resume(slot)
        self.joined = True
        log.info("partitions assigned", partitions=sorted(self._slots))

    def _drop(self, slot: Slot) -> None:
        slot.partition = None
        if slot.task is not None:
            self._ending.add(slot.task)
            slot.task.add_done_callback(self._ending.discard)
            slot.task.cancel()

    # ---- one partition

    async def _live(self, slot: Slot) -> None:
        """Restore, then commit, and begin again after every failure; ends when the partition is lost or at a stop."""
        while not slot.stopping:
            end_if_cancelled()
            try:
                await self._own(slot)
            except Fenced as error:
                log.warning("partition was fenced", partition=slot.number, reason=str(error))
                self._forget(slot)
                slot.failures += 1
                await self._wait_until_ours(slot)
            except TransactionFailed as error:
                self._forget(slot)
                pause_s = min(BACKOFF_FIRST_S * 2 ** min(slot.failures, 10), BACKOFF_MAX_S)
                slot.failures += 1
                log.warning(
                    "state dropped, it will be restored",
                    partition=slot.number,
                    reason=str(error),
                    attempt=slot.failures,
                    pause_s=pause_s,
                )
                await asyncio.sleep(pause_s)
            except TieoutError as error:
                self._forget(slot)
                self.failure = error
                return
            except Exception as error:
                log.exception("partition failed", partition=slot.number)
                self._forget(slot)
                self.failure = error
                return

    async def _own(self, slot: Slot) -> None:
        """Hold the partition from the fencing of its last owner to the loss of ours."""
        begun_s = time.monotonic()
        transactions = self._workshop.transactions(slot.number)
        try:
            # Before the state is read: from here on nobody else can add to it.
            await transactions.start()
            async with self._restoring:
                partition = await self._restore(slot)
            end_if_cancelled()
            seconds = time.monotonic() - begun_s
            self._workshop.meter.restored(seconds)
            log.info(
                "partition restored",
                partition=slot.number,
                position=partition.position,
                open_items=partition.core.open_items,
                settled_items=partition.core.settled_items,
                seconds=round(seconds, 3),
            )
            slot.partition, slot.committed, slot.throttled = partition, partition.position, False
            self._seek_and_resume(slot, partition)
            await self._commits.run(slot, partition, transactions, lambda: self.resume(slot))
        except BaseException:
            transactions.discard()
            raise
        await transactions.close()

    async def _restore(self, slot: Slot) -> Partition:
        workshop = self._workshop

        def step() -> None:
            # A repeated restore is no progress: a transaction that never succeeds must be seen by the watchdog.
            if slot.failures == 0:
                slot.steps += 1

        core = workshop.core(slot.number)
        return await restore(slot.number, core, workshop.log, workshop.policy, step)

    def _seek_and_resume(self, slot: Slot, partition: Partition) -> None:
        if slot.place in self._consumer.assignment():
            self._consumer.seek(slot.place, partition.position)
            self.resume(slot)

    def _forget(self, slot: Slot) -> None:
        slot.partition = None
        if slot.place in self._consumer.assignment():
            self._consumer.pause(slot.place)

    async def _wait_until_ours(self, slot: Slot) -> None:
        """Return once the group confirms that this process owns the partition.

        Else two owners would fence each other for ever. A zombie stays here until the group takes the partition away.
        """
        while True:
            end_if_cancelled()
            await asyncio.sleep(FENCED_PAUSE_S)
            try:
                await self._consumer.commit({slot.place: max(slot.committed, 0)})
            except (CommitFailedError, IllegalStateError):
                log.info("not the owner according to the group", partition=slot.number)
            except KafkaError as error:
                log.warning("cannot ask the group for the owner", partition=slot.number, reason=repr(error))
            else:
                return

    def resume(self, slot: Slot) -> None:
        """Let the partition be read, unless something speaks against it."""
        may_read = slot.partition is not None and not slot.throttled and self.halted is None
        if may_read and slot.place in self._consumer.assignment():
            self._consumer.resume(slot.place)

    def hold(self, slot: Slot) -> None:
        """Stop reading the partition; its commits go on."""
        if slot.place in self._consumer.assignment():
            self._consumer.pause(slot.place)

    # ---- the end

    async def finish(self) -> None:
        """Commit what was applied and close; what is still being restored is dropped."""
        tasks = []
        for slot in self._slots.values():
            slot.stopping = True
            slot.changed.set()
            if slot.task is None:
                continue
            if slot.partition is None:
                slot.task.cancel()
            tasks.append(slot.task)
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)
        await self.abandon()

    async def abandon(self) -> None:
        """End every task without a commit; what was not committed is done again by the next owner."""
        tasks = [slot.task for slot in self._slots.values() if slot.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._ending, return_exceptions=True)

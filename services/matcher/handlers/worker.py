"""The poll loop: reads records, hands them to their partitions in slices, and keeps an eye on limits."""

import asyncio
import gc
import time
from collections.abc import Callable
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)

from services.matcher.handlers.assignment import Assignment, Workshop
from services.matcher.handlers.commits import (
    LOADED_LAG_RECORDS,
    PENDING_RECORDS_MAX,
    Commits,
    Pace,
    Slot,
    end_if_cancelled,
)
from services.matcher.ports import InputRecord, PartitionStatus, Status
from services.matcher.use_cases.partition import Partition
from shared.errors import TieoutError, UsageError

POLL_MS = 200
"""Longest wait for records: how late a stop is noticed."""
POLL_RECORDS_MAX = 4_000
SLICE_RECORDS = 500
"""Applied between two turns of the event loop: 2-5 ms, so that heartbeats and commits run under full load."""
ERROR_PAUSE_S = 0.5
SHOW_OFFSETS_S = 5.0
"""How often the group's offsets are committed, for those who display lag; nothing is read from them."""
REMIND_S = 60.0
GC_THRESHOLDS = (50_000, 20, 50)
"""State lives long and holds no cycles: looking through it for garbage is wasted."""

log = structlog.get_logger(__name__)


class InputLost(TieoutError):
    """Legs were deleted before they were matched: going on would hide that."""


class Worker:
    """Matches the partitions that the group gives to this process."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        topic: str,
        workshop: Workshop,
        pace: Pace,
        state_bytes_max: int,
        beat: Callable[[], None] = lambda: None,
        input_end: Callable[[int], int] = lambda _: 0,
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._slots: dict[int, Slot] = {}
        self.assignment = Assignment(
            consumer, workshop, self._slots, Commits(self._slots, pace, workshop.log, workshop.meter)
        )
        self._state_bytes_max = state_bytes_max
        self._beat = beat
        self._input_end = input_end
        self._offsets_shown_s = time.monotonic()
        self._reminded_s = float("-inf")
        self._showing: asyncio.Task[None] | None = None
        self._frozen = False

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then commit what was applied.

        Raises:
            TieoutError: a person has to act; the message says what.
        """
        gc.set_threshold(*GC_THRESHOLDS)
        self._consumer.subscribe([self._topic], listener=self.assignment)
        try:
            while not stop.is_set():
                end_if_cancelled()
                self._raise_failure()
                await self._poll()
                await self._settle_down(self._limits())
                self._show_offsets()
                self._freeze()
                self._beat()
        except BaseException:
            await self.assignment.abandon()
            raise
        finally:
            if self._showing is not None:
                self._showing.cancel()
        await self.assignment.finish()
        self._raise_failure()
        await self._commit_offsets()

    def status(self) -> Status:
        """What this process does now, for gauges, health and the watchdog."""
        return Status(
            self.assignment.joined,
            [self._status_of(slot) for slot in self._slots.values()],
            self.assignment.halted,
        )

    @property
    def committed_records(self) -> int:
        """Input records up to the last commit of every partition held: for those who measure."""
        return sum(max(slot.committed, 0) for slot in self._slots.values())

    def owned(self) -> list[int]:
        """Partitions that the group gave to this process."""
        return list(self._slots)

    def _status_of(self, slot: Slot) -> PartitionStatus:
        partition = slot.partition
        if partition is None:
            return PartitionStatus(slot.number, restored=False, lag=0, steps=slot.steps)
        core = partition.core
        return PartitionStatus(
            slot.number,
            restored=True,
            lag=self._lag(slot, slot.committed),
            steps=slot.steps,
            log_time=core.log_time,
            open_items=core.open_items,
            settled_items=core.settled_items,
            state_bytes=core.state_bytes,
        )

    def _lag(self, slot: Slot, position: int) -> int:
        try:
            seen = self._consumer.highwater(slot.place) or 0
        except (IllegalStateError, AssertionError):
            seen = 0
        return max(seen - position, self._input_end(slot.number) - position, 0)

    def _raise_failure(self) -> None:
        if self.assignment.failure is not None:
            raise self.assignment.failure

    # ---- reading

    async def _poll(self) -> None:
        try:
            found = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=POLL_RECORDS_MAX)
        except OffsetOutOfRangeError as error:
            self._out_of_range(error)
        except NoOffsetForPartitionError:
            # Only before the first seek, which does not wait for the client's own search for a position.
            return
        except (TopicAuthorizationFailedError, GroupAuthorizationFailedError) as error:
            raise UsageError(
                f"Kafka refuses the matcher: {error}; grant it READ on {self._topic} and its consumer group"
            ) from error
        except KafkaError as error:
            log.warning("cannot read", reason=repr(error))
            await asyncio.sleep(ERROR_PAUSE_S)
        else:
            await self._apply_all(found)

    async def _apply_all(self, found: dict[TopicPartition, list[Any]]) -> None:
        # The objects are taken at once: a partition that is restored while others are applied goes on from another
        # position, and these records are not meant for it.
        work: list[tuple[Slot, Partition, list[Any]]] = []
        for place, records in found.items():
            slot = self._slots.get(place.partition)
            if slot is not None and slot.partition is not None:
                work.append((slot, slot.partition, records))
        for slot, partition, records in work:
            await self._apply(slot, partition, records)

    async def _apply(self, slot: Slot, partition: Partition, records: list[InputRecord]) -> None:
        slot.lag = self._lag(slot, records[-1].offset + 1)
        for begin in range(0, len(records), SLICE_RECORDS):
            if slot.partition is not partition:
                return
            partition.apply(records[begin : begin + SLICE_RECORDS])
            slot.applied()
            await asyncio.sleep(0)
        if slot.partition is partition and partition.pending_records > PENDING_RECORDS_MAX:
            slot.throttled = True
            self.assignment.hold(slot)

    def _out_of_range(self, error: OffsetOutOfRangeError) -> None:
        for place, offset in error.args[0].items():
            slot = self._slots.get(place.partition)
            if slot is None or slot.partition is None or slot.partition.position != offset:
                continue
            raise InputLost(
                f"{place.topic}, partition {place.partition}: the matcher has to go on at offset {offset}, which the "
                f"topic does not have (any more): legs were deleted before they were matched, or the topic was made "
                f"anew. Nothing was skipped. Restore the topic, or replay the inbox into new topics"
            ) from error

    # ---- limits and upkeep

    def _limits(self) -> int:
        """Return the bytes of state that this process holds."""
        held = [slot.partition for slot in self._slots.values() if slot.partition is not None]
        state_bytes = sum(partition.core.state_bytes for partition in held)
        full = state_bytes > self._state_bytes_max
        if full:
            self._halt(state_bytes)
        elif self.assignment.halted is not None:
            self.assignment.halted = None
            log.info("consuming again", state_bytes=state_bytes)
            for slot in self._slots.values():
                self.assignment.resume(slot)
        return state_bytes

    async def _settle_down(self, state_bytes: int) -> None:
        """Make settled pairs small where no legs wait, or where memory becomes short."""
        slots = list(self._slots.values())
        is_short = state_bytes > self._state_bytes_max // 2
        if not is_short and any(slot.lag > LOADED_LAG_RECORDS for slot in slots):
            return  # the time would be missing where legs wait
        for slot in slots:
            if slot.partition is not None and slot.partition.core.freeze():
                await asyncio.sleep(0)

    def _halt(self, state_bytes: int) -> None:
        """Stop reading; commits go on. Forgetting early instead would raise discrepancies that are none."""
        self.assignment.halted = (
            f"state of {state_bytes} bytes is above the limit of {self._state_bytes_max}: nothing is consumed. Start more "
            f"matchers, or raise TIEOUT_STATE_BYTES_MAX and restart; nothing is lost"
        )
        for slot in self._slots.values():
            self.assignment.hold(slot)
        if time.monotonic() - self._reminded_s > REMIND_S:
            self._reminded_s = time.monotonic()
            log.error(self.assignment.halted)

    def _show_offsets(self) -> None:
        now_s = time.monotonic()
        if now_s - self._offsets_shown_s < SHOW_OFFSETS_S or (self._showing and not self._showing.done()):
            return
        self._offsets_shown_s = now_s
        self._showing = asyncio.get_running_loop().create_task(self._commit_offsets())

    async def _commit_offsets(self) -> None:
        assigned = self._consumer.assignment()
        offsets = {
            slot.place: slot.committed
            for slot in self._slots.values()
            if slot.committed >= 0 and slot.place in assigned
        }
        if not offsets:
            return
        try:
            await self._consumer.commit(offsets)
        except (KafkaError, IllegalStateError, ValueError) as error:
            log.debug("group offsets not committed", reason=repr(error))

    def _freeze(self) -> None:
        """Take the restored state out of the garbage collector's sight."""
        restored = bool(self._slots) and all(slot.partition is not None for slot in self._slots.values())
        if restored and not self._frozen:
            gc.collect()
            gc.freeze()
        self._frozen = restored

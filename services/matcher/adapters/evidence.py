"""The topics of one installation as `verify` reads them: legs, results and checkpoints, committed records only."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Self

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from services.matcher.adapters.hanging import last_seen
from services.matcher.adapters.reader import opened
from services.matcher.adapters.results import PROGRESS_KEY, identify
from services.matcher.adapters.state_format import StateReader, next_offset_of
from services.matcher.ports import Entry, InputRecord, StateRecord
from services.matcher.use_cases.verify import Checkpoint, Published, ResultTopic
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics, partitions_of

POLL_MS = 500
RECORDS_MAX = 5_000
CLOCK_SKEW_MS = 600_000
"""Brokers' clocks may differ: results are looked for from so long before a checkpoint was written."""


class _LetterId(msgspec.Struct):
    id: str


_read_letter_id = msgspec.json.Decoder(_LetterId).decode


class KafkaEvidence:
    """Opens a reader per topic and partition that is asked for; closes them all at its end."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._topics = Topics(kafka.topic_prefix)
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def partitions(self) -> int:
        """Return how many partitions `legs` has; 0: there is no such topic."""
        return (await partitions_of(self._kafka, self._topics.legs)).get(self._topics.legs, 0)

    async def bounds(self, partition: int) -> tuple[int, int]:
        """Return the first offset of legs that is there, and the offset after the last."""
        place = TopicPartition(self._topics.legs, partition)
        async with opened(self._kafka) as reader:
            reader.assign([place])
            return (await reader.beginning_offsets([place]))[place], (await reader.end_offsets([place]))[place]

    async def matched(self, partition: int) -> int | None:
        """Return the offset up to which the matcher has committed its results; None: it has committed none."""
        place = TopicPartition(self._topics.matcher_state, partition)
        async with opened(self._kafka) as reader:
            reader.assign([place])
            end = (await reader.end_offsets([place]))[place]
        record = await last_seen(self._kafka, place, end)
        return None if record is None else next_offset_of(record.value)

    async def legs(self, partition: int, first: int, end: int) -> AsyncIterator[Sequence[InputRecord]]:
        """Yield the legs from `first` up to `end`, in order."""
        async for records in self._read(TopicPartition(self._topics.legs, partition), first, end):
            yield records

    async def checkpoints(self, partition: int) -> list[Checkpoint]:
        """Return the checkpoints that are whole: those a crash cut short have a successor that begins anew."""
        found: list[Checkpoint] = []
        begun: tuple[StateRecord, int] | None = None
        async for record, written_ms in self._checkpoint_records(partition):
            if record.first:
                begun = (record, written_ms)
            if record.last and begun is not None and begun[0].head is not None:
                first, since_ms = begun
                assert first.head is not None
                found.append(Checkpoint(first.head, record.next_offset, first.offset, record.offset, since_ms))
                begun = None
        return found

    async def entries(self, partition: int, checkpoint: Checkpoint) -> AsyncIterator[list[Entry]]:
        """Yield the state entries of a checkpoint: slices, and the changes between them."""
        async for record, _ in self._checkpoint_records(partition, checkpoint.first, checkpoint.last + 1):
            yield record.entries

    async def _checkpoint_records(
        self, partition: int, first: int | None = None, end: int | None = None
    ) -> AsyncIterator[tuple[StateRecord, int]]:
        place = TopicPartition(self._topics.matcher_checkpoints, partition)
        state = StateReader()
        async for records in self._read(place, first, end):
            for record in records:
                yield state.read(record.offset, record.value), record.timestamp

    def results(self, topic: ResultTopic, partition: int, since_ms: int) -> "_Results":
        """Return a reader of one topic's results, from those that were written about `since_ms`."""
        place = TopicPartition(self._topics.full(topic), partition)
        return _Results(self._kafka, place, max(since_ms - CLOCK_SKEW_MS, 0), self._open)

    async def dead_letter_ids(self, ids: frozenset[str]) -> frozenset[str]:
        """Return those of `ids` that are in `dead-letters`."""
        found: set[str] = set()
        topic = self._topics.dead_letters
        for number in range((await partitions_of(self._kafka, topic)).get(topic, 0)):
            async for records in self._read(TopicPartition(topic, number), None, None):
                found.update(_read_letter_id(record.value).id for record in records if record.value)
        return ids & found

    async def _read(
        self, place: TopicPartition, first: int | None, end: int | None
    ) -> "AsyncIterator[list[ConsumerRecord]]":
        async with opened(self._kafka, max_partition_fetch_bytes=8_000_000) as reader:
            reader.assign([place])
            last = (await reader.end_offsets([place]))[place]
            stop = last if end is None else min(end, last)
            start = (await reader.beginning_offsets([place]))[place] if first is None else first
            reader.seek(place, start)
            while await reader.position(place) < stop:
                found = await reader.getmany(place, timeout_ms=POLL_MS, max_records=RECORDS_MAX)
                records = [record for record in found.get(place, ()) if record.offset < stop]
                if records:
                    yield records


class _Results:
    """Results of one topic and partition, read as far as they are asked for."""

    def __init__(self, kafka: KafkaSettings, place: TopicPartition, since_ms: int, opened_: AsyncExitStack) -> None:
        self._kafka = kafka
        self._place = place
        self._since_ms = since_ms
        self._opened = opened_
        self._reader: AIOKafkaConsumer | None = None
        self._end = 0
        self._waiting: list[Published] = []

    async def before(self, log_offset: int) -> list[Published]:
        """Return the results not yet read that legs before `log_offset` made."""
        while not self._waiting or self._waiting[-1].log_offset < log_offset:
            more = await self._more()
            if more is None:
                break
            self._waiting += more
        cut = next((n for n, one in enumerate(self._waiting) if one.log_offset >= log_offset), len(self._waiting))
        found, self._waiting = self._waiting[:cut], self._waiting[cut:]
        return found

    async def _more(self) -> list[Published] | None:
        """Return what comes next; None at the end as it was when reading began."""
        reader = self._reader or await self._start()
        if await reader.position(self._place) >= self._end:
            return None
        found = await reader.getmany(self._place, timeout_ms=POLL_MS, max_records=RECORDS_MAX)
        return [
            Published(identify(record.value)[1], record.value)
            for record in found.get(self._place, ())
            if record.key != PROGRESS_KEY and record.value is not None
        ]

    async def _start(self) -> AIOKafkaConsumer:
        self._reader = reader = await self._opened.enter_async_context(opened(self._kafka))
        reader.assign([self._place])
        self._end = (await reader.end_offsets([self._place]))[self._place]
        since = (await reader.offsets_for_times({self._place: self._since_ms}))[self._place]
        reader.seek(self._place, self._end if since is None else since.offset)
        return reader

"""The state of several partitions is read with few connections, each log to its end, and one read is nothing of another."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from services.matcher.adapters import reader
from services.matcher.adapters.state_format import encode_changes
from services.matcher.adapters.state_log import KafkaStateLog
from shared.kafka.client import consumer, producer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics

pytestmark = [pytest.mark.kafka, pytest.mark.partitions(state=3, inbox=1)]

RECORDS = 20
"""As many as are read at once: the end of their transaction comes by itself, and wakes nobody."""


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Every consumer that is opened to read."""
    made: list[Any] = []

    def noted(*args: Any, **options: Any) -> Any:
        made.append(consumer(*args, **options))
        return made[-1]

    monkeypatch.setattr(reader, "consumer", noted)
    yield made
    assert all(one._closed for one in made), "every consumer is closed in the end"


async def write(kafka: KafkaSettings, topic: str, partition: int, records: int) -> None:
    """Write a transaction, and one that is aborted."""
    sender = producer(kafka, transactional_id=f"{topic}-{partition}")
    await sender.start()
    try:
        await sender.begin_transaction()
        for number in range(records):
            (value,) = encode_changes(number, [(b"key", b"%d" % partition)], partitions=3)
            await sender.send(topic, value, partition=partition)
        await sender.commit_transaction()
        await sender.begin_transaction()
        await sender.send_and_wait(topic, encode_changes(99, [(b"key", b"aborted")])[0], partition=partition)
        await sender.abort_transaction()
    finally:
        await sender.stop()


async def read(log: KafkaStateLog, partition: int) -> tuple[int, set[bytes]]:
    """Return how many records there are, and the values seen."""
    records = [one async for one in log.read(partition)]
    assert [one.next_offset for one in records] == list(range(len(records)))
    return len(records), {value for one in records for _, value in one.entries}


async def test_the_state_of_partitions_is_read_with_few_connections_and_never_mixed(
    kafka_settings: KafkaSettings, topics: Topics, opened: list[Any]
) -> None:
    await asyncio.gather(
        *[write(kafka_settings, topics.matcher_state, number, RECORDS + number) for number in range(3)]
    )
    log = KafkaStateLog(kafka_settings, topics, 3)
    expected = [(RECORDS + number, {b"%d" % number}) for number in range(3)]

    # One after the other, beside one that is under way.
    under_way = log.read(0)
    assert (await anext(under_way)).next_offset == 0
    assert [await read(log, number) for number in (1, 2, 1)] == [expected[1], expected[2], expected[1]]
    assert len(opened) == 2

    # What was not read to its end may still have records on their way: nobody gets its consumer.
    other = log.read(1)
    assert (await anext(other)).next_offset == 0
    await under_way.aclose()
    assert await read(log, 2) == expected[2]
    assert len(opened) == 3
    await other.aclose()

    # Several at the same time, more than there are turns.
    turns = asyncio.Semaphore(2)

    async def in_turn(number: int) -> tuple[int, set[bytes]]:
        async with turns:
            return await read(log, number)

    assert await asyncio.gather(*[in_turn(number % 3) for number in range(6)]) == expected * 2
    await log.close()

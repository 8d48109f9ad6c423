"""What exactly once stands on: isolation, fencing, and that no lost send is committed over."""

import asyncio

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import ProducerFenced

from shared.kafka.client import BULK_FETCH, MAX_RECORD_BYTES, await_sent, consumer, producer
from shared.kafka.errors import SendFailed
from shared.kafka.partitioner import partition_of
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("real_kafka")]
WAIT_S = 30


async def committed(settings: KafkaSettings, topic: str, partition: int = 0) -> list[bytes]:
    """The values that a read_committed consumer sees up to the last stable offset."""
    place = TopicPartition(topic, partition)
    values: list[bytes] = []
    async with consumer(settings, auto_offset_reset="none") as reader, asyncio.timeout(WAIT_S):
        reader.assign([place])
        reader.seek(place, 0)
        end = (await reader.end_offsets([place]))[place]
        while await reader.position(place) < end:
            batches = await reader.getmany(timeout_ms=200)
            values += [record.value for record in batches.get(place, [])]
    return values


async def test_only_committed_records_are_read(kafka_settings: KafkaSettings, topics: Topics):
    async with producer(kafka_settings, transactional_id=f"{topics.prefix}0") as sender:
        async with sender.transaction():
            await await_sent([await sender.send(topics.matches, b"kept", partition=0)])
        await sender.begin_transaction()
        await await_sent([await sender.send(topics.matches, b"aborted", partition=0)])
        await sender.abort_transaction()

    assert await committed(kafka_settings, topics.matches) == [b"kept"]


async def test_a_successor_fences_the_owner_and_aborts_what_it_left(kafka_settings: KafkaSettings, topics: Topics):
    zombie = producer(kafka_settings, transactional_id=f"{topics.prefix}0")
    await zombie.start()
    await zombie.begin_transaction()
    await await_sent([await zombie.send(topics.matches, b"of the zombie", partition=0)])

    async with producer(kafka_settings, transactional_id=f"{topics.prefix}0") as successor:
        async with successor.transaction():
            await await_sent([await successor.send(topics.matches, b"of the successor", partition=0)])
        with pytest.raises(ProducerFenced):
            await zombie.commit_transaction()
    await zombie.stop()

    assert await committed(kafka_settings, topics.matches) == [b"of the successor"]


async def test_a_record_that_the_broker_refuses_is_not_committed_over(kafka_settings: KafkaSettings, topics: Topics):
    sender = producer(kafka_settings, transactional_id=f"{topics.prefix}0")
    await sender.start()
    await sender.begin_transaction()
    # `matches` keeps the broker's limit of about 1 MB; the client would let 2 MB through.
    too_large = await sender.send(topics.matches, bytes(MAX_RECORD_BYTES - 200_000), partition=0)

    with pytest.raises(SendFailed, match="MessageSizeTooLarge"):
        await await_sent([too_large])
    await sender.stop()

    assert await committed(kafka_settings, topics.matches) == []


async def test_inbox_takes_a_record_above_one_megabyte(kafka_settings: KafkaSettings, topics: Topics):
    large = bytes(MAX_RECORD_BYTES - 10_000)
    async with producer(kafka_settings) as sender:
        await sender.send_and_wait(topics.inbox, large, partition=0)

    assert await committed(kafka_settings, topics.inbox) == [large]


@pytest.mark.partitions(state=4)
async def test_keys_land_where_the_contract_says(kafka_settings: KafkaSettings, topics: Topics):
    async with producer(kafka_settings) as sender:
        futures = [await sender.send(topics.legs, b"leg", key=f"pay_{n}".encode()) for n in range(20)]
        placed = [sent.partition for sent in await await_sent(futures)]

    assert placed == [partition_of(f"pay_{n}".encode(), 4) for n in range(20)]


async def test_a_bulk_consumer_is_not_late(kafka_settings: KafkaSettings, topics: Topics):
    async with consumer(kafka_settings, auto_offset_reset="earliest", **BULK_FETCH) as reader:
        reader.assign([TopicPartition(topics.legs, 0)])
        await reader.seek_to_end()
        async with producer(kafka_settings) as sender:
            await sender.send_and_wait(topics.legs, b"warm", partition=0)
            await asyncio.wait_for(reader.getone(), WAIT_S)
            started = asyncio.get_running_loop().time()
            await sender.send_and_wait(topics.legs, b"leg", partition=0)
            await asyncio.wait_for(reader.getone(), WAIT_S)

    # The default wait for `fetch_min_bytes` is 500 ms.
    assert asyncio.get_running_loop().time() - started < 0.4

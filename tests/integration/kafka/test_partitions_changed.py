"""A number of partitions that somebody changed with Kafka's own tools is noticed before anything goes to a wrong place."""

import asyncio

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewPartitions

from services.alerts.handlers.sink import PartitionsDiffer, SinkLoop
from services.ingest.handlers.normaliser import _partition_counts
from services.matcher.adapters.state_format import encode_changes
from services.matcher.adapters.state_log import KafkaStateLog, PartitionsChanged
from services.matcher.app import WrongPartitions, check_topics
from shared.kafka.client import admin, consumer, producer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics, partitions_of
from shared.telemetry.health import Health
from tests.support.servers import Server

pytestmark = [pytest.mark.kafka, pytest.mark.partitions(state=2, inbox=2)]


async def grow(kafka: KafkaSettings, *names: str) -> None:
    client = admin(kafka)
    await client.start()
    try:
        await client.create_partitions({name: NewPartitions(total_count=3) for name in names})
    finally:
        await client.close()
    async with asyncio.timeout(10):
        while set((await partitions_of(kafka, *names)).values()) != {3}:  # noqa: ASYNC110 - the broker tells everybody
            await asyncio.sleep(0.05)


async def test_ingest_remembers_over_how_many_partitions_it_spread_its_legs(
    real_kafka: Server, kafka_settings: KafkaSettings, topics: Topics
) -> None:
    """The number stands beside its places in the inbox; another one ends the start with what happened."""
    group = f"{kafka_settings.topic_prefix}ingest"
    assert (await _partition_counts(kafka_settings, group))[topics.legs] == 2
    reader = consumer(kafka_settings, group=group, auto_offset_reset="earliest")
    await reader.start()
    reader.assign([TopicPartition(topics.inbox, 1)])
    await reader.commit({TopicPartition(topics.inbox, 1): (0, "legs=2")})
    await reader.stop()
    assert (await _partition_counts(kafka_settings, group))[topics.legs] == 2
    await grow(kafka_settings, topics.legs)
    with pytest.raises(Exception, match=r"legs has 3 partitions and had 2.*migrate") as refused:
        await _partition_counts(kafka_settings, group)
    assert getattr(refused.value, "exit_code", None) == 2


async def test_the_matcher_notices_one_topic_and_all_of_them(
    real_kafka: Server, kafka_settings: KafkaSettings, topics: Topics
) -> None:
    """One: the counts differ. All: the state says with how many it was made."""
    sender = producer(kafka_settings)
    await sender.start()
    for value in encode_changes(7, [(b"key", b"value")], partitions=2):
        await sender.send_and_wait(topics.matcher_state, value, partition=1)
    await sender.stop()
    counts = await check_topics(kafka_settings)
    kept = [one async for one in KafkaStateLog(kafka_settings, topics, counts[topics.legs]).read(1)]
    assert [one.next_offset for one in kept] == [7]
    await grow(kafka_settings, topics.legs)
    with pytest.raises(WrongPartitions, match="legs 3"):
        await check_topics(kafka_settings)
    await grow(kafka_settings, topics.matcher_state, topics.matcher_checkpoints)
    await grow(kafka_settings, topics.discrepancies, topics.matches, topics.checks)
    counts = await check_topics(kafka_settings)
    with pytest.raises(PartitionsChanged, match=r"has 3 partitions, the state was made with 2") as refused:
        [one async for one in KafkaStateLog(kafka_settings, topics, counts[topics.legs]).read(1)]
    assert refused.value.exit_code == 2


async def test_the_sink_notices(real_kafka: Server, kafka_settings: KafkaSettings, topics: Topics) -> None:
    """Results of a partition lie in the same partition of every topic."""
    loop = SinkLoop(kafka_settings, None, None, Health(["sink"]), group="sink")  # type: ignore[arg-type]  # it stores nothing
    await loop._refuse_other_counts()
    await grow(kafka_settings, topics.matches)
    with pytest.raises(PartitionsDiffer, match="matches 3") as refused:
        await loop._refuse_other_counts()
    assert refused.value.exit_code == 2

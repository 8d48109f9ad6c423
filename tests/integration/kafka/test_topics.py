"""Topics on a real broker: created once, never reshaped, inbox on the broker's clock."""

import asyncio

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewTopic

from shared.kafka.client import admin, consumer, producer, wait_for_kafka
from shared.kafka.errors import KafkaAway, TopicMismatch
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import TOPICS, Topics, apply_topics, partitions_of
from tieout.local.places import free_ports

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("real_kafka")]


async def test_applying_twice_creates_once(kafka_settings: KafkaSettings):
    first = await apply_topics(kafka_settings, 3, 2, orgs=["acme"])
    second = await apply_topics(kafka_settings, 3, 2, orgs=["acme"])

    assert {topic.action for topic in first} == {"created"}
    assert {topic.action for topic in second} == {"unchanged"}
    assert len(first) == len(TOPICS) + 1


async def test_counts_on_the_broker_are_those_asked_for(kafka_settings: KafkaSettings):
    await apply_topics(kafka_settings, 4, 2)
    topics = Topics(kafka_settings.topic_prefix)

    found = await partitions_of(kafka_settings, *topics.all)

    state = {topics.legs, topics.matcher_state, topics.discrepancies, topics.matches, topics.checks}
    assert {found[name] for name in state} == {4}
    assert found[topics.inbox] == 2
    assert found[topics.rules] == found[topics.directory] == 1


async def test_another_count_is_refused_and_nothing_is_created(kafka_settings: KafkaSettings):
    await apply_topics(kafka_settings, 3, 2)

    with pytest.raises(TopicMismatch, match=r"legs has 3 partitions, 5 were asked for"):
        await apply_topics(kafka_settings, 5, 2, orgs=["acme"])

    inbox = Topics(kafka_settings.topic_prefix).inbox_of("acme")
    assert await partitions_of(kafka_settings, inbox) == {}


async def test_what_is_missing_is_added_to_what_exists(kafka_settings: KafkaSettings):
    client = admin(kafka_settings)
    await client.start()
    await client.create_topics([NewTopic(Topics(kafka_settings.topic_prefix).legs, 3, 1)])
    await client.close()

    applied = {topic.name: topic.action for topic in await apply_topics(kafka_settings, 3, 2)}

    assert applied.pop(Topics(kafka_settings.topic_prefix).legs) == "unchanged"
    assert set(applied.values()) == {"created"}


async def test_an_inbox_on_the_producers_clock_is_refused(kafka_settings: KafkaSettings):
    client = admin(kafka_settings)
    await client.start()
    await client.create_topics([NewTopic(Topics(kafka_settings.topic_prefix).inbox, 2, 1)])
    await client.close()

    with pytest.raises(TopicMismatch, match=r"message\.timestamp\.type=CreateTime"):
        await apply_topics(kafka_settings, 3, 2)


async def test_two_processes_may_apply_at_once(kafka_settings: KafkaSettings):
    both = await asyncio.gather(*(apply_topics(kafka_settings, 3, 2) for _ in range(2)))

    assert [len(applied) for applied in both] == [len(TOPICS)] * 2


async def test_inbox_takes_the_brokers_time(kafka_settings: KafkaSettings, topics: Topics):
    async with producer(kafka_settings) as sender:
        year_2099 = 4_070_908_800_000
        await sender.send_and_wait(topics.inbox, b"row", partition=0, timestamp_ms=year_2099)
    async with consumer(kafka_settings, auto_offset_reset="earliest") as reader:
        reader.assign([TopicPartition(topics.inbox, 0)])
        record = await asyncio.wait_for(reader.getone(), 20)

    assert record.timestamp < year_2099
    assert record.timestamp_type == 1


async def test_a_broker_that_is_away_is_named():
    (port,) = free_ports(1)
    settings = KafkaSettings(bootstrap_servers=f"127.0.0.1:{port}")

    with pytest.raises(KafkaAway, match=rf"no Kafka broker answered at 127.0.0.1:{port} within 0.5 s"):
        await wait_for_kafka(settings, 0.5)

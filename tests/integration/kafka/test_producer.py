"""The producer of the client factory on a broker that goes away."""

import asyncio

import pytest

from shared.kafka.client import faststream_broker, producer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics, apply_topics
from tests.support.servers import Server
from tieout.local.kafka_jvm import JvmKafka

pytestmark = pytest.mark.kafka


async def test_a_producer_stops_while_kafka_is_away(own_kafka: JvmKafka) -> None:
    """aiokafka's waits for its records without a limit: whoever asked for a run then waited with it."""
    settings = KafkaSettings.local(own_kafka.bootstrap_servers)
    await apply_topics(settings, 1, 1)
    client = producer(settings)
    await client.start()
    inbox = Topics(settings.topic_prefix).inbox
    await client.send_and_wait(inbox, b"first", key=b"k")
    await asyncio.to_thread(own_kafka.kill)
    await client.send(inbox, b"second", key=b"k")
    async with asyncio.timeout(8):
        await client.stop()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not [task for task in others if "sender" in repr(task)]


@pytest.mark.parametrize("ends", [False, True], ids=["sends", "commits"])
async def test_a_transactional_producer_stops_while_kafka_is_away(own_kafka: JvmKafka, ends: bool) -> None:
    """One is thrown away after every failure: none may go on in the background."""
    settings = KafkaSettings.local(own_kafka.bootstrap_servers)
    await apply_topics(settings, 1, 1)
    client = producer(settings, transactional_id="t")
    await client.start()
    inbox = Topics(settings.topic_prefix).inbox
    await client.begin_transaction()
    await client.send_and_wait(inbox, b"first", partition=0)
    await asyncio.to_thread(own_kafka.kill)
    if ends:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.commit_transaction(), 1)
    else:
        await client.send(inbox, b"second", partition=0)
    async with asyncio.timeout(8):
        await client.stop()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not [task for task in others if "sender" in repr(task)]


async def test_a_stop_sends_what_waits(kafka_settings: KafkaSettings, topics: Topics) -> None:
    """While Kafka answers, nothing is given up."""
    client = producer(kafka_settings)
    await client.start()
    sent = await client.send(topics.inbox, b"last", key=b"k")
    await client.stop()
    assert (await sent).offset == 0


async def test_several_addresses_are_several_for_faststream_too(kafka: Server) -> None:
    """One broker of three may be away."""
    broker = faststream_broker(KafkaSettings.local(f"127.0.0.1:1, {kafka.address}"))
    await broker.start()
    try:
        assert await broker.ping(timeout=10)
    finally:
        await broker.stop()

"""The consumer of the client factory on a real broker."""

import asyncio

from shared.kafka.client import consumer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics


async def test_a_consumer_stops_while_its_own_requests_wait(kafka_settings: KafkaSettings, topics: Topics) -> None:
    """aiokafka lets the cancellation of its requests out of `stop`, which ended the caller's task without an error."""
    reader = consumer(kafka_settings, topics.inbox, auto_offset_reset="earliest")
    await reader.start()
    waiting = [asyncio.create_task(asyncio.sleep(60)) for _ in range(2)]
    reader._fetcher._pending_tasks.update(waiting)
    await reader.stop()
    assert all(task.cancelled() for task in waiting)
    assert not any(connection.connected() for connection in reader._client._conns.values())

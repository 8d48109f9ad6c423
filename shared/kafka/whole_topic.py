"""Read a topic from its beginning to where it ends now: for commands, not for services."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from shared.errors import UsageError
from shared.kafka.client import consumer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import partitions_of

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

POLL_MS = 500


async def read_whole(settings: KafkaSettings, topic: str) -> "AsyncIterator[ConsumerRecord[Any, Any]]":
    """Yield every committed record of the full topic name, partition by partition in order.

    Raises:
        UsageError: the topic does not exist.
    """
    from aiokafka import TopicPartition

    counts = await partitions_of(settings, topic)
    if topic not in counts:
        raise UsageError(f"topic {topic} does not exist: create the topics with `tieout topics apply`")
    reader = consumer(settings, auto_offset_reset="earliest")
    await reader.start()
    try:
        places = [TopicPartition(topic, number) for number in range(counts[topic])]
        reader.assign(places)
        ends = await reader.end_offsets(places)
        while any([await reader.position(place) < end for place, end in ends.items()]):
            for records in (await reader.getmany(timeout_ms=POLL_MS)).values():
                for record in records:
                    yield record
    finally:
        await reader.stop()

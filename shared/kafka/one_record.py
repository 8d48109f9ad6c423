"""Read the one record at a place: what a dead letter points to."""

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, ConsumerRecord

FOUND_TIMEOUT_S = 10.0
"""A record that is there comes within a second; one that does not come within this time is no longer kept."""


async def record_at(
    reader: "AIOKafkaConsumer", topic: str, partition: int, offset: int
) -> "ConsumerRecord[Any, Any] | None":
    """Return the committed record at this place; None: it is no longer kept, or never was.

    `reader` is started, belongs to no group, and is assigned to this partition afterwards.
    """
    from aiokafka import TopicPartition
    from aiokafka.errors import IllegalStateError

    place = TopicPartition(topic, partition)
    reader.assign([place])
    begin, end = (await reader.beginning_offsets([place]))[place], (await reader.end_offsets([place]))[place]
    if not begin <= offset < end:
        return None
    reader.seek(place, offset)
    try:
        record = await asyncio.wait_for(reader.getone(place), FOUND_TIMEOUT_S)
    except (TimeoutError, IllegalStateError):
        return None
    return record if record.offset == offset else None

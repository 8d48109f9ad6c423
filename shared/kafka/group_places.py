"""What a consumer group has committed, with the notes beside it."""

import asyncio
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

from shared.kafka.client import admin
from shared.kafka.errors import KafkaAway
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import partitions_of

if TYPE_CHECKING:
    from aiokafka import TopicPartition
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.structs import OffsetAndMetadata


RETRY_S = 0.2
RETRIES = 75
"""A group's coordinator is found within seconds, also where the cluster has never had a group."""


async def noted_offsets(kafka: KafkaSettings, group: str, topic: str) -> "dict[TopicPartition, OffsetAndMetadata]":
    """Return the committed place of every partition of a topic (full name) that has one."""
    from aiokafka import TopicPartition

    count = (await partitions_of(kafka, topic)).get(topic, 0)
    if not count:
        return {}
    client = admin(kafka)
    await client.start()
    try:
        # Named, because the embedded broker answers nothing about all at once.
        places = [TopicPartition(topic, number) for number in range(count)]
        found = await _asked(client, group, places)
    finally:
        await client.close()
    return {place: noted for place, noted in found.items() if noted.offset >= 0}


async def _asked(
    client: "AIOKafkaAdminClient", group: str, places: "list[TopicPartition]"
) -> "dict[TopicPartition, OffsetAndMetadata]":
    for _ in range(RETRIES):
        try:
            found: dict[TopicPartition, OffsetAndMetadata] = await client.list_consumer_group_offsets(
                group, partitions=places
            )
        except KafkaError as error:
            if not error.retriable:
                raise
            await asyncio.sleep(RETRY_S)
        else:
            return found
    raise KafkaAway(f"no broker answers for consumer group {group}")

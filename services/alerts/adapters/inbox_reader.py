"""Looks a record of the topic `inbox` up by its place, for one person at a time."""

import asyncio

from aiokafka.errors import KafkaError

from services.alerts.ports.dead_letters import InboxRecord
from shared.kafka.client import consumer
from shared.kafka.errors import KafkaAway
from shared.kafka.one_record import record_at
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import partitions_of

TIMEOUT_S = 15.0
"""A person waits for it: connecting, and reading one record."""


class KafkaInbox:
    """`Inbox` over Kafka, with a consumer per look: people replay a letter now and then."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka

    async def find(self, partition: int, offset: int) -> InboxRecord | None:
        """Return the record at a place; None: it is no longer kept.

        Raises:
            KafkaAway: it did not answer within `TIMEOUT_S`.
        """
        topic = f"{self._kafka.topic_prefix}inbox"
        try:
            async with asyncio.timeout(TIMEOUT_S):
                if partition >= (await partitions_of(self._kafka, topic)).get(topic, 0):
                    return None
                reader = consumer(self._kafka, auto_offset_reset="earliest")
                await reader.start()
                try:
                    record = await record_at(reader, topic, partition, offset)
                finally:
                    await reader.stop()
        except (KafkaError, OSError, TimeoutError) as error:
            reason = str(error) or f"no answer within {TIMEOUT_S:g} s"
            raise KafkaAway(
                f"Kafka at {self._kafka.bootstrap_servers} did not show {topic}[{partition}]@{offset}: {reason}"
            ) from error
        if record is None or record.value is None:
            return None
        return InboxRecord(key=record.key or b"", value=record.value)

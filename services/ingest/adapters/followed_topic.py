"""A small compacted topic, read from its beginning to its end and then followed: `rules` and `directory`."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from shared.errors import UsageError
from shared.kafka.client import consumer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import partitions_of

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer

POLL_MS = 500
RETRY_PAUSE_S = 1.0

Take = Callable[[bytes, bytes | None, int], None]
"""Takes key, value (None: withdrawn) and offset; must not raise on what a record holds."""

log = structlog.get_logger(__name__)


class FollowedTopic:
    """Gives every record of a topic to `take`, in order per key."""

    def __init__(self, settings: KafkaSettings, topic: str, take: Take, on_progress: Callable[[], None]) -> None:
        self._settings = settings
        self._topic = topic
        self._take = take
        self._on_progress = on_progress
        self._consumer: AIOKafkaConsumer | None = None

    async def read_to_end(self) -> None:
        """Return once everything that is in the topic now has been taken.

        Raises:
            UsageError: the topic does not exist.
            KafkaError: no broker answers.
        """
        client = consumer(self._settings, auto_offset_reset="earliest")
        try:
            await client.start()
            partitions = await self._partitions()
            client.assign(partitions)
            ends = await client.end_offsets(partitions)
            while any([await client.position(partition) < end for partition, end in ends.items()]):
                await self._poll(client)
        except BaseException:
            await client.stop()
            raise
        self._consumer = client

    async def follow(self) -> None:
        """Take what is written from now on; comes back after Kafka was away; ends when cancelled."""
        while True:
            try:
                if self._consumer is None:
                    await self.read_to_end()
                assert self._consumer is not None
                await self._poll(self._consumer)
            except (KafkaError, OSError) as error:
                log.warning("topic cannot be read", topic=self._topic, error=f"{type(error).__name__}: {error}")
                await self.close()
                await asyncio.sleep(RETRY_PAUSE_S)

    async def close(self) -> None:
        """Let the connection go."""
        client, self._consumer = self._consumer, None
        if client is not None:
            await client.stop()

    async def _partitions(self) -> list[TopicPartition]:
        found = await partitions_of(self._settings, self._topic)
        if self._topic not in found:
            raise UsageError(f"topic {self._topic} does not exist: create the topics with `tieout topics apply`")
        return [TopicPartition(self._topic, number) for number in range(found[self._topic])]

    async def _poll(self, client: "AIOKafkaConsumer") -> None:
        batches = await client.getmany(timeout_ms=POLL_MS)
        for records in batches.values():
            for record in records:
                self._take(record.key or b"", record.value, record.offset)
        self._on_progress()

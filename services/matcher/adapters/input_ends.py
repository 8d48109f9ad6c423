"""How far the input reaches, asked beside the consumer: a consumer that is stuck does not see that it lags."""

import asyncio
from collections.abc import Callable, Collection

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from shared.kafka.client import consumer
from shared.kafka.settings import KafkaSettings

ASK_S = 5.0

log = structlog.get_logger(__name__)


class InputEnds:
    """The end of each input partition, a few seconds old at most."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self._kafka = kafka
        self._topic = topic
        self.known: dict[int, int] = {}
        """Offset after the last record, by partition."""

    async def run(self, owned: Callable[[], Collection[int]]) -> None:
        """Ask for the ends of the partitions `owned` every few seconds, until cancelled."""
        reader = consumer(self._kafka, auto_offset_reset="none")
        try:
            await reader.start()
            while True:
                places = [TopicPartition(self._topic, number) for number in owned()]
                await self._ask(reader, places)
                await asyncio.sleep(ASK_S)
        finally:
            await reader.stop()

    async def _ask(self, reader: AIOKafkaConsumer, places: list[TopicPartition]) -> None:
        if not places:
            return
        try:
            ends = await reader.end_offsets(places)
        except (KafkaError, OSError, TimeoutError) as error:
            log.debug("ends of the input not known", reason=repr(error))
            return
        self.known = {place.partition: end for place, end in ends.items()}

"""Asks the matcher, through the topic `inbox`, to publish what is still pending."""

import asyncio
from datetime import UTC, datetime, timedelta

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from shared.contracts.inbox import CutRequested, encode_inbox
from shared.ids import canonical
from shared.kafka.client import producer
from shared.kafka.errors import KafkaAway
from shared.kafka.settings import KafkaSettings

TIMEOUT_S = 5.0
"""A request of a person waits for it; the scheduler asks again."""

log = structlog.get_logger()


class KafkaCuts:
    """`Cuts` over Kafka, with a producer that is made at the first request."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._producer: AIOKafkaProducer | None = None
        self._one_at_a_time = asyncio.Lock()

    async def request(self, org: str, cut_id: str) -> datetime:
        """Write the request; return the broker's time of its record.

        Raises:
            KafkaAway: not acknowledged within `TIMEOUT_S`; asking twice does no harm.
        """
        key, value = canonical([org, "cut", cut_id]), encode_inbox(CutRequested(org=org, id=cut_id))
        async with self._one_at_a_time:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    client = await self._started()
                    sent = await client.send_and_wait(f"{self._kafka.topic_prefix}inbox", value, key=key)
            except (KafkaError, OSError, TimeoutError) as error:
                await self.close()
                reason = str(error) or type(error).__name__
                raise KafkaAway(
                    f"Kafka at {self._kafka.bootstrap_servers} did not take the request for a cut of {org}: {reason}"
                ) from error
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=sent.timestamp)

    async def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            self._producer = producer(self._kafka)
            await self._producer.start()
        return self._producer

    async def close(self) -> None:
        """Stop the producer; the next request makes a new one."""
        client, self._producer = self._producer, None
        if client is None:
            return
        try:
            await client.stop()
        except (KafkaError, OSError) as error:
            log.warning("the producer of cuts did not stop cleanly", reason=str(error))

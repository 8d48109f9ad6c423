"""Publishes what transactions left in `topic_outbox`: the directory, adjustment entries, requests to the matcher."""

import asyncio

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from sqlalchemy import delete, select, text

from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.adapters.tables import topic_outbox
from shared.kafka.client import await_sent, producer
from shared.kafka.errors import KafkaAway, SendFailed
from shared.kafka.settings import KafkaSettings

ROWS_MAX = 500
"""Per transaction; a row is below a kilobyte."""
SEND_TIMEOUT_S = 10.0
"""Kafka answers within a second; a transaction must not stay open for as long as it is away."""
_LOCK = 0x746F706F7574
"""Advisory lock: one publisher at a time keeps entries of one key in their order."""

log = structlog.get_logger()


class TopicOutbox:
    """Sends rows in their order and deletes them once Kafka has acknowledged them; a row may be sent twice."""

    def __init__(self, database: Database, kafka: KafkaSettings) -> None:
        self._database = database
        self._kafka = kafka
        self._producer: AIOKafkaProducer | None = None

    async def publish_once(self) -> int:
        """Send what waits, at most `ROWS_MAX` rows; return how many went out.

        Raises:
            KafkaAway: not acknowledged; everything is still in the outbox.
            DatabaseAway: PostgreSQL does not answer.
        """
        async with self._database.transaction(EVERY_ORG) as connection:
            mine = await connection.execute(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            if not mine.scalar_one():
                return 0
            rows = (await connection.execute(select(topic_outbox).order_by(topic_outbox.c.id).limit(ROWS_MAX))).all()
            if not rows:
                return 0
            await self._send([(self._kafka.topic_prefix + row.topic, row.key, row.value) for row in rows])
            await connection.execute(delete(topic_outbox).where(topic_outbox.c.id.in_([row.id for row in rows])))
        return len(rows)

    async def _send(self, records: list[tuple[str, bytes, bytes | None]]) -> None:
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                if self._producer is None:
                    self._producer = producer(self._kafka)
                    await self._producer.start()
                client = self._producer
                await await_sent([await client.send(topic, value, key=key) for topic, key, value in records])
        except (KafkaError, SendFailed, OSError, TimeoutError) as error:
            await self.close()
            reason = str(error) or f"no acknowledgement within {SEND_TIMEOUT_S:g} s"
            raise KafkaAway(
                f"Kafka at {self._kafka.bootstrap_servers} did not take {len(records)} records: {reason}"
            ) from error

    async def close(self) -> None:
        """Stop the producer; the next send makes a new one."""
        client, self._producer = self._producer, None
        if client is not None:
            try:
                await client.stop()
            except (KafkaError, OSError) as error:
                log.warning("the outbox's producer did not stop cleanly", reason=str(error))

"""The producer of aiokafka, with a stop that ends."""

import asyncio

from aiokafka import AIOKafkaProducer

STOP_TIMEOUT_S = 2.0
"""What Kafka does not take within this time is given up: a stop that flushes is done in milliseconds, and whoever
stops because Kafka is away has a person or a deadline waiting."""


class Producer(AIOKafkaProducer):  # type: ignore[misc]  # aiokafka has no types
    """As its parent; `stop` also ends while Kafka is away."""

    async def stop(self) -> None:
        """Send what waits, then close the connections.

        The parent waits for every record without a limit, and an idempotent one is repeated for as long as Kafka is
        away. Records given up here are acknowledged to nobody, though Kafka may have them.
        """
        if self._closed or self._sender is None or self._sender.sender_task is None:
            await super().stop()
            return
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self.flush()
        except TimeoutError:
            await self._give_up()
        else:
            await super().stop()

    async def _give_up(self) -> None:
        self._closed = True
        sender = self._sender.sender_task
        sender.cancel()
        await self.client.close()
        await asyncio.gather(sender, return_exceptions=True)

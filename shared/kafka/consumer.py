"""The consumer of aiokafka, with a stop that ends."""

import asyncio

from aiokafka import AIOKafkaConsumer


class Consumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka has no types
    """As its parent; `stop` also ends cleanly while Kafka is away or has given this member up."""

    async def stop(self) -> None:
        """Leave the group and close the connections.

        The parent cancels its own requests under way and lets their cancellation out, as if the caller had been
        cancelled: the caller's task would end without an error, and the connections stay open.
        """
        try:
            await super().stop()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            requests = list(self._fetcher._pending_tasks)  # noqa: SLF001 - it has no other way to end them
            for request in requests:
                request.cancel()
            await asyncio.gather(*requests, return_exceptions=True)
            await self._client.close()

"""The consumer of aiokafka, with waits that end."""

import asyncio
import time
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaTimeoutError

REBALANCE_LOOK_S = 0.2
"""How much longer than asked for a poll may take when it comes upon a rebalance."""
ASSIGNMENT_S_MAX = 60.0
"""The longest rebalance takes half of it; a member that gets no partitions for so long has to join anew."""


class Consumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka has no types
    """As its parent; `start`, `getmany` and `stop` end also while the group rebalances or Kafka is away."""

    def __init__(self, *topics: str, **options: Any) -> None:
        super().__init__(*topics, **options)
        self._unassigned_s: float | None = None
        """Since when polls find the group rebalancing."""

    async def start(self) -> None:
        """Connect, and join the group where topics are subscribed to already.

        Raises:
            KafkaTimeoutError: no partitions within `ASSIGNMENT_S_MAX`; the parent waits without a limit.
        """
        try:
            async with asyncio.timeout(ASSIGNMENT_S_MAX):
                await super().start()
        except TimeoutError:
            raise KafkaTimeoutError(f"the consumer has not started within {ASSIGNMENT_S_MAX:g} s") from None

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> "dict[TopicPartition, list[Any]]":
        """Return the records that come within `timeout_ms`; none while the group rebalances.

        The parent waits for the next assignment without a limit, even one that begins while it waits for records. Who
        polls with a lock in his hand that his listener wants before it gives partitions up would wait for ever.

        Raises:
            KafkaTimeoutError: the group has given this member no partitions for `ASSIGNMENT_S_MAX`.
        """
        try:
            async with asyncio.timeout(timeout_ms / 1000 + REBALANCE_LOOK_S):
                found: dict[TopicPartition, list[Any]] = await super().getmany(
                    *partitions, timeout_ms=timeout_ms, max_records=max_records
                )
        except TimeoutError:
            # The parent counts a poll as under way until it ends by itself, and with it this member as busy.
            self._subscription._fetch_count -= 1  # noqa: SLF001
            self._subscription._last_fetch_ended = time.monotonic()  # noqa: SLF001
            self._refuse_long_rebalance()
            return {}
        self._unassigned_s = None
        return found

    def _refuse_long_rebalance(self) -> None:
        if not self._subscription.reassignment_in_progress:
            self._unassigned_s = None
            return
        now_s = time.monotonic()
        if self._unassigned_s is None:
            self._unassigned_s = now_s
        if now_s - self._unassigned_s > ASSIGNMENT_S_MAX:
            raise KafkaTimeoutError(f"no partitions from the consumer group for {now_s - self._unassigned_s:.0f} s")

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

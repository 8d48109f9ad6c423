"""The producers of aiokafka: one with waits that end, and one that tells of an end it had to ask for again."""

import asyncio
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError

START_TIMEOUT_S = 60.0
"""A producer that reaches Kafka has its id within seconds; one whose predecessor's transaction has to time out first,
within half a minute."""
STOP_TIMEOUT_S = 2.0
"""What Kafka does not take within this time is given up: a stop that flushes is done in milliseconds, and whoever
stops because Kafka is away has a person or a deadline waiting."""


class Producer(AIOKafkaProducer):  # type: ignore[misc]  # aiokafka has no types
    """As its parent; `start` and `stop` also end while Kafka is away."""

    async def start(self) -> None:
        """Connect and get an id.

        A client that met a broker before it led anything, and lost it again, knows no other address to ask: only a new
        one helps.

        Raises:
            KafkaTimeoutError: not within `START_TIMEOUT_S`; the parent tries for ever.
        """
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await super().start()
        except TimeoutError:
            raise KafkaTimeoutError(f"the producer has not started within {START_TIMEOUT_S:g} s") from None

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
        if sender is not None:
            sender.cancel()
        await self.client.close()
        if sender is not None:
            await asyncio.gather(sender, return_exceptions=True)


class TransactionalProducer(Producer):
    """As its parent; tells when the end of a transaction was asked for more than once.

    The parent repeats the request silently where no answer came. The first one may then still be on its way, and Kafka
    takes it for the end of the next transaction of the same producer, whatever of that is there by then. Only a new
    producer of the same name keeps it out.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._ends_asked = 0
        self._ask_end = self._sender._do_txn_commit  # noqa: SLF001 - the parent tells nobody of its attempts
        self._sender._do_txn_commit = self._asked_end  # noqa: SLF001

    @property
    def end_is_doubtful(self) -> bool:
        """The last transaction has ended, and a request to end it may arrive again."""
        return self._ends_asked > 1

    async def stop(self) -> None:
        """Close within `STOP_TIMEOUT_S`: what waits belongs to a transaction that this producer will not end any more.

        A stop that is given up halfway leaves the parent's sender asking for brokers a hundred times a second.
        """
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await AIOKafkaProducer.stop(self)
        except TimeoutError:
            await self._give_up()

    async def begin_transaction(self) -> None:
        self._ends_asked = 0
        await super().begin_transaction()

    async def _asked_end(self, result: Any) -> Any:
        self._ends_asked += 1
        return await self._ask_end(result)

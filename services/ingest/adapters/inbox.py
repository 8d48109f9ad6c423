"""The topic `inbox`, written by one idempotent producer."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog
from aiokafka.errors import KafkaError

from services.ingest.ports import Appended, InboxAway
from shared.kafka.client import producer
from shared.kafka.settings import KafkaSettings
from shared.telemetry.metrics import histogram
from shared.telemetry.traces import inject_headers

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer

CLOSE_TIMEOUT_S = 5
"""A producer flushes when it is closed; while Kafka is away it would do so for ever."""
RETRY_PAUSE_S = 0.5

log = structlog.get_logger(__name__)


class KafkaInbox:
    """Appends to `inbox`. After a failed send it makes a new producer, for the old one's sequence is off."""

    def __init__(self, settings: KafkaSettings, topic: str, ack_timeout_s: float) -> None:
        self._settings = settings
        self._topic = topic
        self._ack_timeout_s = ack_timeout_s
        self._producer: AIOKafkaProducer | None = None
        self._overdue: set[asyncio.Future[Any]] = set()
        """Sends that a request did not wait for any longer. aiokafka goes on trying; until they are through Kafka is
        away, and further requests are turned down at once instead of filling the memory."""
        self._renewal: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect.

        Raises:
            KafkaError: no broker answers.
        """
        self._producer = await self._connected()

    async def close(self) -> None:
        """Send what is under way, within `CLOSE_TIMEOUT_S`."""
        if self._renewal is not None:
            self._renewal.cancel()
        current, self._producer = self._producer, None
        if current is not None:
            await _close(current)

    def trouble(self) -> str | None:
        """Return why nothing can be appended now, None when it can."""
        if self._producer is None:
            return "no connection to Kafka"
        return "Kafka does not acknowledge" if self._overdue else None

    async def append(self, records: Sequence[Appended]) -> None:
        """Append `records` in one round of acknowledgements; see `ports.Inbox`."""
        current = self._producer
        if current is None or self._overdue:
            raise InboxAway(self.trouble())
        headers = inject_headers()
        futures: list[asyncio.Future[Any]] = []
        with histogram("tieout_ingest_inbox_append_seconds").time():
            try:
                async with asyncio.timeout(self._ack_timeout_s):
                    futures = [
                        await current.send(self._topic, record.value, key=record.key, headers=headers)
                        for record in records
                    ]
                    await asyncio.wait(futures)
            except TimeoutError:
                self._note_overdue(futures)
                raise InboxAway(f"Kafka has not acknowledged within {self._ack_timeout_s:g} s") from None
            except KafkaError as error:
                self._renew(current)
                raise InboxAway(f"Kafka refused the records: {type(error).__name__}") from error
        failed = [future.exception() for future in futures if future.cancelled() or future.exception() is not None]
        if failed:
            self._renew(current)
            raise InboxAway(f"Kafka refused {len(failed)} of {len(futures)} records: {failed[0]!r}")

    def _note_overdue(self, futures: Sequence[asyncio.Future[Any]]) -> None:
        for future in futures:
            if future.done():
                continue
            self._overdue.add(future)
            future.add_done_callback(self._settled)
        log.warning("kafka does not acknowledge", overdue=len(self._overdue))

    def _settled(self, future: asyncio.Future[Any]) -> None:
        self._overdue.discard(future)
        if not future.cancelled():
            future.exception()  # looked at, so that asyncio does not report it as forgotten

    def _renew(self, broken: "AIOKafkaProducer") -> None:
        if self._producer is not broken:
            return
        self._producer = None
        self._renewal = asyncio.create_task(self._replace(broken))

    async def _replace(self, broken: "AIOKafkaProducer") -> None:
        log.warning("a send failed: connecting anew")
        await _close(broken)
        while True:
            try:
                self._producer = await self._connected()
            except (KafkaError, OSError) as error:
                log.warning("kafka is away", error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(RETRY_PAUSE_S)
            else:
                return

    async def _connected(self) -> "AIOKafkaProducer":
        made = producer(self._settings)
        try:
            await made.start()
        except BaseException:
            await _close(made)
            raise
        return made


async def _close(broken: "AIOKafkaProducer") -> None:
    with suppress(TimeoutError, KafkaError):
        await asyncio.wait_for(broken.stop(), CLOSE_TIMEOUT_S)

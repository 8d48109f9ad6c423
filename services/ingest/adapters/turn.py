"""One process at a time: of a consumer group's members, the one that has partition 0."""

import asyncio
from contextlib import suppress

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from shared.kafka.client import consumer
from shared.kafka.settings import KafkaSettings

POLL_MS = 500
RETRY_PAUSE_S = 1.0
CLOSE_TIMEOUT_S = 5.0

log = structlog.get_logger(__name__)


class KafkaTurn:
    """Whose turn it is, decided by Kafka; a process that dies gives its turn up after the session's time-out.

    For a moment two may think that it is theirs: only for work that may be done twice.
    """

    def __init__(self, settings: KafkaSettings, topic: str, group: str, session_timeout_ms: int) -> None:
        self._settings = settings
        self._topic = topic
        self._group = group
        self._session_timeout_ms = session_timeout_ms
        self._mine = asyncio.Event()

    async def wait(self) -> None:
        """Return as soon as it is this process's turn."""
        await self._mine.wait()

    async def run(self) -> None:
        """Stand in line until cancelled; while Kafka is away it is nobody's turn."""
        while True:
            try:
                await self._session()
            except (KafkaError, OSError) as error:
                log.warning("whose turn it is cannot be told", reason=f"{type(error).__name__}: {error}")
            finally:
                self._mine.clear()
            await asyncio.sleep(RETRY_PAUSE_S)

    async def _session(self) -> None:
        # Its records are of no interest: a topic with few of them is the right one.
        member = consumer(
            self._settings,
            self._topic,
            group=self._group,
            auto_offset_reset="latest",
            session_timeout_ms=self._session_timeout_ms,
        )
        try:
            await member.start()
            while True:
                await member.getmany(timeout_ms=POLL_MS)
                self._note(TopicPartition(self._topic, 0) in member.assignment())
        finally:
            with suppress(TimeoutError, KafkaError):
                await asyncio.wait_for(member.stop(), CLOSE_TIMEOUT_S)

    def _note(self, mine: bool) -> None:
        if mine == self._mine.is_set():
            return
        log.info("this process polls" if mine else "another process polls")
        if mine:
            self._mine.set()
        else:
            self._mine.clear()

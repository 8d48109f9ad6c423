"""Come back to brokers that are away, in the tact of Kafka's own clients.

aiokafka connects as often as somebody has a request, and asks for metadata as often as somebody misses a leader. With
Kafka away for a minute three services made 67,000 attempts, each with a line in the log; where Kafka has too little
CPU to elect leaders, its own clients take the rest of it. Here a broker that refused is left alone for a while that
grows, and metadata are asked for at most ten times a second.
"""

import asyncio
import random
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import aiokafka.admin.client
import aiokafka.consumer.consumer
import aiokafka.producer.producer
import structlog
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.errors import KafkaError

from shared.kafka.coordinator import Coordinator

# As `reconnect.backoff.ms` and `reconnect.backoff.max.ms` of the Java client are by default, with its jitter.
PAUSE_FIRST_S = 0.05
PAUSE_MAX_S = 1.0
JITTER = 0.2
METADATA_BURST = 20
"""Requests for metadata that follow each other at once, as at a start."""
METADATA_WINDOW_S = 2.0
"""In which there are no more than those: leaders that are being elected are found as soon as with the Java client."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Away:
    """What a client knows of a broker that refused it."""

    refusals: int = 0
    """In a row."""
    due_s: float = 0.0
    """When the next attempt may be made."""
    attempt: asyncio.Lock = field(default_factory=asyncio.Lock)

    def refused(self) -> None:
        pause_s = min(PAUSE_FIRST_S * 2 ** min(self.refusals, 10), PAUSE_MAX_S)
        self.refusals += 1
        self.due_s = time.monotonic() + pause_s * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret


class Client(AIOKafkaClient):  # type: ignore[misc]  # aiokafka has no types
    """The part of every aiokafka client that holds its connections."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._away: dict[int, _Away] = {}
        self._metadata_asked: deque[float] = deque(maxlen=METADATA_BURST)
        self._closed = False

    async def close(self) -> None:
        """Close the connections; whoever still wants something fails, where the parent would let it wait for ever."""
        self._closed = True
        await super().close()
        awaited = self._md_update_fut
        if awaited is not None and not awaited.done():
            awaited.set_result(False)

    def force_metadata_update(self) -> "asyncio.Future[bool]":
        if not self._closed:
            wanted: asyncio.Future[bool] = super().force_metadata_update()
            return wanted
        refused = asyncio.get_running_loop().create_future()
        refused.set_result(False)
        return refused

    async def _get_conn(
        self, node_id: Any, *, group: int = ConnectionGroup.DEFAULT, no_hint: bool = False
    ) -> "Any | None":
        """As the parent's, None where the broker cannot be reached; one attempt at a time, and not before it is due.

        Raises:
            KafkaError: not retriable; this client is closed.
        """
        self._refuse_when_closed()
        known = self._conns.get((node_id, group))
        if known is not None and known.connected():
            return known
        broker = self.cluster.broker_metadata(node_id)
        if broker is None:
            return await super()._get_conn(node_id, group=group, no_hint=no_hint)  # asks for metadata
        away = self._away.setdefault(node_id, _Away())
        if away.due_s > time.monotonic() and self._another_may_answer(node_id):
            # It knows whether somebody else leads now.
            self.force_metadata_update()
            return None
        refusals = away.refusals
        async with away.attempt:
            if away.refusals > refusals:
                return None  # as it went for whoever tried meanwhile
            await asyncio.sleep(max(0.0, away.due_s - time.monotonic()))
            self._refuse_when_closed()
            connection = await super()._get_conn(node_id, group=group, no_hint=no_hint)
            if connection is None:
                away.refused()
                _tell_away(f"{broker.host}:{broker.port}")
            else:
                away.refusals, away.due_s = 0, 0.0
                _tell_back(f"{broker.host}:{broker.port}")
        return connection

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise KafkaError("this client is closed")

    def _another_may_answer(self, node_id: Any) -> bool:
        others = [broker.nodeId for broker in self.cluster.brokers() if broker.nodeId != node_id]
        return any(other not in self._away or not self._away[other].refusals for other in others)

    async def _metadata_update(self, cluster_metadata: Any, topics: Any) -> bool:
        if len(self._metadata_asked) == METADATA_BURST:
            await asyncio.sleep(max(0.0, self._metadata_asked[0] + METADATA_WINDOW_S - time.monotonic()))
        self._metadata_asked.append(time.monotonic())
        updated: bool = await super()._metadata_update(cluster_metadata, topics)
        return updated


_away_since: dict[str, float] = {}
"""By address, for the whole process: its clients are many, and what they see is the same."""


def _tell_away(address: str) -> None:
    if address not in _away_since:
        _away_since[address] = time.monotonic()
        log.warning("a Kafka broker cannot be reached: trying again until it answers", broker=address)


def _tell_back(address: str) -> None:
    since = _away_since.pop(address, None)
    if since is not None:
        # A warning too: who reads warnings only has to see the end of it.
        log.warning("a Kafka broker answers again", broker=address, away_s=round(time.monotonic() - since, 1))


def calm_reconnects() -> None:
    """Have every client that is made from now on be a `Client`, and every member of a group a `Coordinator`.

    aiokafka lets nobody choose, nor does FastStream.
    """
    aiokafka.admin.client.AIOKafkaClient = Client
    aiokafka.consumer.consumer.AIOKafkaClient = Client
    aiokafka.producer.producer.AIOKafkaClient = Client
    aiokafka.consumer.consumer.GroupCoordinator = Coordinator

"""librdkafka's mock cluster: the real wire protocol inside this process, in no time, for demo and quick tests.

What it is not: nothing is durable, aborted records are visible to read_committed, a partition keeps 5 MB,
topics appear on their first metadata request with 4 partitions, whatever was asked for.
"""

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from tieout.local.errors import LocalUnavailable

PARTITIONS = 4
LIMITS = "embedded Kafka: no durability, no isolation of aborted transactions, 5 MB per partition, 4 partitions"
# It lives in this process: it answers at once or never.
_ANSWER_TIMEOUT_S = 10.0


class EmbeddedKafka:
    """A broker that lives exactly as long as this object and this process."""

    def __init__(self, topics: Iterable[str] = ()) -> None:
        self._topics = tuple(topics)
        self._host: Any = None
        self._bootstrap_servers = ""

    @property
    def bootstrap_servers(self) -> str:
        assert self._host is not None, "start the broker first"
        return self._bootstrap_servers

    def start(self) -> Self:
        """Raises `LocalUnavailable` when the package is not installed or does not answer."""
        try:
            from confluent_kafka import KafkaException, Producer
        except ImportError:
            raise LocalUnavailable(
                "the embedded Kafka needs confluent-kafka: install the extra 'embedded' (pip install 'tieout[embedded]')"
            ) from None
        # The producer itself sends nothing: it only carries the mock cluster.
        self._host = Producer({"test.mock.num.brokers": 1, "log_level": 3})
        try:
            brokers = list(self._host.list_topics(timeout=_ANSWER_TIMEOUT_S).brokers.values())
        except KafkaException as error:
            self.stop()
            raise LocalUnavailable(f"the embedded Kafka does not answer: {error}") from error
        self._bootstrap_servers = f"{brokers[0].host}:{brokers[0].port}"
        self.create(self._topics)
        return self

    def create(self, topics: Iterable[str]) -> None:
        """Make topics appear before clients subscribe to them; `shared.kafka.topics.apply_topics` does so too."""
        for topic in topics:
            self._host.list_topics(topic, timeout=_ANSWER_TIMEOUT_S)

    def stop(self) -> None:
        """The cluster ends with the object that carries it, and all its records with it."""
        self._host = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

"""Reads the topic `dead-letters` with FastStream and has every letter stored: at least once here, one row by its id there.

FastStream's own policies leave gaps in a batch: `NACK_ON_ERROR` rewinds its partitions one after the other and stops at
the first that a rebalance has taken, and a header that is no text fails before any policy applies; in both cases the
next commit would pass over letters that were never stored. So the policy is `MANUAL`: the group's places are committed
after the rows are, and what could not be stored is sought back to, each partition by itself.
"""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
import structlog
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaMessage
from faststream.kafka.message import FAKE_CONSUMER

from services.alerts.domain.dead_letter import trouble_of
from shared.contracts.dead_letter import DeadLetter
from shared.errors import DependencyAway
from shared.ids import NAMESPACE, canonical
from shared.kafka.client import faststream_broker
from shared.kafka.settings import KafkaSettings
from shared.telemetry.health import Health
from shared.telemetry.metrics import counter, gauge

if TYPE_CHECKING:
    from faststream.kafka import KafkaBroker
    from faststream.kafka.subscriber.usecase import BatchSubscriber

DEAD_LETTERS_TOPIC: Final = "dead-letters"
LOOP: Final = "dead letters"
"""Its name in `/health/live`."""
BATCH_RECORDS_MAX: Final = 200
"""A letter may hold a body of 1 MiB: more would need hundreds of megabytes at a time."""
POLL_MS: Final = 500
BEAT_S: Final = 1.0
"""Between two looks whether FastStream's task is alive."""
RETRY_PAUSE_S: Final = 1.0
"""Between two tries while PostgreSQL or Kafka is away."""

_read = msgspec.json.Decoder(DeadLetter).decode
_Record: TypeAlias = "ConsumerRecord[Any, Any]"
StoreLetters = Callable[[Sequence[DeadLetter]], Awaitable[None]]

log = structlog.get_logger()


class DeadLetterLoop:
    """Runs the subscriber; `group` shares the partitions among processes and keeps their places."""

    def __init__(
        self,
        kafka: KafkaSettings,
        store: StoreLetters,
        health: Health,
        *,
        group: str,
        instance_id: str | None = None,
        retry_pause_s: float = RETRY_PAUSE_S,
    ) -> None:
        self._kafka = kafka
        self._store = store
        self._health = health
        self._group = group
        self._instance_id = instance_id
        self._retry_pause_s = retry_pause_s
        self._subscriber: BatchSubscriber | None = None

    async def run(self) -> None:
        """Read and have stored until cancelled; waits while Kafka or PostgreSQL is away."""
        self._health.watch(LOOP)
        while True:
            broker = self._broker()
            try:
                await broker.start()
                await self._while_alive()
            except (KafkaError, OSError) as error:
                log.warning("dead letters wait for Kafka", reason=f"{type(error).__name__}: {error}")
            finally:
                await _stopped(broker)
            self._health.heartbeat(LOOP)
            await asyncio.sleep(self._retry_pause_s)

    async def _while_alive(self) -> None:
        """Beat while FastStream's task goes on; it restarts that itself unless the consumer was closed."""
        while self._subscriber is not None and any(not task.done() for task in self._subscriber.tasks):
            self._health.heartbeat(LOOP)
            await asyncio.sleep(BEAT_S)
        log.warning("the subscriber of dead letters ended and starts again")

    def _broker(self) -> "KafkaBroker":
        # Errors only: it would warn at each start that it makes no topics, which is as we want it.
        logger = logging.getLogger("faststream.dead_letters")
        logger.setLevel(logging.ERROR)
        broker = faststream_broker(self._kafka, consumer_only=True, apply_types=False, logger=logger)
        instance: dict[str, Any] = {} if self._instance_id is None else {"group_instance_id": self._instance_id}
        subscriber = broker.subscriber(
            self._kafka.topic_prefix + DEAD_LETTERS_TOPIC,
            batch=True,
            ack_policy=AckPolicy.MANUAL,
            parser=_parse,
            decoder=_decode,
            group_id=self._group,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            check_crcs=self._kafka.check_crcs,
            max_records=BATCH_RECORDS_MAX,
            batch_timeout_ms=POLL_MS,
            no_reply=True,
            **instance,
        )
        subscriber(self._handle)
        self._subscriber = subscriber
        return broker

    async def _handle(self, records: Sequence[_Record]) -> None:
        letters = [letter_of(record) for record in records if record.value is not None]
        try:
            await self._store(letters)
        except DependencyAway as error:
            log.warning("dead letters were not stored and are read again", count=len(letters), reason=str(error))
            await self._give_back(records)
        except Exception:
            # A fault of ours: FastStream logs it, and no letter is passed over for it.
            await self._give_back(records)
            raise
        else:
            counter("tieout_alerts_sink_rows_total").labels(DEAD_LETTERS_TOPIC).inc(len(letters))
            await self._commit()
            self._show_lag(records)

    async def _give_back(self, records: Sequence[_Record]) -> None:
        """Go back to the first record of each partition that is still ours; who got the others reads from the commit."""
        first: dict[TopicPartition, int] = {}
        for record in records:
            place = TopicPartition(record.topic, record.partition)
            first[place] = min(record.offset, first.get(place, record.offset))
        client = self._client()
        for place, offset in first.items():
            try:
                client.seek(place, offset)
            except IllegalStateError:
                log.info("a partition of dead letters went to another process", partition=place.partition)
        await asyncio.sleep(self._retry_pause_s)

    async def _commit(self) -> None:
        try:
            await self._client().commit()
        except KafkaError as error:
            # They are stored; whoever reads them again stores nothing twice.
            log.warning("the place in dead letters was not committed", reason=f"{type(error).__name__}: {error}")

    def _show_lag(self, records: Sequence[_Record]) -> None:
        client = self._client()
        ends = {TopicPartition(record.topic, record.partition): record.offset + 1 for record in records}
        for place in ends.keys() & client.assignment():
            lag = max((client.highwater(place) or 0) - ends[place], 0)
            gauge("tieout_alerts_sink_lag_records").labels(DEAD_LETTERS_TOPIC, place.partition).set(lag)

    def _client(self) -> Any:
        assert self._subscriber is not None and self._subscriber.consumer is not None, "a handler runs in a consumer"  # noqa: PT018 - one fact
        return self._subscriber.consumer


async def _parse(records: tuple[_Record, ...]) -> KafkaMessage:
    """Make FastStream's message without its headers: one that is no text must not cost a letter.

    It can neither commit nor seek: the loop does.
    """
    first, last = records[0], records[-1]
    return KafkaMessage(
        raw_message=records,
        body=records,
        message_id=f"{first.partition}-{first.offset}-{last.partition}-{last.offset}",
        consumer=FAKE_CONSUMER,
    )


async def _decode(message: KafkaMessage) -> tuple[_Record, ...]:
    """Hand the records over as they are: reading one must not fail the others."""
    records: Any = message.raw_message
    return tuple(records)


async def _stopped(broker: "KafkaBroker") -> None:
    try:
        await broker.stop()
    except asyncio.CancelledError:
        # aiokafka lets the cancellation of its own requests out; only ours may end the task.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
    except (KafkaError, OSError) as error:
        log.warning("the consumer of dead letters did not stop cleanly", reason=str(error))


def letter_of(record: _Record) -> DeadLetter:
    """Read a record of the topic; one that is no letter becomes a letter about itself, which no organisation sees."""
    try:
        letter = _read(record.value)
        trouble = trouble_of(letter)
        if trouble is None:
            return msgspec.structs.replace(letter, id=str(uuid.UUID(letter.id)))
    except (msgspec.MsgspecError, ValueError) as error:
        # A UUID's error and the decoder's name the fault, not the content.
        trouble = str(error)
    where = f"{DEAD_LETTERS_TOPIC}[{record.partition}]@{record.offset}"
    log.warning("a dead letter cannot be read", place=where, reason=trouble)
    return DeadLetter(
        id=str(uuid.uuid5(NAMESPACE, canonical(["unreadable", where]).decode())),
        org=None,
        source=None,
        reason="unreadable",
        detail=f"{where} is no dead letter: {trouble}",
        hint="A build that is newer than this one may have written it: update alerts, then let its group read the topic "
        "again from the beginning.",
        rule=None,
        event=None,
        inbox_partition=-1,
        inbox_offset=-1,
        received_at=datetime.fromtimestamp(record.timestamp / 1000, UTC),
        raw=record.value,
    )

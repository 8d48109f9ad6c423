"""Reads the topic `events` for usage (`usage.*`) and has budgets count it: at least once here, once by its id there."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

import msgspec
import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.errors import KafkaError

from services.alerts.domain.usage_events import PREFIX
from services.alerts.use_cases.tracked_events import Arrived
from shared.contracts.event import Event
from shared.errors import DependencyAway
from shared.kafka.client import BULK_FETCH, consumer
from shared.kafka.settings import KafkaSettings
from shared.telemetry.health import Health

EVENTS_TOPIC: Final = "events"
PLACE_HEADER: Final = "inbox"
"""Where ingest says an event came from: `partition/offset`."""
LOOP: Final = "usage"
"""Its name in `/health/live`."""
BATCH_RECORDS_MAX: Final = 5_000
"""Most are passed over unread: they are of other kinds."""
POLL_MS: Final = 500
IDLE_PAUSE_S: Final = 5.0
"""Between two looks for the first budget of an installation: reading every event for nothing would cost the sink time."""
RETRY_PAUSE_S: Final = 1.0
"""Between two tries while PostgreSQL or Kafka is away."""

# Every event of every pack passes here: those of other kinds are not worth decoding.
_MARK: Final = f'"type":"{PREFIX}'.encode()
_read = msgspec.json.Decoder(Event).decode
_Records = Sequence["ConsumerRecord[Any, Any]"]

log = structlog.get_logger()


class Tracking(Protocol):
    """What counts usage; see `use_cases.tracked_events.TrackedEvents`."""

    async def wanted(self) -> bool: ...

    async def count(self, arrived: Sequence[Arrived]) -> int: ...


class UsageLoop:
    """One reader; `group` shares the partitions among processes and keeps their places."""

    def __init__(
        self,
        kafka: KafkaSettings,
        tracking: Tracking,
        health: Health,
        *,
        group: str,
        instance_id: str | None = None,
        retry_pause_s: float = RETRY_PAUSE_S,
    ) -> None:
        self._kafka = kafka
        self._tracking = tracking
        self._health = health
        self._group = group
        self._instance_id = instance_id
        self._retry_pause_s = retry_pause_s

    async def run(self) -> None:
        """Read and have counted until cancelled; waits while Kafka or PostgreSQL is away."""
        self._health.watch(LOOP)
        await self._wanted()
        while True:
            client = consumer(
                self._kafka,
                self._kafka.topic_prefix + EVENTS_TOPIC,
                auto_offset_reset="earliest",
                group=self._group,
                group_instance_id=self._instance_id,
                isolation="read_committed",
                **BULK_FETCH,
            )
            try:
                await client.start()
                await self._read_on(client)
            except (KafkaError, OSError, DependencyAway) as error:
                # What was read is not committed: it is read again, and counted once.
                log.warning("usage waits", reason=f"{type(error).__name__}: {error}")
            except Exception:
                # A fault of ours must neither end the service nor pass over what was spent.
                log.exception("usage could not be counted and is read again")
            finally:
                await client.stop()
            self._health.heartbeat(LOOP)
            await asyncio.sleep(self._retry_pause_s)

    async def _wanted(self) -> None:
        """Wait for the first budget; what arrived before it is not counted anyway."""
        while True:
            self._health.heartbeat(LOOP)
            with suppress(DependencyAway):
                if await self._tracking.wanted():
                    return
            await asyncio.sleep(IDLE_PAUSE_S)

    async def _read_on(self, client: AIOKafkaConsumer) -> None:
        while True:
            self._health.heartbeat(LOOP)
            batches = await client.getmany(timeout_ms=POLL_MS, max_records=BATCH_RECORDS_MAX)
            arrived = [one for records in batches.values() for one in usage_in(records)]
            if arrived:
                new = await self._tracking.count(arrived)
                log.info("usage counted", events=len(arrived), new=new)
            if batches:
                await client.commit()


def usage_in(records: _Records) -> list[Arrived]:
    """Return the records that are usage; one that cannot be read is a build's newer than this one, and is told."""
    return [one for record in records if record.value is not None and _MARK in record.value and (one := _of(record))]


def _of(record: "ConsumerRecord[Any, Any]") -> Arrived | None:
    try:
        event = _read(record.value)
    except msgspec.MsgspecError as error:
        where = f"{record.topic}[{record.partition}]@{record.offset}"
        log.warning("an event cannot be read, its usage is not counted; update alerts", place=where, reason=str(error))
        return None
    if not event.type.startswith(PREFIX):
        return None
    partition, offset = _place(record)
    return Arrived(event=event, inbox_partition=partition, inbox_offset=offset, raw=record.value)


def _place(record: "ConsumerRecord[Any, Any]") -> tuple[int, int]:
    text = dict(record.headers).get(PLACE_HEADER, b"")
    partition, _, offset = text.partition(b"/")
    if not (partition.isdigit() and offset.isdigit()):
        return -1, -1
    return int(partition), int(offset)

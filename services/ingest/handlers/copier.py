"""Rows of producers that write Kafka directly: from `inbox.<org>` into `inbox`, under the org of the topic's name.

The rows are copied as they are; what is wrong with one is found where every row is read, and becomes a dead letter.
"""

import asyncio
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import structlog
from aiokafka.errors import CommitFailedError, KafkaError

from services.ingest.domain.directory import Directory
from services.ingest.domain.rows import ROW_BYTES_MAX, row_key
from services.ingest.ports import Appended, Inbox, InboxAway
from services.ingest.settings import IngestSettings
from shared.contracts.inbox import RowReceived, encode_inbox
from shared.kafka.client import consumer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord

LOOP = "copier"
POLL_MS = 500
BATCH_RECORDS_MAX = 1_000
TOPICS_REFRESH_MS = 10_000
"""A new org's topic is found within this time."""
RETRY_PAUSE_S = 1.0
CLOSE_TIMEOUT_S = 5.0

log = structlog.get_logger(__name__)


class _Named(msgspec.Struct):
    source: str = ""
    record: str | None = None
    id: str = ""


_decode = msgspec.json.Decoder(_Named).decode


class Copier:
    """Copies until cancelled; a failure reads on from the last commit, and a row copied twice is one event."""

    def __init__(self, settings: IngestSettings, kafka: KafkaSettings, inbox: Inbox, directory: Directory) -> None:
        self._group = f"{settings.ingest_group}.copier"
        self._kafka = kafka
        self._prefix = Topics(kafka.topic_prefix).inbox_of("")
        self._inbox = inbox
        self._directory = directory

    async def run(self) -> None:
        while True:
            try:
                await self._session()
            except (KafkaError, InboxAway, OSError) as error:
                log.warning("copier starts again from its last commit", reason=f"{type(error).__name__}: {error}")
            await asyncio.sleep(RETRY_PAUSE_S)

    async def _session(self) -> None:
        reader = consumer(
            self._kafka,
            group=self._group,
            auto_offset_reset="earliest",
            metadata_max_age_ms=TOPICS_REFRESH_MS,
        )
        reader.subscribe(pattern=f"^{re.escape(self._prefix)}.+$")
        try:
            await reader.start()
            while True:
                found = await reader.getmany(timeout_ms=POLL_MS, max_records=BATCH_RECORDS_MAX)
                rows = [self._copied(place.topic, record) for place, records in found.items() for record in records]
                if not rows:
                    continue
                await self._inbox.append([row for row in rows if row is not None])
                with suppress(CommitFailedError):
                    await reader.commit({place: records[-1].offset + 1 for place, records in found.items() if records})
        finally:
            with suppress(TimeoutError, KafkaError):
                await asyncio.wait_for(reader.stop(), CLOSE_TIMEOUT_S)

    def _copied(self, topic: str, record: "ConsumerRecord[bytes, bytes]") -> Appended | None:
        org = topic.removeprefix(self._prefix)
        if org not in self._directory.orgs:
            log.error("rows of an unknown org are left where they are", topic=topic, offset=record.offset)
            return None
        row = record.value or b""
        if len(row) > ROW_BYTES_MAX:
            # Its beginning becomes a dead letter that names the place; whole it would not fit into the inbox.
            log.error("a row is too large for the inbox", topic=topic, partition=record.partition, offset=record.offset)
            row = row[:1000]
        return Appended(_key(org, row), encode_inbox(RowReceived(org=org, row=row)))


def _key(org: str, row: bytes) -> bytes:
    try:
        named = _decode(row)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return row_key(org, "", str(time.time_ns()))
    return row_key(org, named.source, named.record or named.id)

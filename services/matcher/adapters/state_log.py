"""The topic `matcher-state`: read to its end at a restore, trimmed after a snapshot."""

import asyncio
from collections.abc import AsyncGenerator

import structlog
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, OffsetOutOfRangeError

from services.matcher.adapters.reader import Readers, opened
from services.matcher.adapters.state_format import StateReader
from services.matcher.ports import StateRecord, TransactionFailed
from shared.errors import UsageError
from shared.kafka.client import admin
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics

POLL_MS = 5
"""Short: the client wakes nobody up when all that has come is the end of a transaction, which a log of them ends with."""
END_WAIT_MS = 10
"""How long a fetch at the end of a log is kept waiting, and with it what is asked next over its connection."""
READ_RECORDS_MAX = 20
"""Per poll; records hold up to 600 kB."""
SILENCE_TIMEOUT_S = 60.0
"""Without a step forward for so long, the read is given up and tried again from the start."""

log = structlog.get_logger(__name__)


class PartitionsChanged(UsageError):
    """The number of partitions was changed behind tieout's back."""


class KafkaStateLog:
    """State records of all partitions."""

    def __init__(self, kafka: KafkaSettings, topics: Topics, partitions: int = 0) -> None:
        self._kafka = kafka
        self._topics = topics
        self._partitions = partitions
        # Unlike hot topics: answer at once, so that the end of the log is not waited for.
        self._readers = Readers(kafka, max_partition_fetch_bytes=8_000_000, fetch_max_wait_ms=END_WAIT_MS)
        self._admin: AIOKafkaAdminClient | None = None
        self._trimming: set[asyncio.Task[None]] = set()
        self._can_trim = True

    async def start(self) -> None:
        """Connect what trims, so that a trim does not begin with a connection."""
        self._admin = admin(self._kafka)
        await self._admin.start()

    async def close(self) -> None:
        """Drop trims under way: the next snapshot makes up for them."""
        for task in self._trimming:
            task.cancel()
        await asyncio.gather(*self._trimming, return_exceptions=True)
        await self._readers.close()
        if self._admin is not None:
            await self._admin.close()

    async def read(self, partition: int) -> AsyncGenerator[StateRecord, None]:
        """Read the partition's committed records up to the last stable offset; see `ports.StateLog`.

        Positions are compared, not offsets of records: the end of a log of transactions is a marker, no record.
        """
        place = TopicPartition(self._topics.matcher_state, partition)
        state = StateReader()
        try:
            async with self._readers.one() as reader:
                reader.assign([place])
                end = (await reader.end_offsets([place]))[place]
                start = (await reader.beginning_offsets([place]))[place]
                reader.seek(place, start)
                silent_since = asyncio.get_running_loop().time()
                while await reader.position(place) < end:
                    found = await reader.getmany(place, timeout_ms=POLL_MS, max_records=READ_RECORDS_MAX)
                    for record in found.get(place, ()):
                        found_record = state.read(record.offset, record.value)
                        self._refuse_other_count(found_record)
                        yield found_record
                    now = asyncio.get_running_loop().time()
                    silent_since = now if found else silent_since
                    if now - silent_since > SILENCE_TIMEOUT_S:
                        raise TransactionFailed(f"the state of partition {partition} could not be read to its end")
        except OffsetOutOfRangeError as error:
            # A trim by the previous owner moved the beginning while it was read.
            raise TransactionFailed(f"the state of partition {partition} was trimmed while it was read") from error
        except (KafkaError, OSError, TimeoutError) as error:
            raise TransactionFailed(f"the state of partition {partition} cannot be read: {error!r}") from error

    def _refuse_other_count(self, record: StateRecord) -> None:
        if self._partitions and record.partitions and record.partitions != self._partitions:
            raise PartitionsChanged(
                f"{self._topics.legs} has {self._partitions} partitions, the state was made with {record.partitions}: "
                "somebody changed the count, and keys no longer lie where their state is. Stop ingest; make topics of "
                "another prefix with `tieout topics apply` and send through again what came since, or restore the old ones"
            )

    async def first_input_offset(self, partition: int) -> int:
        """Return the oldest offset of the input that is still there."""
        place = TopicPartition(self._topics.legs, partition)
        try:
            async with opened(self._kafka) as reader:
                return int((await reader.beginning_offsets([place]))[place])
        except (KafkaError, OSError, TimeoutError) as error:
            raise TransactionFailed(f"the beginning of {place.topic} {partition} cannot be read: {error!r}") from error

    def trim(self, partition: int, offset: int) -> None:
        """Delete records below `offset` in the background."""
        # The client tells -1 where the broker knew a record already, and to the broker -1 means: delete everything.
        if not self._can_trim or self._admin is None or offset < 0:
            return
        task = asyncio.get_running_loop().create_task(self._trim(self._admin, partition, offset))
        self._trimming.add(task)
        task.add_done_callback(self._trimming.discard)

    async def _trim(self, client: AIOKafkaAdminClient, partition: int, offset: int) -> None:
        place = TopicPartition(self._topics.matcher_state, partition)
        try:
            await client.delete_records({place: RecordsToDelete(offset)})
        except (IncompatibleBrokerVersion, AttributeError):
            if self._can_trim:
                log.info("this broker cannot delete records: the state log grows until it is restarted")
            self._can_trim = False
        except (KafkaError, OSError, TimeoutError) as error:
            log.warning(
                "the state log was not trimmed; the next snapshot does it", partition=partition, reason=repr(error)
            )
        else:
            log.debug("state log trimmed", partition=partition, offset=offset)

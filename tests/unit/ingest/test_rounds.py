"""Rounds of the normaliser overlap, and what is in Kafka is as if they did not.

A log of three topics takes what is sent after a while, or refuses it; whatever the order of that: a round is sent when
every record before it is acknowledged, a tick tells of no record that is not, and nothing else is committed.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingest.domain.normalise import Normaliser
from services.ingest.domain.providers import MappingOptions
from services.ingest.domain.rule_book import RuleBook
from services.ingest.handlers.normaliser import CONDITION, NormaliserLoop, Parts, _Session
from services.ingest.settings import IngestSettings
from shared.contracts.inbox import RowReceived, encode_inbox
from shared.contracts.leg import Leg, Tick, decode_leg_record
from shared.contracts.rule_set import RuleSetRecord
from shared.kafka.errors import SendFailed
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from shared.telemetry.health import Health

KAFKA = KafkaSettings(topic_prefix="t.")
TOPICS = Topics("t.")
COUNTS = {TOPICS.inbox: 2, TOPICS.events: 2, TOPICS.not_reconciled: 1, TOPICS.legs: 2, TOPICS.dead_letters: 1}
PLACES = [TopicPartition(TOPICS.inbox, number) for number in range(2)]
START_MS = 1_790_000_000_000
ROW = (
    b'{"source":"ledger","type":"payment.succeeded","id":"%d-%d","occurred_at":"2026-09-21T12:00:00Z",'
    b'"amount":"1.00","currency":"EUR","refs":{"payment_id":"p%d"}}'
)
RULE = {
    "name": "t.payments", "kind": "match", "key": "refs.payment_id", "compare": {"amount": {}}, "deadline": "1h",
    "sides": {"ours": {"source": "ledger", "type": ["payment.*"]}, "theirs": {"source": "stripe", "type": ["payment.*"]}},
}  # fmt: skip


class Came(NamedTuple):
    """A record of the inbox."""

    offset: int
    timestamp: int
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()


class Batch:
    """A batch that is being filled; small, so that one partition often has several."""

    def __init__(self) -> None:
        self.values: list[bytes] = []

    def append(self, *, value: bytes, **_: object) -> object | None:
        if len(self.values) == 3:
            return None
        self.values.append(value)
        return self


class Log:
    """Producer and consumer in one: acknowledges each batch some turns of the event loop after it was sent."""

    def __init__(self, polls: Sequence[dict[int, int]], turns: Iterator[int | None]) -> None:
        self.polls = list(polls)
        self.turns = turns
        """Until the next batch is acknowledged; None: it is refused."""
        self.acknowledged: list[object] = []
        self.waiting: set[asyncio.Task[None]] = set()
        self.committed: Counter[int] = Counter()
        self.polled: Counter[int] = Counter()
        self._began_with: dict[int, int] = {}
        """What was polled before the last poll, by inbox partition."""
        self.read_ahead = 0
        """Polls that gave records while others were not acknowledged."""

    # ---- the producer

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(self, batch: Batch, topic: str, partition: int) -> asyncio.Task[None]:
        records = [decode_leg_record(value) for value in batch.values] if topic == TOPICS.legs else []
        for record in records:
            if isinstance(record, Leg):
                self._refuse_before_all(record)
            if isinstance(record, Tick):
                told = [one for one in self.legs_of(record.inbox_partition) if one.received_at <= record.time]
                assert len(told) == record.time - START_MS + 1, "a tick tells of what is not acknowledged"
        task = asyncio.ensure_future(self._acknowledge(records, next(self.turns)))
        self.waiting.add(task)
        task.add_done_callback(self.waiting.discard)
        return task

    def _refuse_before_all(self, leg: Leg) -> None:
        """Of a poll, everything is sent at once; nothing of an earlier one may be missing then."""
        before = self._began_with.get(leg.inbox_partition, 0)
        acknowledged = {one.inbox_offset for one in self.legs_of(leg.inbox_partition)}
        assert set(range(before)) <= acknowledged, "a round was sent before the one before it was there"

    async def _acknowledge(self, records: list[Any], turns: int | None) -> None:
        for _ in range(turns or 0):
            await asyncio.sleep(0)
        if turns is None:
            raise SendFailed("refused")
        self.acknowledged += records

    def legs_of(self, inbox: int) -> list[Leg]:
        return [one for one in self.acknowledged if isinstance(one, Leg) and one.inbox_partition == inbox]

    # ---- the consumer

    async def getmany(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Came]]:
        await asyncio.sleep(0)
        if not self.polls:
            return {}
        self.read_ahead += bool(self.waiting)
        self._began_with = dict(self.polled)
        found = {}
        for inbox, count in self.polls.pop(0).items():
            first = self.polled[inbox]
            self.polled[inbox] += count
            found[TopicPartition(TOPICS.inbox, inbox)] = [_came(inbox, first + number) for number in range(count)]
        return found

    def highwater(self, place: TopicPartition) -> None:
        return None

    async def commit(self, offsets: dict[TopicPartition, tuple[int, str]]) -> None:
        for place, (offset, _) in offsets.items():
            legs = self.legs_of(place.partition)
            assert {one.inbox_offset for one in legs} >= set(range(offset)), "more is committed than is acknowledged"
            told = [
                one.time
                for one in self.acknowledged
                if isinstance(one, Tick) and one.inbox_partition == place.partition
            ]
            assert max(told) >= START_MS + offset - 1, "more is committed than a tick has told"
            self.committed[place.partition] = offset


def _came(inbox: int, offset: int) -> Came:
    row = ROW % (inbox, offset, offset % 5)
    return Came(offset, START_MS + offset, encode_inbox(RowReceived(org="acme", row=row)))


def session_on(log: Log) -> _Session:
    book = RuleBook()
    rules = RuleSetRecord(
        version=1, org="acme", pack="t", rules=[RULE], applied_at=datetime(2026, 1, 1, tzinfo=UTC), applied_by="test"
    )
    book.apply("acme", "t", rules, 0)
    normaliser = Normaliser(book, lambda _org, _source: MappingOptions())
    parts = Parts(IngestSettings(group_instance_id=None), KAFKA, book, normaliser, lambda: None, Health([CONDITION]))
    return _Session(NormaliserLoop(parts), parts, log, log, COUNTS)


async def rounds(session: _Session, log: Log) -> None:
    await session.on_partitions_assigned(PLACES)
    while log.polls:
        session._ticked_at = session._committed_at = 0.0  # both are due in every round
        await session.round()


polls = st.lists(st.dictionaries(st.integers(0, 1), st.integers(1, 9), min_size=1), min_size=1, max_size=6)


@settings(max_examples=50, deadline=None)
@given(polls=polls, turns=st.lists(st.integers(0, 40), min_size=1, max_size=9))
def test_rounds_that_overlap_write_what_rounds_one_after_the_other_do(
    polls: list[dict[int, int]], turns: list[int]
) -> None:
    async def main() -> None:
        log = Log(polls, (turns[number % len(turns)] for number in range(100_000)))
        session = session_on(log)
        await rounds(session, log)
        await session.end()
        await session.on_partitions_revoked([])
        for inbox in range(2):
            legs = sorted((one.inbox_offset, one.id) for one in log.legs_of(inbox))
            assert legs == [(offset, f"{inbox}-{offset}") for offset in range(log.polled[inbox])]
        assert +log.committed == +log.polled, "all is told and committed in the end"

    asyncio.run(main())


@settings(max_examples=50, deadline=None)
@given(polls=polls, fails=st.integers(0, 40), turns=st.integers(0, 5))
def test_after_a_record_that_is_refused_nothing_is_sent_or_committed_any_more(
    polls: list[dict[int, int]], fails: int, turns: int
) -> None:
    async def main() -> None:
        log = Log(polls, (None if number == fails else turns for number in range(100_000)))
        session = session_on(log)
        try:
            await rounds(session, log)
            await session.end()
        except SendFailed:
            # A rebalance may come before the session ends; what was refused is not forgotten with it.
            for _ in range(2):
                with suppress(SendFailed):
                    await session.on_partitions_revoked(PLACES)
                with suppress(SendFailed):
                    await rounds(session, log)

    asyncio.run(main())


async def test_the_next_records_are_mapped_while_kafka_acknowledges() -> None:
    log = Log([{0: 5}, {0: 5}, {0: 5}], iter([500] * 1000))
    session = session_on(log)
    session._ticked_at = session._committed_at = 1e9
    await session.on_partitions_assigned([TopicPartition(TOPICS.inbox, 0)])
    for _ in range(3):
        await session.round()
    assert log.read_ahead == 2


async def test_partitions_are_given_up_when_what_is_under_way_is_told_and_committed() -> None:
    log = Log([{0: 5, 1: 4}], iter([20] * 1000))
    session = session_on(log)
    session._ticked_at = session._committed_at = 1e9
    await session.on_partitions_assigned(PLACES)
    await session.round()
    assert not log.committed
    await session.on_partitions_revoked(PLACES)
    assert log.committed == {0: 5, 1: 4}

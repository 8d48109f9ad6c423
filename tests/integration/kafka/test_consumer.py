"""The consumer of the client factory on a real broker."""

import asyncio
from collections.abc import Callable, Iterable

import pytest
from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, KafkaTimeoutError

from shared.kafka import consumer as consumer_module
from shared.kafka.client import consumer, producer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics

POLL_MS = 1_000


class _GivesUpBetweenPolls(ConsumerRebalanceListener):
    """As the normaliser: partitions are given up when nobody works on their records."""

    def __init__(self, working: asyncio.Lock) -> None:
        self.working = working
        self.revocations = 0

    async def on_partitions_revoked(self, _: Iterable[TopicPartition]) -> None:
        async with self.working:
            self.revocations += 1

    async def on_partitions_assigned(self, _: Iterable[TopicPartition]) -> None:
        pass


@pytest.mark.kafka
async def test_a_poll_that_comes_upon_a_rebalance_lets_it_through(
    real_kafka: object, kafka_settings: KafkaSettings, topics: Topics
) -> None:
    """Records come while the group rebalances: aiokafka's poll then waits for what waits for the poller's own lock.

    Nothing moved any more in an ingest that had lost its place in the group when Kafka came back after a minute.
    """
    working = asyncio.Lock()
    listener = _GivesUpBetweenPolls(working)
    writer = producer(kafka_settings)
    await writer.start()
    reader = consumer(kafka_settings, group=f"{kafka_settings.topic_prefix}g", auto_offset_reset="earliest")
    reader.subscribe([topics.inbox], listener=listener)
    await reader.start()

    async def poll() -> list[bytes]:
        async with working:
            found = await reader.getmany(timeout_ms=POLL_MS)
        return [record.value for records in found.values() for record in records]

    try:
        async with asyncio.timeout(60):
            before = listener.revocations
            polling = asyncio.create_task(poll())
            await asyncio.sleep(0)
            reader._coordinator.request_rejoin()  # as a heartbeat does that the group does not know
            while not reader._subscription.reassignment_in_progress:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.001)
            assert not polling.done()
            await writer.send_and_wait(topics.inbox, b"came meanwhile", partition=0)
            seen = await polling
            while b"came meanwhile" not in seen:
                seen += await poll()
            assert listener.revocations == before + 1
    finally:
        await reader.stop()
        await writer.stop()


class _GivesUpWhenItMay(ConsumerRebalanceListener):
    """So long the group cannot finish a rebalance."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.may.set()
        self.waits = False

    async def on_partitions_revoked(self, _: Iterable[TopicPartition]) -> None:
        self.waits = not self.may.is_set()
        await self.may.wait()
        self.waits = False

    async def on_partitions_assigned(self, _: Iterable[TopicPartition]) -> None:
        pass


@pytest.mark.kafka
async def test_a_commit_while_the_group_rebalances_does_not_begin_another_rebalance(
    real_kafka: object, kafka_settings: KafkaSettings, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent behind the request to join, it was refused for its old generation, and the member gave up its new place.

    A matcher that commits every five seconds never came back where a rebalance takes longer than that.
    """
    listener = _GivesUpWhenItMay()
    options = {"group": f"{kafka_settings.topic_prefix}g", "heartbeat_interval_ms": 200}
    reader, peer = (consumer(kafka_settings, auto_offset_reset="earliest", **options) for _ in range(2))
    reader.subscribe([topics.inbox])
    peer.subscribe([topics.inbox], listener=listener)

    async def polled(until: Callable[[], bool]) -> None:
        while not until():
            await asyncio.gather(reader.getmany(timeout_ms=50), peer.getmany(timeout_ms=50))

    def both_have_theirs() -> bool:
        return sorted(len(one.assignment()) for one in (reader, peer)) == [1, 1]

    def joins_and_has_to_wait() -> bool:
        if not member._joining:
            member.request_rejoin()
        return member._joining and listener.waits

    try:
        async with asyncio.timeout(60):
            await asyncio.gather(reader.start(), peer.start())
            member = reader._coordinator
            await polled(both_have_theirs)
            listener.may.clear()
            await polled(joins_and_has_to_wait)
            given_up: list[int] = []
            monkeypatch.setattr(member, "reset_generation", lambda: given_up.append(member.generation))
            late = asyncio.create_task(reader.commit(dict.fromkeys(reader.assignment(), 1)))
            await asyncio.wait([late], timeout=0.1)
            listener.may.set()
            with pytest.raises(CommitFailedError):
                await late
            await polled(lambda: not reader._subscription.reassignment_in_progress)
            await reader.commit(dict.fromkeys(reader.assignment(), 1))
            assert given_up == []
    finally:
        await asyncio.gather(reader.stop(), peer.stop())


@pytest.mark.kafka
async def test_a_member_without_partitions_for_too_long_says_so(
    kafka_settings: KafkaSettings, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever polls has to join anew then; an empty answer for ever would look like an idle topic."""
    reader = consumer(kafka_settings, auto_offset_reset="earliest")
    await reader.start()
    reader.subscribe([topics.inbox])
    try:
        assert await reader.getmany(timeout_ms=POLL_MS) == {}
        reader._subscription.begin_reassignment()
        assert await reader.getmany() == {}
        monkeypatch.setattr(consumer_module, "ASSIGNMENT_S_MAX", 0.0)
        with pytest.raises(KafkaTimeoutError, match="no partitions"):
            await reader.getmany()
        assert reader._subscription._fetch_count == 0
    finally:
        await reader.stop()


async def test_a_start_that_gets_no_partitions_ends(
    kafka_settings: KafkaSettings, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_module, "ASSIGNMENT_S_MAX", 0.0)
    reader = consumer(kafka_settings, topics.inbox, auto_offset_reset="earliest")
    with pytest.raises(KafkaTimeoutError, match="not started"):
        await reader.start()
    await reader.stop()


async def test_a_consumer_stops_while_its_own_requests_wait(kafka_settings: KafkaSettings, topics: Topics) -> None:
    """aiokafka lets the cancellation of its requests out of `stop`, which ended the caller's task without an error."""
    reader = consumer(kafka_settings, topics.inbox, auto_offset_reset="earliest")
    await reader.start()
    waiting = [asyncio.create_task(asyncio.sleep(60)) for _ in range(2)]
    reader._fetcher._pending_tasks.update(waiting)
    await reader.stop()
    assert all(task.cancelled() for task in waiting)
    assert not any(connection.connected() for connection in reader._client._conns.values())

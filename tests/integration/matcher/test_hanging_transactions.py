"""A transaction whose end is missing in a partition: what a broker leaves that dies at the wrong moment (decision 9).

Method: the broker takes records of a partition that the transaction's coordinator was not told of, so it writes no
marker there. Which topic that is, and how the transaction ends, are the cases.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aiokafka import TopicPartition

from services.matcher.adapters.results import Routes
from services.matcher.adapters.transaction import ProducerTransactions
from services.matcher.domain.changes import Changes
from services.matcher.handlers import commits
from services.matcher.ports import Batch
from shared.contracts.discrepancy import LogPosition, Progress
from shared.contracts.event import from_milliseconds
from shared.kafka.client import consumer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics, apply_topics
from tests.support import servers
from tests.support.matcher_shell import (
    START_MS,
    CountingCore,
    assert_exactly_once,
    items,
    leg,
    legs_of,
    running,
    settings_for,
    write,
)
from tieout.local.errors import LocalUnavailable
from tieout.local.kafka_jvm import JvmKafka

pytestmark = pytest.mark.kafka
# Else the broker refuses records of a partition that is not part of the transaction.
UNVERIFIED = {"transaction.partition.verification.enable": "false"}
PARTITIONS = 1


@pytest.fixture(scope="module")
def lax_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JvmKafka]:
    broker = JvmKafka(tmp_path_factory.mktemp("lax") / "kafka", UNVERIFIED)
    try:
        broker.start()
    except LocalUnavailable as error:
        pytest.skip(f"needs a broker of its own: {error}")
    with servers.remembered(broker.pid):
        yield broker
        broker.kill()


@pytest.fixture
async def kafka(lax_kafka: JvmKafka, request: pytest.FixtureRequest) -> KafkaSettings:
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    settings = KafkaSettings(bootstrap_servers=lax_kafka.bootstrap_servers, topic_prefix=f"{name}.")
    await apply_topics(settings, PARTITIONS, 1)
    return settings


async def leave_without_end(transactions: ProducerTransactions, unmarked: set[str]) -> None:
    """From now on there are no markers in `unmarked` topics."""
    for topic in unmarked:  # a marker comes a moment after its commit, and this one would count for what follows
        await until_seen(transactions._kafka, topic)
    manager = transactions._producer._txn_manager
    add = type(manager).maybe_add_partition_to_txn

    def maybe_add(place: TopicPartition) -> None:
        if place.topic not in unmarked:
            add(manager, place)

    manager.maybe_add_partition_to_txn = maybe_add


async def send_and_die(transactions: ProducerTransactions, batch: Batch) -> None:
    """Everything is written, nothing is committed: the next owner's start aborts it."""

    async def never() -> None:
        raise asyncio.CancelledError

    transactions._producer.commit_transaction = never
    with pytest.raises(asyncio.CancelledError):
        await transactions.commit(batch)
    await transactions.close()


@asynccontextmanager
async def owner(kafka: KafkaSettings) -> AsyncIterator[ProducerTransactions]:
    """Transactions of partition 0, without a worker."""
    topics = Topics(kafka.topic_prefix)
    group = settings_for(kafka).matcher_group
    made = ProducerTransactions(kafka, topics, Routes(topics, 1), f"{group}-0", 0)
    await made.start()
    yield made
    await made.close()


def batch_of(first: int, count: int, counts_before: int, *, told: bool = False) -> Batch:
    """What a worker would commit after `count` legs of one group at input offset `first`."""
    core = CountingCore(0)
    core.counts = {b"g": counts_before} if counts_before else {}
    for number in range(first, first + count):
        core.apply(b"g", leg(f"e{number}"), number)
    position = LogPosition(partition=0, offset=first + count - 1, time=from_milliseconds(START_MS))
    return Batch(0, first + count, count, core.take(), progress=Progress(log=position) if told else None)


async def write_legs(kafka: KafkaSettings, first: int, count: int) -> None:
    legs = [(b"g", value) for _, value in legs_of(count, 1, first=first)]
    await write(kafka, legs, PARTITIONS, only=0)


async def hangs(kafka: KafkaSettings, topic: str) -> bool:
    """Whether readers of committed records are kept from the topic's end."""
    place = TopicPartition(topic, 0)
    ends = []
    for isolation in ("read_committed", "read_uncommitted"):
        reader = consumer(kafka, auto_offset_reset="none", isolation=isolation)
        await reader.start()
        ends.append((await reader.end_offsets([place]))[place])
        await reader.stop()
    return ends[0] < ends[1]


async def until_seen(kafka: KafkaSettings, topic: str) -> None:
    async with asyncio.timeout(10):
        while await hangs(kafka, topic):  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.05)


async def finish(kafka: KafkaSettings, count: int) -> None:
    """A worker takes over and matches the rest; then every leg has one result."""
    async with running(kafka) as one:
        await one.until_committed(count)
        await one.end()
    topics = Topics(kafka.topic_prefix)
    for topic in (topics.matches, topics.matcher_state, topics.discrepancies, topics.checks):
        await until_seen(kafka, topic)
    assert_exactly_once(await items(kafka), count)


RESULTS = [{"matches"}, {"matcher_state"}, {"matches", "matcher_state"}]


def names(kafka: KafkaSettings, unmarked: set[str]) -> set[str]:
    return {getattr(Topics(kafka.topic_prefix), name) for name in unmarked}


@pytest.mark.parametrize("unmarked", RESULTS, ids=lambda names: "+".join(sorted(names)))
async def test_what_was_aborted_stays_hidden_and_is_done_again(kafka: KafkaSettings, unmarked: set[str]):
    """Else the next commit would show it beside its repetition."""
    await write_legs(kafka, 0, 300)
    async with owner(kafka) as one:
        await one.commit(batch_of(0, 100, 0))
        await leave_without_end(one, names(kafka, unmarked))
        await send_and_die(one, batch_of(100, 100, 100))
    await finish(kafka, 300)


@pytest.mark.parametrize("unmarked", RESULTS, ids=lambda names: "+".join(sorted(names)))
async def test_what_was_committed_stays_whatever_its_next_owner_does(kafka: KafkaSettings, unmarked: set[str]):
    """Else a later abort would take back what the state holds, or the state would repeat what was seen."""
    await write_legs(kafka, 0, 300)
    async with owner(kafka) as one:
        await one.commit(batch_of(0, 100, 0))
        await leave_without_end(one, names(kafka, unmarked))
        await one.commit(batch_of(100, 100, 100))
        for name in names(kafka, unmarked):
            assert await hangs(kafka, name)
    async with owner(kafka) as short_lived:
        # Where nothing was seen of the transaction, it may be done again as well: the state tells which.
        again = "matches" in unmarked and "matcher_state" in unmarked
        await send_and_die(short_lived, batch_of(100, 50, 100) if again else batch_of(200, 50, 200))
    await finish(kafka, 300)


async def test_progress_alone_proves_nothing(kafka: KafkaSettings):
    """It may repeat an offset that was committed long before the transaction that hangs."""
    await write_legs(kafka, 0, 200)
    async with owner(kafka) as one:
        await one.commit(batch_of(0, 100, 0))
        await leave_without_end(one, names(kafka, {"matcher_state", "checks"}))
        await send_and_die(one, replace(batch_of(100, 0, 100, told=True), changes=Changes()))
    await finish(kafka, 200)


async def test_a_quiet_partition_shows_its_last_results(kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch):
    """Nothing follows, no progress is due: an empty transaction after a while ends what hangs."""
    monkeypatch.setattr(commits, "QUIET_S", 1.5)
    topics = Topics(kafka.topic_prefix)
    made: list[ProducerTransactions] = []

    def around(transactions: ProducerTransactions) -> ProducerTransactions:
        made.append(transactions)
        return transactions

    async with running(kafka, around=around) as one:
        await one.until(lambda running: running.worker.status().ready)
        await leave_without_end(made[-1], {topics.matches})
        await write_legs(kafka, 0, 100)
        await one.until_committed(100)
        assert await hangs(kafka, topics.matches)
        await leave_without_end(made[-1], set())
        await until_seen(kafka, topics.matches)
        await one.end()
    assert_exactly_once(await items(kafka), 100)

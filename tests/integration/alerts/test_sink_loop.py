"""The sink over a real Kafka and PostgreSQL: killed, fenced, cut off, and everything is stored once."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from sqlalchemy import text

from services.alerts.adapters.database import EVERY_ORG, Database, DatabaseAway, migrate
from services.alerts.adapters.sink_store import PostgresSink
from services.alerts.handlers import sink as sink_module
from services.alerts.handlers.sink import PlaceAhead, SinkLoop
from services.alerts.ports.sink import Batch
from services.alerts.use_cases.sink import store
from shared.contracts.discrepancy import Discrepancy, Progress
from shared.contracts.item import Item
from shared.errors import DependencyAway
from shared.kafka.client import await_sent, producer
from shared.kafka.consumer import Consumer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from shared.telemetry.health import Health
from tests.support.results import found, item, log_at, resolved
from tieout.local.postgres import LocalPostgres, create_database

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]
WAIT_S = 60
PARTITIONS = 3

Store = Callable[[Batch], Awaitable[None]]


def stream(count: int, first: int = 0) -> list[Discrepancy | Item]:
    """`count` keys: each is raised, every second resolved, with an item each; spread over the partitions."""
    results: list[Discrepancy | Item] = []
    for n in range(first, first + count):
        log = log_at(10 + n, n % PARTITIONS)
        sides = {"internal": None, "provider": None}
        results.append(found(f"d{n}", key=f"k{n}", log=log))
        results.append(item(f"i{n}", key=f"k{n}", log=log, sides=sides))
        if n % 2:
            results.append(resolved(f"d{n}", key=f"k{n}", log=log_at(100_000 + n, n % PARTITIONS)))
    return results


async def publish(kafka: KafkaSettings, results: Sequence[Discrepancy | Item | Progress]) -> None:
    """As the matcher does: each to its partition, in transactions."""
    async with producing(kafka) as client, client.transaction():
        await await_sent([await client.send(**record) for result in results for record in records_of(kafka, result)])


def records_of(kafka: KafkaSettings, result: Discrepancy | Item | Progress) -> list[dict[str, Any]]:
    """What the matcher writes: a result to its topic, progress to all three."""
    if isinstance(result, Progress):
        names, key, headers = ("discrepancies", "matches", "checks"), b"progress", [("kind", b"progress")]
    else:
        names, key, headers = ("matches" if isinstance(result, Item) else "discrepancies",), result.id.encode(), []
    value = msgspec.json.encode(result)
    return [
        {
            "topic": kafka.topic_prefix + name,
            "value": value,
            "key": key,
            "partition": result.log.partition,
            "headers": headers,
        }
        for name in names
    ]


@asynccontextmanager
async def producing(kafka: KafkaSettings) -> AsyncIterator[Any]:
    client = producer(kafka, transactional_id=f"{kafka.topic_prefix}test")
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


def storing(database: Database) -> Store:
    sink = PostgresSink(database)
    return lambda batch: store(sink, batch, datetime.now(UTC))


def sink_loop(kafka: KafkaSettings, database: Database, store_batch: Store | None = None, **options: Any) -> SinkLoop:
    settings = {
        "group": f"{kafka.topic_prefix}sink",
        "poll_ms": 50,
        "retry_pause_s": 0.2,
        "batch_records_max": 200,
    } | options
    return SinkLoop(kafka, PostgresSink(database), store_batch or storing(database), Health(["sink"]), **settings)


@asynccontextmanager
async def running(loop: SinkLoop) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(loop.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def count(database: Database, query: str) -> int:
    async with database.transaction(EVERY_ORG) as connection:
        return int((await connection.execute(text(f"SELECT count(*) FROM {query}"))).scalar_one())


async def until(database: Database, query: str, expected: int) -> None:
    """Wait until the rows are there; then look once more, so that too many are seen as well."""
    async with asyncio.timeout(WAIT_S):
        while await count(database, query) < expected:  # noqa: ASYNC110 - another process writes the rows
            await asyncio.sleep(0.1)
    await asyncio.sleep(0.3)
    assert await count(database, query) == expected


async def check_stored(database: Database, keys: int) -> None:
    """Every key is there once, with its history, status and log line."""
    await until(database, "discrepancy_revisions", keys + keys // 2)
    await until(database, "items", keys)
    assert await count(database, "discrepancies WHERE status = 'open'") == keys - keys // 2
    assert await count(database, "discrepancies WHERE status = 'resolved'") == keys // 2
    assert await count(database, "action_log") == keys // 2
    assert await count(database, "item_revisions") == 0


async def test_everything_published_is_stored_and_progress_is_known(
    kafka_settings: KafkaSettings, topics: Topics, database: Database
):
    """From the beginning at the first start, and what comes while it runs."""
    await publish(kafka_settings, stream(400))
    async with running(sink_loop(kafka_settings, database)):
        await until(database, "items", 400)
        await publish(kafka_settings, stream(200, first=400))
        await publish(kafka_settings, [Progress(log=log_at(9_999, p)) for p in range(PARTITIONS)])
        await check_stored(database, 600)
        await until(database, "progress WHERE log_offset = 9999", 3 * PARTITIONS)


async def test_a_restart_goes_on_where_the_rows_are(kafka_settings: KafkaSettings, topics: Topics, database: Database):
    """The places are PostgreSQL's: a new consumer group reads nothing twice."""
    await publish(kafka_settings, stream(100))
    async with running(sink_loop(kafka_settings, database)):
        await check_stored(database, 100)
    batches: list[Batch] = []

    async def seen(batch: Batch) -> None:
        batches.append(batch)
        await storing(database)(batch)

    await publish(kafka_settings, stream(50, first=100))
    async with running(sink_loop(kafka_settings, database, seen, group=f"{kafka_settings.topic_prefix}other")):
        await check_stored(database, 150)
    assert {d.discrepancy.key for b in batches for d in b.discrepancies} == {f"k{n}" for n in range(100, 150)}


async def test_a_batch_that_ends_between_its_rows_and_its_commit_is_stored_once(
    kafka_settings: KafkaSettings, topics: Topics, database: Database
):
    """The connection breaks in mid-batch, several times: read again, nothing lost, nothing twice."""
    await publish(kafka_settings, stream(300))
    turns = 0

    async def breaks(batch: Batch) -> None:
        nonlocal turns
        turns += 1
        if turns % 3 == 1:
            async with database.transaction(EVERY_ORG) as connection:
                await connection.execute(text("INSERT INTO orgs (org) VALUES ('half done')"))
                raise DatabaseAway("cut in mid-batch")
        await storing(database)(batch)
        if turns % 3 == 2:
            raise DatabaseAway("the answer to the commit was lost")

    async with running(sink_loop(kafka_settings, database, breaks)):
        await check_stored(database, 300)
    assert turns > 3
    assert await count(database, "orgs") == 0


async def test_a_zombie_stores_nothing_and_joins_again(
    kafka_settings: KafkaSettings, topics: Topics, database: Database
):
    """A sink that stood still while another took its partitions finds its places moved on."""
    await publish(kafka_settings, stream(300))
    stopped, go_on = asyncio.Event(), asyncio.Event()

    async def stands_still(batch: Batch) -> None:
        if not go_on.is_set():
            stopped.set()
            await go_on.wait()
        await storing(database)(batch)

    async with running(sink_loop(kafka_settings, database, stands_still)) as zombie:
        await asyncio.wait_for(stopped.wait(), WAIT_S)
        # Another group: nobody tells the zombie that its partitions are read elsewhere.
        async with running(sink_loop(kafka_settings, database, group=f"{kafka_settings.topic_prefix}successor")):
            await check_stored(database, 300)
        go_on.set()
        await publish(kafka_settings, stream(100, first=300))
        await check_stored(database, 400)
        assert not zombie.done()


async def test_two_sinks_share_the_partitions(kafka_settings: KafkaSettings, topics: Topics, database: Database):
    """A second one joins, the first leaves: everything is stored once."""
    await publish(kafka_settings, stream(200))
    async with running(sink_loop(kafka_settings, database)):
        await until(database, "items", 200)
        async with running(sink_loop(kafka_settings, database)):
            await publish(kafka_settings, stream(200, first=200))
            await check_stored(database, 400)
    async with running(sink_loop(kafka_settings, database)):
        await publish(kafka_settings, stream(100, first=400))
        await check_stored(database, 500)


async def test_what_cannot_be_read_is_set_aside_and_the_rest_goes_on(
    kafka_settings: KafkaSettings, topics: Topics, database: Database
):
    """One broken record does not stop the partition; it goes to dead-letters with its place."""
    async with producing(kafka_settings) as client, client.transaction():
        await client.send_and_wait(topics.discrepancies, b'{"id": 1', key=b"x", partition=0)
    await publish(kafka_settings, stream(10))
    async with running(sink_loop(kafka_settings, database)):
        await check_stored(database, 10)
    async with database.transaction(EVERY_ORG) as connection:
        row = (await connection.execute(text("SELECT topic, value FROM topic_outbox"))).one()
    assert row.topic == "dead-letters"
    assert b"discrepancies[0]@0" in row.value


async def test_a_rebuild_on_an_empty_database_tells_no_endpoint(
    kafka_settings: KafkaSettings, topics: Topics, database: Database
):
    """What was there at the start is stored in silence; what comes later is sent."""
    async with database.transaction(EVERY_ORG) as connection:
        await connection.execute(
            text(
                "INSERT INTO webhook_endpoints (id, org, url, secret, created_at) "
                "VALUES (gen_random_uuid(), 'acme', 'https://example.com', 's', '2020-01-01')"
            )
        )
    await publish(kafka_settings, stream(100))
    async with running(sink_loop(kafka_settings, database, rebuild=True)):
        await check_stored(database, 100)
        assert await count(database, "outbox") == 0
        await publish(kafka_settings, [found("later", key="later", log=log_at(500_000))])
        await until(database, "outbox", 1)


async def test_a_database_of_another_kafka_is_refused(
    kafka_settings: KafkaSettings, topics: Topics, database: Database, monkeypatch: pytest.MonkeyPatch
):
    """Its places lie beyond the ends of the topics: an error that says so, not silence for ever."""
    monkeypatch.setattr("services.alerts.handlers.sink.AHEAD_S_MAX", 0.5)
    async with database.transaction(EVERY_ORG) as connection:
        await connection.execute(
            text("INSERT INTO sink_offsets (topic, partition, next_offset) VALUES ('matches', 1, 777)")
        )
    with pytest.raises(PlaceAhead, match=r"up to offset 777, the topic ends at 0"):
        await asyncio.wait_for(sink_loop(kafka_settings, database).run(), WAIT_S)


async def test_postgresql_killed_in_mid_run_loses_nothing(
    kafka_settings: KafkaSettings, topics: Topics, own_postgres: LocalPostgres
):
    """The sink waits, PostgreSQL comes back, and everything is there once."""
    url = await create_database(own_postgres.url(), "sink")
    await migrate(url)
    database = Database(url)
    async with running(sink_loop(kafka_settings, database)) as task:
        await publish(kafka_settings, stream(300))
        await asyncio.sleep(0.5)
        await asyncio.to_thread(own_postgres.kill)
        await publish(kafka_settings, stream(300, first=300))
        await asyncio.sleep(1)
        assert not task.done()
        await asyncio.to_thread(own_postgres.restart)
        await check_stored(database, 600)
    await database.close()


async def test_a_process_killed_again_and_again_stores_everything_once(
    kafka_settings: KafkaSettings, topics: Topics, migrated_url: str, database: Database
):
    """kill -9 of the real process in mid-stream, twice; then SIGTERM ends it cleanly."""
    keys = 6_000
    await publish(kafka_settings, stream(keys))
    environment = {
        **os.environ,
        "TIEOUT_DATABASE_URL": migrated_url,
        "TIEOUT_KAFKA_BOOTSTRAP_SERVERS": kafka_settings.bootstrap_servers,
        "TIEOUT_KAFKA_TOPIC_PREFIX": kafka_settings.topic_prefix,
        "TIEOUT_SINK_BATCH_RECORDS_MAX": "200",
        "TIEOUT_SINK_INSTANCE_ID": "sink-0",
        "TIEOUT_SINK_GROUP": f"{kafka_settings.topic_prefix}sink",
        "TIEOUT_LOG_LEVEL": "warning",
    }
    command = [sys.executable, "-m", "tieout", "alerts", "--role", "sink", "--port", "0"]
    for turn in range(1, 3):
        process = await asyncio.create_subprocess_exec(*command, env=environment)
        async with asyncio.timeout(WAIT_S):
            while await count(database, "discrepancies") < turn * keys // 4:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
        process.kill()
        await process.wait()
    process = await asyncio.create_subprocess_exec(*command, env=environment)
    try:
        await check_stored(database, keys)
    finally:
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0


async def test_what_was_read_ahead_of_a_batch_that_was_not_stored_is_read_again(
    kafka_settings: KafkaSettings, topics: Topics, database: Database
):
    """Before and after the commit, the answer is lost: nothing is passed over, nothing is stored twice."""
    keys = 400
    await publish(kafka_settings, stream(keys))
    stored, tries = storing(database), 0

    async def losing(batch: Batch) -> None:
        nonlocal tries
        tries += 1
        if tries == 2:
            raise DependencyAway("gone before it was stored")
        await stored(batch)
        if tries == 4:
            raise DependencyAway("gone after it was stored")

    loop = sink_loop(kafka_settings, database, losing, batch_records_max=60)
    async with running(loop):
        await check_stored(database, keys)
    assert tries > 4


async def test_results_are_stored_while_the_group_has_no_coordinator(
    kafka_settings: KafkaSettings, topics: Topics, database: Database, monkeypatch: pytest.MonkeyPatch
):
    """What is committed to the group is only shown: aiokafka would wait for ever to commit it."""
    asked = 0

    async def never(*_: Any) -> None:
        nonlocal asked
        asked += 1
        await asyncio.Event().wait()

    monkeypatch.setattr(Consumer, "commit", never)
    monkeypatch.setattr(sink_module, "GROUP_COMMIT_S", 0.0)
    monkeypatch.setattr(sink_module, "GROUP_COMMIT_TIMEOUT_S", 0.05)
    await publish(kafka_settings, stream(100))
    async with running(sink_loop(kafka_settings, database, batch_records_max=60)):
        await check_stored(database, 100)
    assert asked > 1

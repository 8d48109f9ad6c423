"""Dead letters from the topic into PostgreSQL: nothing lost, nothing twice, whoever fails; and whose rows they are."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka import TopicPartition
from prometheus_client import generate_latest
from sqlalchemy import text

from services.alerts.adapters.database import EVERY_ORG, Database, DatabaseAway, migrate
from services.alerts.adapters.dead_letter_store import PostgresDeadLetters
from services.alerts.domain.dead_letter import RAW_BYTES_MAX
from services.alerts.handlers.dead_letters import DeadLetterLoop
from services.alerts.ports.dead_letters import LetterFilter
from services.alerts.use_cases.dead_letters import DeadLetters, store
from shared.contracts.dead_letter import DeadLetter
from shared.kafka.client import consumer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics, partitions_of
from shared.telemetry.health import Health
from tests.support.letters import letter, set_aside
from tests.support.results import START, uid
from tieout.local.postgres import LocalPostgres, create_database

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]
WAIT_S = 90
ANY = LetterFilter()


def loop_over(kafka: KafkaSettings, database: Database, storing: Any = None) -> DeadLetterLoop:
    letters = PostgresDeadLetters(database)

    async def stored(arrived: Sequence[DeadLetter]) -> None:
        await store(letters, arrived, datetime.now(UTC))

    return DeadLetterLoop(
        kafka, storing or stored, Health(["x"]), group=f"{kafka.topic_prefix}letters", retry_pause_s=0.2
    )


@asynccontextmanager
async def running(loop: DeadLetterLoop) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(loop.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def rows(database: Database, query: str, scope: str = EVERY_ORG) -> list[dict[str, Any]]:
    async with database.transaction(scope) as connection:
        return [dict(row) for row in (await connection.execute(text(query))).mappings()]


async def until(database: Database, names: set[str]) -> None:
    """Wait until these letters are there; then look once more, so that too many are seen as well."""
    wanted = sorted(uid(name) for name in names)
    async with asyncio.timeout(WAIT_S):
        while len(await rows(database, "SELECT id FROM dead_letters")) < len(wanted):  # noqa: ASYNC110 - another task writes
            await asyncio.sleep(0.1)
    await asyncio.sleep(0.3)
    assert sorted(str(row["id"]) for row in await rows(database, "SELECT id FROM dead_letters")) == wanted


def named(first: int, count: int) -> set[str]:
    return {f"l{n}" for n in range(first, first + count)}


async def test_letters_are_stored_as_they_are_from_the_beginning_and_while_it_runs(
    kafka_settings: KafkaSettings, topics: Topics, database: Database
):
    """Also what lay in the topic before the first start; the place is committed, so a restart reads nothing again."""
    await set_aside(kafka_settings, *(letter(name) for name in named(0, 30)))
    async with running(loop_over(kafka_settings, database)):
        await until(database, named(0, 30))
        await set_aside(kafka_settings, letter("late", raw=b"\xff\x00", inbox_partition=1, inbox_offset=99))
        await until(database, named(0, 30) | {"late"})
    kept = (await PostgresDeadLetters(database).history("acme", uid("late"))).kept
    assert kept.letter == letter("late", raw=b"\xff\x00", inbox_partition=1, inbox_offset=99)
    assert (kept.state, kept.state_by, kept.raw_bytes) == ("open", None, 2)
    assert b'tieout_alerts_sink_rows_total{topic="dead-letters"} ' in generate_latest()

    read_again: list[DeadLetter] = []

    async def seen(arrived: Sequence[DeadLetter]) -> None:
        read_again.extend(arrived)

    await set_aside(kafka_settings, letter("after"))
    async with running(loop_over(kafka_settings, database, seen)), asyncio.timeout(WAIT_S):
        while not read_again:  # noqa: ASYNC110 - the loop fills it
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
    assert [one.id for one in read_again] == [uid("after")]


async def test_a_letter_that_comes_again_is_one_row_and_stays_as_a_person_left_it(
    kafka_settings: KafkaSettings, topics: Topics, database: Database
):
    """The topic is at least once; a dismissed letter does not come back."""
    letters = PostgresDeadLetters(database)
    async with running(loop_over(kafka_settings, database)):
        await set_aside(kafka_settings, letter("l0"), letter("l0"), letter("l1"))
        await until(database, {"l0", "l1"})
        people = DeadLetters(letters, None, lambda: START)
        await people.dismiss("acme", uid("l0"), "a test of ours", "ann (tk_1)")
        first_seen = (await rows(database, "SELECT id, first_seen_at FROM dead_letters ORDER BY id"),)
        await set_aside(kafka_settings, letter("l0", detail="said otherwise"), letter("l1"), letter("l2"))
        await until(database, {"l0", "l1", "l2"})
    kept = (await letters.history("acme", uid("l0"))).kept
    assert (kept.state, kept.state_by, kept.state_reason, kept.state_at) == (
        "dismissed",
        "ann (tk_1)",
        "a test of ours",
        START,
    )
    assert kept.letter.detail == letter("l0").detail
    others = f"SELECT id, first_seen_at FROM dead_letters WHERE id <> '{uid('l2')}' ORDER BY id"
    assert (await rows(database, others),) == first_seen


async def test_postgresql_killed_and_started_again_loses_no_letter(
    kafka_settings: KafkaSettings, topics: Topics, own_postgres: LocalPostgres
):
    """A real stop in mid-stream: the letters of that time are read again when it is back, each stored once."""
    url = await create_database(own_postgres.url(), "letters")
    await migrate(url)
    database = Database(url)
    async with running(loop_over(kafka_settings, database)) as task:
        await set_aside(kafka_settings, *(letter(name) for name in named(0, 50)))
        await until(database, named(0, 50))
        await asyncio.to_thread(own_postgres.kill)
        await set_aside(kafka_settings, *(letter(name) for name in named(50, 50)))
        await asyncio.sleep(2)
        assert not task.done()
        await set_aside(kafka_settings, *(letter(name) for name in named(100, 50)))
        await asyncio.to_thread(own_postgres.restart)
        await until(database, named(0, 150))
    await database.close()


async def test_back_ends_that_are_terminated_in_mid_insert_lose_no_letter(
    kafka_settings: KafkaSettings, topics: Topics, database: Database, migrated_url: str
):
    """An administrator's pg_terminate_backend, again and again, while the rows wait for a lock."""
    administrator = Database(migrated_url, role=None)
    waiting = "FROM pg_locks WHERE relation = 'dead_letters'::regclass AND NOT granted"
    turns, lost = 0, 0

    async def stored(arrived: Sequence[DeadLetter]) -> None:
        nonlocal turns, lost
        turns += 1
        if turns > 5:
            await store(PostgresDeadLetters(database), arrived, datetime.now(UTC))
            return
        async with administrator.transaction(EVERY_ORG) as connection:
            await connection.execute(text("LOCK TABLE dead_letters"))
            storing = asyncio.create_task(store(PostgresDeadLetters(database), arrived, datetime.now(UTC)))
            while not (await connection.execute(text(f"SELECT pg_terminate_backend(pid) {waiting}"))).all():  # noqa: ASYNC110 - another connection waits
                await asyncio.sleep(0.01)
            lost += len(arrived)
            await storing

    async with running(loop_over(kafka_settings, database, stored)):
        for first in range(0, 300, 50):
            await set_aside(kafka_settings, *(letter(name) for name in named(first, 50)))
            await asyncio.sleep(0.2)
        async with asyncio.timeout(WAIT_S):
            while turns < 6:  # noqa: ASYNC110 - the loop counts
                await asyncio.sleep(0.1)
        await until(database, named(0, 300))
    assert lost >= 5
    await administrator.close()


async def test_a_fault_of_ours_passes_over_no_letter(
    kafka_settings: KafkaSettings, topics: Topics, database: Database, caplog: pytest.LogCaptureFixture
):
    """What is not foreseen is logged and tried again; FastStream's own commit would have skipped the batch."""
    turns = 0

    async def stored(arrived: Sequence[DeadLetter]) -> None:
        nonlocal turns
        turns += 1
        if turns <= 3:
            raise ZeroDivisionError("not foreseen")
        await store(PostgresDeadLetters(database), arrived, datetime.now(UTC))

    await set_aside(kafka_settings, *(letter(name) for name in named(0, 40)))
    async with running(loop_over(kafka_settings, database, stored)):
        await until(database, named(0, 40))
    assert "not foreseen" in caplog.text


async def test_a_process_that_leaves_in_mid_batch_hands_its_letters_over(
    kafka_settings: KafkaSettings, topics: Topics, database: Database
):
    """What one process read and did not store belongs to whoever gets its partitions."""
    entered = asyncio.Event()

    async def never(arrived: Sequence[DeadLetter]) -> None:
        entered.set()
        await asyncio.Event().wait()

    await set_aside(kafka_settings, *(letter(name) for name in named(0, 60)))
    async with running(loop_over(kafka_settings, database, never)):
        await asyncio.wait_for(entered.wait(), WAIT_S)
    async with running(loop_over(kafka_settings, database)), running(loop_over(kafka_settings, database)):
        await set_aside(kafka_settings, *(letter(name) for name in named(60, 60)))
        await until(database, named(0, 120))


async def test_partitions_that_move_while_a_batch_cannot_be_stored_lose_no_letter(
    kafka_settings: KafkaSettings, topics: Topics, database: Database
):
    """A second process joins while the first waits for PostgreSQL: each goes back only to what is still its own."""
    away = True

    async def stored(arrived: Sequence[DeadLetter]) -> None:
        if away:
            await asyncio.sleep(0.5)
            raise DatabaseAway("on purpose")
        await store(PostgresDeadLetters(database), arrived, datetime.now(UTC))

    await set_aside(kafka_settings, *(letter(name) for name in named(0, 120)))
    async with running(loop_over(kafka_settings, database, stored)):
        await asyncio.sleep(3)
        async with running(loop_over(kafka_settings, database, stored)):
            await asyncio.sleep(6)
            away = False
            await set_aside(kafka_settings, *(letter(name) for name in named(120, 60)))
            await until(database, named(0, 180))


async def test_what_is_no_letter_is_kept_and_the_rest_goes_on(
    kafka_settings: KafkaSettings, topics: Topics, database: Database
):
    """Broken JSON, an unknown reason, an id that is none, a time without zone, texts PostgreSQL refuses, odd headers."""
    odd = letter("odd", id="no uuid")
    values: list[DeadLetter | bytes] = [
        b"{",
        b'{"reason": "of a newer build"}',
        odd,
        letter("zone", received_at=START.replace(tzinfo=None)),
        letter("far", inbox_offset=2**63),
        letter("long", org="x" * 300),
        letter("nul", detail="a\x00b", event="e\x00", org="acme"),
        letter("big", raw=b"x" * (RAW_BYTES_MAX + 5), detail="y" * 9_000),
    ]
    await set_aside(kafka_settings, *values, headers=[("odd", b"\xff\xfe")])
    async with running(loop_over(kafka_settings, database)), asyncio.timeout(WAIT_S):
        while len(await rows(database, "SELECT id FROM dead_letters")) < len(values):  # noqa: ASYNC110 - another task writes
            await asyncio.sleep(0.1)
    unreadable = await rows(
        database, "SELECT raw, detail, inbox_offset FROM dead_letters WHERE org IS NULL ORDER BY raw_bytes"
    )
    assert len(unreadable) == 6
    assert unreadable[0]["raw"] == b"{"
    assert {row["inbox_offset"] for row in unreadable} == {-1}
    assert all(row["detail"].startswith("dead-letters[") for row in unreadable)
    nul, big = [(await PostgresDeadLetters(database).history("acme", uid(name))).kept for name in ("nul", "big")]
    assert (nul.letter.detail, nul.letter.event) == ("a\N{REPLACEMENT CHARACTER}b", "e\N{REPLACEMENT CHARACTER}")
    assert (len(big.letter.raw), big.raw_bytes, len(big.letter.detail)) == (RAW_BYTES_MAX, RAW_BYTES_MAX + 5, 4_000)


async def test_the_group_holds_the_place_only_of_what_is_stored(
    kafka_settings: KafkaSettings, topics: Topics, database: Database
):
    """While storing fails nothing is committed; afterwards the group stands at the end of every partition."""
    fails, tries = True, 0

    async def stored(arrived: Sequence[DeadLetter]) -> None:
        nonlocal tries
        tries += 1
        if fails:
            raise ZeroDivisionError("on purpose")
        await store(PostgresDeadLetters(database), arrived, datetime.now(UTC))

    reader = consumer(kafka_settings, group=f"{kafka_settings.topic_prefix}letters", auto_offset_reset="earliest")
    counts = await partitions_of(kafka_settings, topics.dead_letters)
    places = [TopicPartition(topics.dead_letters, number) for number in range(counts[topics.dead_letters])]
    await set_aside(kafka_settings, *(letter(name) for name in named(0, 60)))
    async with running(loop_over(kafka_settings, database, stored)):
        async with asyncio.timeout(WAIT_S):
            while tries < 2:  # noqa: ASYNC110 - the loop counts
                await asyncio.sleep(0.1)
        await reader.start()
        try:
            assert {await reader.committed(place) for place in places} == {None}
            fails = False
            await until(database, named(0, 60))
            ends = await reader.end_offsets(places)
            async with asyncio.timeout(WAIT_S):
                while {place: await reader.committed(place) or 0 for place in places} != ends:  # noqa: ASYNC110 - the group's place
                    await asyncio.sleep(0.1)
        finally:
            await reader.stop()


async def test_an_organisation_sees_its_own_letters_and_nobody_those_of_none(database: Database):
    """Row-level security: a letter without organisation is seen by the scope of all alone, also past the queries."""
    letters = PostgresDeadLetters(database)
    mine, theirs, nobodys = letter("mine"), letter("theirs", org="other"), letter("nobodys", org=None)
    await store(letters, [mine, theirs, nobodys], START)
    for scope, seen in (("acme", {"mine"}), ("other", {"theirs"}), (EVERY_ORG, {"mine", "theirs", "nobodys"})):
        assert {row["event"] for row in await rows(database, "SELECT event FROM dead_letters", scope)} == seen
    assert [kept.letter.id for kept in await letters.list("acme", ANY, None, 10)] == [mine.id]
    assert await letters.history("acme", theirs.id) is None
    assert await letters.history("acme", nobodys.id) is None
    people = DeadLetters(letters, None, lambda: START)
    assert await people.dismiss("acme", theirs.id, "mine?", "ann") is None
    async with database.transaction("acme") as connection:
        taken = await connection.execute(text("UPDATE dead_letters SET org = 'acme' WHERE event <> 'mine'"))
        assert taken.rowcount == 0
    assert await letters.count_open() == {"no match key": 3}
    assert [row["state"] for row in await rows(database, "SELECT state FROM dead_letters")] == ["open"] * 3


async def test_a_page_goes_on_where_the_last_ended_also_at_equal_times(database: Database):
    """Newest first; without the raw bodies, which only the one letter shows."""
    letters = PostgresDeadLetters(database)
    given = [letter(f"l{n}", received_at=START + timedelta(seconds=n // 3)) for n in range(10)]
    await store(letters, given, START)
    found: list[str] = []
    after = None
    while page := await letters.list("acme", ANY, after, 4):
        found += [kept.letter.id for kept in page]
        assert {kept.letter.raw for kept in page} == {b""}
        after = (page[-1].letter.received_at, page[-1].letter.id)
    newest_first = sorted(given, key=lambda one: (one.received_at, one.id), reverse=True)
    assert found == [one.id for one in newest_first]

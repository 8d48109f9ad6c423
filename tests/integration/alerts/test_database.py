"""The database's own guards: row-level security, append-only history, migrations and the app role."""

import re

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from services.alerts.adapters.database import (
    EVERY_ORG,
    Database,
    DatabaseAway,
    DatabaseRefused,
    is_away,
    migrate,
    wait_for_database,
)
from services.alerts.adapters.migrations import SchemaMismatch
from services.alerts.adapters.sink_store import PostgresSink
from services.alerts.adapters.tables import APPEND_ONLY_TABLES, ORG_TABLES, metadata
from services.alerts.domain.settled import arrived
from services.alerts.ports.sink import Batch, Found, Place
from services.alerts.use_cases.sink import store
from tests.support.results import START, found, item

pytestmark = pytest.mark.postgres
PLACE = Place("discrepancies", 0)


async def stored(database: Database) -> None:
    """One discrepancy and one item in two revisions each of acme and other."""
    batch = Batch(
        spans=[],
        discrepancies=[
            Found(found(), PLACE, 0, START),
            Found(found("d2", org="other", key="pay_2"), PLACE, 1, START),
        ],
        items=[
            arrived(item()),
            arrived(item(revision=2, offset=12)),
            arrived(item("i2", org="other", key="pay_2")),
            arrived(item("i2", 2, offset=12, org="other", key="pay_2")),
        ],
    )
    await store(PostgresSink(database), batch, START)


async def orgs_seen(database: Database, scope: str, table: str) -> set[str]:
    async with database.transaction(scope) as connection:
        return set((await connection.execute(text(f"SELECT org FROM {table}"))).scalars())


async def test_an_org_sees_only_its_own_rows(database: Database):
    """In the app role, with org acme set, nothing of other is there; the sink's scope sees both."""
    await stored(database)
    for table in ("discrepancies", "discrepancy_revisions", "items", "item_revisions", "item_records"):
        assert await orgs_seen(database, "acme", table) == {"acme"}
        assert await orgs_seen(database, EVERY_ORG, table) == {"acme", "other"}
    assert await orgs_seen(database, "nobody", "discrepancies") == set()


async def test_the_packs_views_obey_the_same_walls(database: Database):
    """A view runs with the rights of whoever reads it."""
    await stored(database)
    async with database.transaction("acme") as connection:
        rows = (await connection.execute(text('SELECT "orgId", status FROM "ReconciliationDiscrepancy"'))).all()
        matched = (await connection.execute(text('SELECT "orgId" FROM "ReconciliationItem"'))).scalars().all()
    assert rows == [("acme", "open")]
    assert matched == ["acme"]


async def test_without_a_scope_nothing_is_seen_or_written(database: Database):
    """A forgotten scope fails closed."""
    await stored(database)
    async with database.engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM discrepancies"))).scalar_one() == 0
        with pytest.raises(DBAPIError, match="row-level security"):
            await connection.execute(text("INSERT INTO orgs (org) VALUES ('acme')"))


async def test_an_org_cannot_write_rows_of_another(database: Database):
    """The policy checks what is written, not only what is read."""
    async with database.transaction("acme") as connection:
        with pytest.raises(DBAPIError, match="row-level security"):
            await connection.execute(text("INSERT INTO sources (org, source) VALUES ('other', 'ledger')"))


async def test_every_table_of_an_org_is_behind_forced_security(database: Database):
    """No table with a column org may be forgotten when one is added."""
    query = """
        SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org'
        WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace
          AND NOT (c.relrowsecurity AND c.relforcerowsecurity)"""
    async with database.transaction(EVERY_ORG) as connection:
        assert (await connection.execute(text(query))).scalars().all() == []
    assert {table.name for table in metadata.sorted_tables if "org" in table.c} == {table.name for table in ORG_TABLES}


@pytest.mark.parametrize("table", [table.name for table in APPEND_ONLY_TABLES])
@pytest.mark.parametrize("change", ["UPDATE {} SET org = 'x'", "DELETE FROM {}", "TRUNCATE {}"])
async def test_history_refuses_change_even_from_its_owner(migrated_url: str, table: str, change: str):
    """The trigger holds for whoever asks; the app role has not even the right to ask."""
    for role, reason in ((None, "is append-only"), ("tieout_app", "permission denied")):
        database = Database(migrated_url, role=role)
        async with database.engine.connect() as connection:
            with pytest.raises(DBAPIError, match=reason):
                await connection.execute(text(change.format(table)))
        await database.close()


async def test_the_migrations_make_exactly_the_declared_tables(migrated_url: str):
    """Alembic finds no difference between the database and `tables.py`."""
    database = Database(migrated_url, role=None)

    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata))

    async with database.transaction(EVERY_ORG) as connection:
        assert await connection.run_sync(differences) == []
    await database.close()


async def test_migrating_twice_is_harmless(database_url: str):
    """The second run finds the schema as it is."""
    _, first = await migrate(database_url)
    assert await migrate(database_url) == (first, first)


async def test_a_database_that_was_never_migrated_is_refused(database_url: str):
    """One line that names the command, at once and not after the time-out."""
    database = Database(database_url, role=None)
    with pytest.raises(SchemaMismatch, match="run `tieout migrate` first"):
        await wait_for_database(database, 30)
    await database.close()


async def test_a_database_of_a_newer_build_is_refused_by_services_and_by_migrate(migrated_url: str):
    """An old build neither runs on nor migrates what a newer one made."""
    owner = Database(migrated_url, role=None)
    async with owner.transaction(EVERY_ORG) as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaMismatch, match="9999, which is newer than this build"):
        await owner.require_schema()
    with pytest.raises(SchemaMismatch, match="newer"):
        await migrate(migrated_url)
    await owner.close()


async def test_a_wrong_database_name_is_said_and_not_waited_for(database_url: str):
    """A login that PostgreSQL refuses is a mistake, not an absence."""
    wrong = re.sub(r"/[^/?]+(\?|$)", r"/no_such_database\1", database_url)
    with pytest.raises(DatabaseRefused, match="refuses the login"):
        await wait_for_database(Database(wrong), 30)


@pytest.mark.parametrize(
    "error", [asyncpg.DiskFullError, asyncpg.TooManyConnectionsError, asyncpg.CannotConnectNowError]
)
def test_a_server_without_room_is_waited_for(error: type[asyncpg.PostgresError]):
    assert is_away(error("could not extend file: No space left on device"))


async def test_whatever_a_lost_connection_says_the_database_is_away(database: Database):
    """A server that dies in the middle of a COPY leaves the driver in the belief that two things happen at once."""
    with pytest.raises(DatabaseAway):  # noqa: PT012 - the connection breaks inside
        async with database.transaction(EVERY_ORG) as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            driver.terminate()
            raise asyncpg.InterfaceError("cannot perform operation: another operation is in progress")


async def test_the_same_words_on_a_sound_connection_are_a_fault_of_ours(database: Database):
    with pytest.raises(asyncpg.InterfaceError):
        async with database.transaction(EVERY_ORG):
            raise asyncpg.InterfaceError("cannot perform operation: another operation is in progress")

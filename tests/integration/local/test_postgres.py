"""The PostgreSQL of the wheel: what was committed outlives a kill."""

import shutil

import asyncpg
import pytest

from tieout.local.postgres import LocalPostgres, create_database

pytestmark = pytest.mark.postgres


async def test_rows_outlive_kill_and_restart(own_postgres: LocalPostgres):
    await create_database(own_postgres.url(), "ledger")
    open_connection = await asyncpg.connect(own_postgres.dsn("ledger"))
    await open_connection.execute("CREATE TABLE entry AS SELECT generate_series(1, 1000) AS id")

    own_postgres.kill()
    own_postgres.restart()

    connection = await asyncpg.connect(own_postgres.dsn("ledger"))
    assert await connection.fetchval("SELECT count(*) FROM entry") == 1000
    await connection.close()


async def test_each_test_has_an_empty_database(database_url: str):
    connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
    found = await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
    await connection.close()

    assert found == 0


def test_data_in_a_named_folder_outlive_the_server(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("ledger")
    with LocalPostgres(folder, durable=False) as first:
        kept_in = first.data_dir
    with LocalPostgres(folder, durable=False) as second:
        assert second.data_dir == kept_in
        assert (kept_in / "cluster" / "PG_VERSION").exists()
    # As root the data stand outside pytest's own folder, which only root may enter.
    shutil.rmtree(kept_in, ignore_errors=True)

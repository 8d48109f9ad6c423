"""What other processes have stored by now: rows of PostgreSQL, waited for."""

import asyncio
from typing import Any

from sqlalchemy import text

from services.alerts.adapters.database import EVERY_ORG, Database

TIMEOUT_S = 90.0
LOOK_S = 0.1

Rows = set[tuple[Any, ...]]


async def rows(database: Database, query: str) -> Rows:
    async with database.transaction(EVERY_ORG) as connection:
        return {tuple(row) for row in await connection.execute(text(query))}


async def become(database: Database, query: str, expected: Rows) -> None:
    """Wait until the query gives exactly these rows."""
    await _until(database, query, expected, whole=True)


async def contain(database: Database, query: str, expected: Rows) -> None:
    """Wait until the query gives these rows, beside whatever else."""
    await _until(database, query, expected, whole=False)


async def _until(database: Database, query: str, expected: Rows, *, whole: bool) -> None:
    found: Rows = set()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while not (found == expected if whole else expected <= found):
                await asyncio.sleep(LOOK_S)
                found = await rows(database, query)
    except TimeoutError:
        raise AssertionError(f"{query}: {found}, not {expected}, after {TIMEOUT_S:g} s") from None

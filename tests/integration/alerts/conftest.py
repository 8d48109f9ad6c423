"""A migrated PostgreSQL database in the app role."""

from collections.abc import AsyncIterator

import pytest

from services.alerts.adapters.database import Database, migrate


@pytest.fixture
async def migrated_url(database_url: str) -> str:
    """The URL of an empty database at this build's schema."""
    await migrate(database_url)
    return database_url


@pytest.fixture
async def database(migrated_url: str) -> AsyncIterator[Database]:
    """Connections to it as services make them: in the app role."""
    database = Database(migrated_url)
    yield database
    await database.close()

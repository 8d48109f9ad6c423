"""Give a new installation its first organisation, sources and keys."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from shared.contracts.directory import Role


async def create_access(
    url: str, org: str, roles: Sequence[Role], sources: Mapping[str, str | None], zone: str | None = None
) -> dict[str, str]:
    """Create `org` with a key per role and its sources (name to webhook provider, or None); return the keys by role.

    They reach ingest through the topic `directory` as soon as alerts runs.
    """
    from services.alerts.adapters.database import Database
    from services.alerts.adapters.directory_store import PostgresDirectory
    from services.alerts.use_cases.keys import Keys

    database = Database(url)
    try:
        directory = PostgresDirectory(database)
        making = Keys(directory, lambda: datetime.now(UTC))
        keys = {role: (await making.create(org, role, f"first {role}", zone)).key for role in roles}
        for source, provider in sources.items():
            await directory.put_source(org, source, provider)
    finally:
        await database.close()
    return {str(role): key for role, key in keys.items()}


async def has_keys(url: str, org: str) -> bool:
    """Tell whether `org` has an API key that works."""
    from services.alerts.adapters.database import Database
    from services.alerts.adapters.directory_store import PostgresDirectory

    database = Database(url)
    try:
        return any(key.revoked_at is None for key in await PostgresDirectory(database).keys(org))
    finally:
        await database.close()

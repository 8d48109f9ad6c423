"""Give a new installation its first organisation, sources and keys."""

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from shared.contracts.directory import KeyEntry, Role


async def create_access(
    url: str, org: str, roles: Sequence[Role], sources: Mapping[str, str | None], zone: str | None = None
) -> dict[str, str]:
    """Create `org` with a key per role and its sources (name to webhook provider, or None); return the keys by role.

    They reach ingest through the topic `directory` as soon as alerts runs.
    """
    from services.alerts.adapters.database import Database
    from services.alerts.adapters.directory_store import PostgresDirectory

    database = Database(url)
    try:
        directory = PostgresDirectory(database)
        keys: dict[str, str] = {}
        for role in roles:
            id_ = secrets.token_hex(6)
            keys[role] = f"tk_{id_}_{secrets.token_urlsafe(32)}"
            entry = KeyEntry(
                org=org,
                id=id_,
                sha256=hashlib.sha256(keys[role].encode()).hexdigest(),
                role=role,
                name=f"first {role}",
                created_at=datetime.now(UTC),
            )
            await directory.add_key(entry, zone)
        for source, provider in sources.items():
            await directory.put_source(org, source, provider)
    finally:
        await database.close()
    return keys


async def has_keys(url: str, org: str) -> bool:
    """Tell whether `org` has an API key that works."""
    from services.alerts.adapters.database import Database
    from services.alerts.adapters.directory_store import PostgresDirectory

    database = Database(url)
    try:
        return any(key.revoked_at is None for key in await PostgresDirectory(database).keys(org))
    finally:
        await database.close()

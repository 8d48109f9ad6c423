"""Organisations, sources and keys in PostgreSQL; each write also leaves its entry for the topic `directory`."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import RowMapping, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.adapters.tables import api_keys, orgs, sources, topic_outbox
from services.alerts.ports.directory import ApiKey, Org, Source
from shared.contracts.directory import DirectoryEntry, KeyEntry, OrgEntry, SourceEntry, directory_key, encode_entry


class PostgresDirectory:
    """`DirectoryStore` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_key(self, key_id: str) -> ApiKey | None:
        async with self._database.transaction(EVERY_ORG) as connection:
            row = (await connection.execute(select(api_keys).where(api_keys.c.id == key_id))).mappings().first()
        return None if row is None else _key(row)

    async def add_key(self, entry: KeyEntry, zone: str | None) -> Org:
        async with self._database.transaction(entry.org) as connection:
            org = await self._add_org(connection, entry.org, zone)
            await connection.execute(
                api_keys.insert().values(
                    id=entry.id,
                    org=entry.org,
                    sha256=entry.sha256,
                    role=entry.role,
                    name=entry.name,
                    created_at=entry.created_at,
                )
            )
            await publish(connection, entry)
        return org

    async def _add_org(self, connection: AsyncConnection, org: str, zone: str | None) -> Org:
        added = insert(orgs).values(org=org, zone=zone or "UTC").on_conflict_do_nothing().returning(orgs)
        row = (await connection.execute(added)).mappings().first()
        if row is not None:
            await publish(connection, OrgEntry(org=org, zone=row["zone"]))
            return _org(row)
        return _org((await connection.execute(select(orgs).where(orgs.c.org == org))).mappings().one())

    async def keys(self, org: str) -> Sequence[ApiKey]:
        query = select(api_keys).where(api_keys.c.org == org).order_by(api_keys.c.created_at, api_keys.c.id)
        async with self._database.transaction(org) as connection:
            return [_key(row) for row in (await connection.execute(query)).mappings()]

    async def revoke_key(self, org: str, key_id: str, at: datetime) -> ApiKey | None:
        mine = (api_keys.c.org == org) & (api_keys.c.id == key_id)
        async with self._database.transaction(org) as connection:
            row = (await connection.execute(select(api_keys).where(mine).with_for_update())).mappings().first()
            if row is None or row["revoked_at"] is not None:
                return None if row is None else _key(row)
            changed = api_keys.update().where(mine).values(revoked_at=at).returning(api_keys)
            key = _key((await connection.execute(changed)).mappings().one())
            await publish(connection, key_entry(key))
        return key

    async def org(self, org: str) -> Org | None:
        async with self._database.transaction(org) as connection:
            row = (await connection.execute(select(orgs).where(orgs.c.org == org))).mappings().first()
        return None if row is None else _org(row)

    async def orgs(self) -> Sequence[Org]:
        async with self._database.transaction(EVERY_ORG) as connection:
            return [_org(row) for row in (await connection.execute(select(orgs).order_by(orgs.c.org))).mappings()]

    async def put_org(self, org: str, zone: str) -> Org:
        put = insert(orgs).values(org=org, zone=zone)
        put = put.on_conflict_do_update(index_elements=["org"], set_={"zone": zone})
        async with self._database.transaction(org) as connection:
            row = (await connection.execute(put.returning(orgs))).mappings().one()
            await publish(connection, OrgEntry(org=org, zone=zone))
        return _org(row)

    async def sources(self, org: str) -> Sequence[Source]:
        query = select(sources).where(sources.c.org == org).order_by(sources.c.source)
        async with self._database.transaction(org) as connection:
            return [_source(row) for row in (await connection.execute(query)).mappings()]

    async def put_source(self, org: str, source: str, provider: str | None) -> Source:
        put = insert(sources).values(org=org, source=source, provider=provider)
        put = put.on_conflict_do_update(index_elements=["org", "source"], set_={"provider": provider})
        async with self._database.transaction(org) as connection:
            row = (await connection.execute(put.returning(sources))).mappings().one()
            await publish(connection, SourceEntry(org=org, source=source, provider=provider))
        return _source(row)


async def publish(connection: AsyncConnection, entry: DirectoryEntry) -> None:
    """Leave `entry` for the topic `directory`; it goes out once the transaction has committed."""
    await connection.execute(
        topic_outbox.insert().values(
            org=entry.org, topic="directory", key=directory_key(entry), value=encode_entry(entry)
        )
    )


def key_entry(key: ApiKey) -> KeyEntry:
    """Return what the topic `directory` tells about `key`."""
    return KeyEntry(
        org=key.org,
        id=key.id,
        sha256=key.sha256,
        role=key.role,
        name=key.name,
        created_at=key.created_at,
        revoked=key.revoked_at is not None,
    )


def _key(row: RowMapping) -> ApiKey:
    return ApiKey(
        id=row["id"],
        org=row["org"],
        sha256=row["sha256"],
        role=row["role"],
        name=row["name"],
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
    )


def _org(row: RowMapping) -> Org:
    return Org(org=row["org"], zone=row["zone"], created_at=row["created_at"])


def _source(row: RowMapping) -> Source:
    return Source(org=row["org"], source=row["source"], provider=row["provider"], created_at=row["created_at"])

"""Organisations, sources and API keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from shared.contracts.directory import KeyEntry, Role


@dataclass(frozen=True, slots=True)
class Org:
    org: str
    zone: str
    """IANA zone in which its days begin and end."""
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Source:
    org: str
    source: str
    provider: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ApiKey:
    id: str
    org: str
    sha256: str
    role: Role
    name: str
    created_at: datetime
    revoked_at: datetime | None


class DirectoryStore(Protocol):
    """Every write puts the entry for the topic `directory` into the outbox, in the same transaction."""

    async def find_key(self, key_id: str) -> ApiKey | None:
        """Of any organisation; revoked ones too."""

    async def add_key(self, entry: KeyEntry, zone: str | None) -> Org:
        """Store the key; creates its organisation, with `zone` or UTC, where it does not exist yet."""

    async def keys(self, org: str) -> Sequence[ApiKey]: ...

    async def revoke_key(self, org: str, key_id: str, at: datetime) -> ApiKey | None:
        """None: the organisation has no such key. Revoking twice keeps the first time."""

    async def org(self, org: str) -> Org | None: ...

    async def orgs(self) -> Sequence[Org]: ...

    async def put_org(self, org: str, zone: str) -> Org: ...

    async def sources(self, org: str) -> Sequence[Source]: ...

    async def put_source(self, org: str, source: str, provider: str | None) -> Source: ...

"""API keys: made once, shown once, kept only as a SHA-256."""

import hashlib
import secrets
from collections.abc import Callable
from datetime import datetime

import msgspec

from services.alerts.ports.directory import ApiKey, DirectoryStore, Org
from shared.contracts.directory import KeyEntry, Role

ID_BYTES = 6
SECRET_BYTES = 32
"""256 bits: a plain hash is enough for what nobody can guess."""


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key that was just made; `key` is shown now and never again."""

    key: str
    entry: KeyEntry
    org: Org


def key_sha256(key: str) -> str:
    """Return the hex digest that is stored for `key`."""
    return hashlib.sha256(key.encode()).hexdigest()


class Keys:
    """`now` is the clock."""

    def __init__(self, store: DirectoryStore, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now

    async def create(self, org: str, role: Role, name: str, zone: str | None = None) -> NewKey:
        """Make a key; creates the organisation at its first one."""
        id_ = secrets.token_hex(ID_BYTES)
        key = f"tk_{id_}_{secrets.token_urlsafe(SECRET_BYTES)}"
        entry = KeyEntry(org=org, id=id_, sha256=key_sha256(key), role=role, name=name, created_at=self._now())
        return NewKey(key=key, entry=entry, org=await self._store.add_key(entry, zone))

    async def revoke(self, org: str, key_id: str) -> ApiKey | None:
        """Withdraw a key; ingest refuses it within seconds. None: the organisation has no such key."""
        return await self._store.revoke_key(org, key_id, self._now())

"""Topic `directory` (compacted): orgs, sources and API keys, as alerts publishes them from PostgreSQL. JSON.

Kafka key: JSON array [org, kind, id]. A null value (tombstone) or `revoked: true` withdraws the entry. Signing secrets
are never here: ingest has them from files or environment per (org, source). Wishes to poll a source stand here too, because
whoever polls follows this topic: of each source the last one.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Literal

import msgspec

Role = Literal["owner", "manager", "viewer", "ingest"]


class OrgEntry(msgspec.Struct, tag="org", frozen=True, kw_only=True):
    """An organisation."""

    org: str
    zone: str = "UTC"
    """IANA zone in which its days begin and end."""


class SourceEntry(msgspec.Struct, tag="source", frozen=True, kw_only=True):
    """A place where an org's money is recorded."""

    org: str
    source: str
    provider: str | None = None
    """Which webhook mapping reads it (`stripe`, `standard`); null for sources that post events."""


class KeyEntry(msgspec.Struct, tag="key", frozen=True, kw_only=True):
    """An API key: only its SHA-256 is kept anywhere."""

    org: str
    id: str
    """Public part of the key: `tk_<id>_<secret>`."""
    sha256: str
    """Hex digest of the whole key."""
    role: Role
    name: str
    created_at: datetime
    revoked: bool = False


class PollEntry(msgspec.Struct, tag="poll", frozen=True, kw_only=True):
    """A wish that a source's provider be asked now, and not only at its interval."""

    org: str
    source: str
    id: str
    """Of the wish; for logs."""
    at: datetime
    """When it was made: an old one is left alone."""


DirectoryEntry = OrgEntry | SourceEntry | KeyEntry | PollEntry

_decode: Callable[[bytes], DirectoryEntry] = msgspec.json.Decoder(DirectoryEntry).decode
_encode = msgspec.json.Encoder().encode


def directory_key(entry: DirectoryEntry) -> bytes:
    """Return the Kafka key of `entry`."""
    match entry:
        case OrgEntry(org=org):
            return _encode([org, "org", org])
        case SourceEntry(org=org, source=source):
            return _encode([org, "source", source])
        case KeyEntry(org=org, id=id_):
            return _encode([org, "key", id_])
        case PollEntry(org=org, source=source):
            return _encode([org, "poll", source])


def encode_entry(entry: DirectoryEntry) -> bytes:
    """Return the Kafka value of `entry`."""
    return _encode(entry)


def decode_entry(value: bytes) -> DirectoryEntry:
    """Read a Kafka value of the topic `directory`."""
    return _decode(value)

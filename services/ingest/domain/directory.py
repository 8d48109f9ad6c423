"""Orgs, sources and API keys, as the topic `directory` tells them; kept in memory, so PostgreSQL may be away."""

import hmac
import re
from hashlib import sha256

import msgspec

from shared.contracts.directory import DirectoryEntry, KeyEntry, OrgEntry, PollEntry, SourceEntry

KEY_LENGTH_MAX = 512
"""Characters of an API key; longer ones are no keys and not worth a hash."""

_KEY = re.compile(r"tk_([A-Za-z0-9]{1,64})_[A-Za-z0-9_\-]{8,}", re.ASCII)
_names = msgspec.json.Decoder(tuple[str, str, str]).decode


class Directory:
    """Who may send what. Entries replace each other by their key."""

    def __init__(self) -> None:
        self.complete = False
        """Everything that the topic held at the start has been taken; before, nobody can be told that he is unknown."""
        self._orgs: dict[str, OrgEntry] = {}
        self._sources: dict[tuple[str, str], SourceEntry] = {}
        self._keys: dict[str, KeyEntry] = {}

    @property
    def orgs(self) -> frozenset[str]:
        """Every org that is known."""
        return frozenset(self._orgs)

    def put(self, entry: DirectoryEntry) -> None:
        """Take an entry over whatever stood there."""
        match entry:
            case OrgEntry(org=org):
                self._orgs[org] = entry
            case SourceEntry(org=org, source=source):
                self._sources[org, source] = entry
            case KeyEntry(id=id_):
                self._keys[id_] = entry
            case PollEntry():
                """Of no interest here: pollers take it."""

    def remove(self, key: bytes) -> None:
        """Forget the entry of a Kafka key.

        Raises:
            msgspec.MsgspecError: not a key of the directory.
        """
        org, kind, name = _names(key)
        match kind:
            case "org":
                self._orgs.pop(org, None)
            case "source":
                self._sources.pop((org, name), None)
            case "key":
                self._keys.pop(name, None)
            case _:
                """A wish to poll, or a kind that a newer build knows."""

    def source(self, org: str, source: str) -> SourceEntry | None:
        """Return the source, None where the org or the source is unknown."""
        return self._sources.get((org, source))

    def key(self, token: str) -> KeyEntry | None:
        """Return the entry of the API key `token`; None for an unknown, wrong or revoked one."""
        found = _KEY.fullmatch(token) if len(token) <= KEY_LENGTH_MAX else None
        entry = self._keys.get(found.group(1)) if found else None
        digest = sha256(token.encode(errors="replace")).hexdigest()
        # Compared also for unknown keys: how long it takes tells nothing about which ids exist.
        same = hmac.compare_digest(digest, entry.sha256.lower() if entry else "0" * len(digest))
        return entry if same and entry is not None and not entry.revoked else None

"""How the feeds of an organisation stand."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec


class Feed(msgspec.Struct, frozen=True, kw_only=True):
    """The feed of one source, over all partitions of the matcher."""

    source: str
    rule: str
    """The rule it is watched by; empty: no rule selects the source any more."""
    last_seen_at: datetime
    usual_silence_ms: int | None
    silent_after_ms: int | None
    silent_since: datetime | None
    waiting: int
    told_at: datetime
    """Log time: how old this is."""


class FeedStore(Protocol):
    """Always within one organisation. Raises `DependencyAway` while the database cannot be reached."""

    async def feeds(self, org: str) -> Sequence[Feed]:
        """Return every feed that was ever told of, ordered by source."""
        ...

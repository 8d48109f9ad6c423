"""Who asked for a run over MCP, and why."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the runs' action log."""

    run_id: str
    actor: str
    reason: str
    at: datetime


class RunRequests(Protocol):
    """Append-only. Raises `DependencyAway` while the database cannot be reached."""

    async def add(self, org: str, request: RunRequest) -> None: ...

    async def of(self, org: str, run_id: str) -> Sequence[RunRequest]:
        """Return who asked for a run, the oldest first."""
        ...

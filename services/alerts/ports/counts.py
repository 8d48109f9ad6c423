"""How many discrepancies there are of each kind: what an overview shows before anybody lists them."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from services.alerts.domain.triage import Status
from shared.contracts.discrepancy import Severity, State


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """Discrepancies that agree in all of these."""

    pack: str
    rule: str
    type: str
    severity: Severity
    state: State
    status: Status
    shadow: bool
    count: int


class CountsStore(Protocol):
    """Always within one organisation. Raises `DependencyAway` while the database cannot be reached."""

    async def counts(self, org: str) -> Sequence[Count]:
        """Return every kind that has at least one, ordered by its fields."""
        ...

"""What triage needs from outside: stored discrepancies, their history, and the rules they come from."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from services.alerts.domain.adjustment import Adjustment, RuleShape
from services.alerts.domain.triage import LogRow, Standing, Status
from shared.contracts.discrepancy import Discrepancy, Severity, State
from shared.contracts.item import Item, ItemStatus
from shared.contracts.near_miss import Cluster, NearMiss


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A discrepancy as it stands: the matcher's last revision and what people made of it."""

    found: Discrepancy
    standing: Standing
    near_miss: NearMiss | None = None
    cluster: Cluster | None = None


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which discrepancies to list; None: any."""

    status: Status | None = None
    state: State | None = None
    type: str | None = None
    rule: str | None = None
    pack: str | None = None
    severity: Severity | None = None
    key: str | None = None
    """A key of one field, or a JSON list for a key of several."""
    assignee: str | None = None
    since: datetime | None = None
    """Raised first at or after it."""
    cluster: str | None = None
    """Id of the cluster that it belongs to."""
    shadow: bool | None = False
    """From a rule that only watches, or not; None: both."""


class ItemFilter(msgspec.Struct, frozen=True, kw_only=True):
    status: ItemStatus | None = None
    rule: str | None = None
    pack: str | None = None
    key: str | None = None
    shadow: bool | None = False


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    """One revision in the history of a discrepancy."""

    revision: int
    state: State
    type: str
    severity: Severity
    expected: str | None
    actual: str | None
    difference: str | None
    currency: str | None
    resolution: str | None
    expired: bool
    explanation: str
    log_time: datetime
    shadow: bool = False


class History(msgspec.Struct, frozen=True, kw_only=True):
    """All that happened to one discrepancy, the oldest first."""

    stored: Stored
    revisions: list[Revision]
    log: list[LogRow]
    adjustments: list[Adjustment]


Decide = Callable[[Stored], tuple[Standing, LogRow, Adjustment | None]]
"""What an action makes of a discrepancy; may raise to leave it as it is."""


class TriageStore(Protocol):
    """Always within one organisation. Raises `DependencyAway` while the database cannot be reached."""

    async def list(self, org: str, chosen: Filter, after: tuple[datetime, str] | None, limit: int) -> Sequence[Stored]:
        """Return the newest first (by first raise, then id), after the place `after`."""
        ...

    async def find(self, org: str, id_: str) -> Stored | None: ...

    async def history(self, org: str, id_: str) -> History | None: ...

    async def naming(self, org: str, record: str, limit: int) -> Sequence[Stored]:
        """Return discrepancies whose evidence names a record (or an event) by its own id; those still open first."""
        ...

    async def change(self, org: str, id_: str, decide: Decide, pack: str | None = None) -> Stored | None:
        """Lock the discrepancy, store what `decide` makes of it with its line in the log.

        None: there is none, or it is of another pack than `pack`.
        """
        ...

    async def items(
        self, org: str, chosen: ItemFilter, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Item]:
        """Return items, the latest change first (by log time, then id)."""
        ...


class RuleShapes(Protocol):
    """The rules in force."""

    async def shape(self, org: str, pack: str, rule: str) -> RuleShape | None:
        """None: the organisation has no such rule now. Raises `DependencyAway` while Kafka cannot be reached."""
        ...

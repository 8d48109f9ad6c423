"""What storing the matcher's results needs from outside."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

import msgspec

from services.alerts.domain.delivery import Message
from services.alerts.domain.moved import Holding
from services.alerts.domain.settled import ArrivedItem, StoredItem
from services.alerts.domain.triage import LogRow, Standing
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.discrepancy import Check, Discrepancy, FeedStatus, LogPosition, Severity
from shared.contracts.inbox import WithdrawRequested
from shared.contracts.not_reconciled import NotReconciledEvent


class Place(msgspec.Struct, frozen=True):
    """A partition of a result topic; `topic` is without prefix."""

    topic: str
    partition: int


class Span(msgspec.Struct, frozen=True):
    """What a batch takes from a place: offsets in [start, end)."""

    place: Place
    start: int
    end: int


class Found(msgspec.Struct, frozen=True):
    """A revision of a discrepancy as it lay in its topic."""

    discrepancy: Discrepancy
    place: Place
    offset: int
    appended_at: datetime
    traceparent: str | None = None


class Checked(msgspec.Struct, frozen=True):
    """A check, named by its place in the topic so that it is stored once."""

    place: Place
    offset: int
    check: Check


class Batch(msgspec.Struct):
    """What one poll brought."""

    spans: list[Span]
    discrepancies: list[Found] = []
    items: list[ArrivedItem] = []
    checks: list[Checked] = []
    not_reconciled: list[NotReconciledEvent] = []
    progress: dict[Place, LogPosition] = {}
    feeds: list[FeedStatus] = []
    unreadable: list[DeadLetter] = []


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint that takes webhooks, as far as choosing needs it."""

    endpoint_id: str
    org: str
    types: list[str]
    severity_min: Severity
    hears_from: datetime
    """It gets no message of what was appended before, by the broker's clock."""


class StoredRevision(msgspec.Struct, frozen=True, kw_only=True):
    """A revision to store; `last` of its discrepancy in the batch becomes the current one."""

    found: Discrepancy
    standing: Standing
    group_id: str
    last: bool


class StoredItemRevision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A revision to store; `last` of its item in the batch becomes the current one."""

    arrived: ArrivedItem
    last: bool
    records: dict[str, bool] | None = None
    """Of an item that is not stored yet and comes once in the batch: its records by id, and whether each counts. They
    are stored with it and stand in no `holds`."""


class Logged(msgspec.Struct, frozen=True):
    """A line of the action log and whose it is."""

    org: str
    discrepancy_id: str
    row: LogRow


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """A message for the outbox."""

    org: str
    endpoint_id: str
    discrepancy_id: str
    revision: int
    log_offset: int
    message: Message
    traceparent: str | None


class HeldRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A record stands in an item, live or not."""

    record_id: str
    item_id: str
    group_id: str
    org: str
    live: bool


class Writes(msgspec.Struct):
    """Everything that one transaction stores."""

    revisions: list[StoredRevision] = []
    items: list[StoredItemRevision] = []
    repeated: dict[str, int] = {}
    """Item id: log offset from which the matcher repeats it."""
    holds: list[HeldRecord] = []
    leaves: list[tuple[str, str]] = []
    """Record and item."""
    checks: list[Checked] = []
    not_reconciled: list[NotReconciledEvent] = []
    """An org and event that is stored already stays as it is."""
    log: list[Logged] = []
    outgoing: list[Outgoing] = []
    withdrawals: list[WithdrawRequested] = []
    unreadable: list[DeadLetter] = []
    progress: dict[Place, LogPosition] = {}
    feeds: list[FeedStatus] = []
    """In the order they were told; the last one of a feed and partition counts."""


class Fenced(Exception):
    """Another sink has moved the place on: what this one holds is old. Give the partitions up and join again."""


class SinkTransaction(Protocol):
    """Reads lock what they return until the end."""

    live_offsets: Mapping[Place, int]
    """Below its place's offset a record is part of a rebuild: nobody is told."""

    async def standings(self, ids: Collection[str]) -> dict[str, Standing]: ...

    async def group_items(self, group_ids: Collection[str]) -> dict[str, list[StoredItem]]: ...

    async def holders(self, record_ids: Collection[str], limit: int) -> dict[str, list[Holding]]:
        """Return, by record id, at most `limit` of the groups that hold the record."""

    async def holders_among(self, places: Collection[tuple[str, str]]) -> dict[str, list[Holding]]:
        """Return, by record id, which of `places` (record and group) hold their record, and examples of other groups.

        Of the others any two where the record is live, and any one where it is not: a record that thousands of groups
        hold costs no more than one that two do.
        """

    async def discrepancies(self, ids: Collection[str]) -> dict[str, Discrepancy]: ...

    async def subscriptions(self) -> Sequence[Subscription]: ...

    async def write(self, writes: Writes) -> None: ...


class SinkStore(Protocol):
    def transaction(self, spans: Sequence[Span]) -> AbstractAsyncContextManager[SinkTransaction]:
        """One transaction that first moves every span's place from start to end.

        Raises:
            Fenced: a place was not at its start; nothing is stored.
            DependencyAway: the database does not answer; whether it committed is not known.
        """
        ...

    async def open_places(self, begin: Mapping[Place, int], live: Mapping[Place, int]) -> dict[Place, int]:
        """Return where to go on; a place that was never read starts at `begin` and is live from `live` on."""
        ...

    async def skip_to(self, place: Place, stored: int, begin: int) -> None:
        """Move a place on to `begin`, since the topic no longer has what lies before."""
        ...

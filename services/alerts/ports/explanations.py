"""What looking for near misses and clusters needs from outside."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

import msgspec

from services.alerts.domain.cluster import Member
from services.alerts.domain.near_miss import LooseEnd, Rank
from shared.contracts.discrepancy import Discrepancy
from shared.contracts.near_miss import Cluster, NearMiss


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """A discrepancy that changed, as it stands now."""

    found: Discrepancy
    open: bool
    """True now, not resolved by a person, and no shadow."""
    raised: Discrepancy
    """With the evidence of its last raise: that of a resolved one is of what put it right."""


class StoredEnd(msgspec.Struct, frozen=True, kw_only=True):
    """A loose end as it is stored, with its pair."""

    end: LooseEnd
    pair_id: str | None
    rank: Rank | None
    alone: bool


class Around(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored around a loose end; see `Neighbours`."""

    opposite: list[StoredEnd]
    beside: list[StoredEnd]


class StoredMember(msgspec.Struct, frozen=True, kw_only=True):
    """A member as it is stored, with its cause."""

    org: str
    cause: str
    member: Member


class Members(NamedTuple):
    """Members of one cause."""

    members: list[Member]
    began: datetime | None
    """The first raise of the group that the oldest of them belongs to."""


class ExplanationTransaction(Protocol):
    """Works on the organisations of what it has taken, alone."""

    async def take(self, limit: int) -> list[str]:
        """Take up to `limit` changes off the queue, oldest first; return the ids of discrepancies, each once.

        Changes of organisations that another explainer works on stay.
        """
        ...

    async def put_back(self, ends: Collection[LooseEnd]) -> None:
        """Put discrepancies into the queue again."""
        ...

    async def changed(self, ids: Collection[str]) -> list[Changed]: ...

    async def ends(self, ids: Collection[str]) -> dict[str, StoredEnd]: ...

    async def put_ends(self, ends: Sequence[LooseEnd]) -> None:
        """Store loose ends without a pair."""
        ...

    async def drop_ends(self, ids: Collection[str]) -> None: ...

    async def around(self, end: LooseEnd, pair_id: str | None) -> Around:
        """Return the neighbours of `end`, its pair among them; few, however many are open."""
        ...

    async def link(self, id_: str, pair_id: str, rank: Rank, alone: bool, said: NearMiss) -> None: ...

    async def unlink(self, ids: Collection[str]) -> None: ...

    async def members_known(self, ids: Collection[str]) -> dict[str, StoredMember]: ...

    async def put_members(self, members: Sequence[StoredMember]) -> None: ...

    async def drop_members(self, ids: Collection[str]) -> None: ...

    async def members(self, org: str, cause: str, gap: timedelta, limit: int) -> Members:
        """Return the members of a cause from the first open one on, at most `limit`, those raised last."""
        ...

    async def write_clusters(
        self, org: str, cause: str, clusters: Sequence[Cluster], membership: Mapping[str, str | None]
    ) -> None:
        """Store the clusters of a cause in place of those it had, and of open members (by id) their cluster's id.

        Any other member has none.
        """
        ...


class ExplanationStore(Protocol):
    def transaction(self) -> AbstractAsyncContextManager[ExplanationTransaction]:
        """One transaction. Raises `DependencyAway` while the database cannot be reached."""
        ...

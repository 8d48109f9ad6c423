"""What dead letters need from outside: where they are stored, and the records in `inbox` that they came from."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

import msgspec

from services.alerts.domain.dead_letter import Change, KeptLetter, LetterState
from shared.contracts.dead_letter import Reason


class LetterFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which letters to list; None: any."""

    state: LetterState | None = None
    reason: Reason | None = None
    source: str | None = None
    rule: str | None = None


class LetterCount(msgspec.Struct, frozen=True, kw_only=True):
    """Letters that agree in all of these."""

    state: LetterState
    reason: str
    source: str | None
    rule: str | None
    count: int


class LetterHistory(msgspec.Struct, frozen=True, kw_only=True):
    """A letter with its raw body and what people did with it, the oldest first."""

    kept: KeptLetter
    changes: list[Change]


class InboxRecord(NamedTuple):
    """A record of `inbox` as it came."""

    key: bytes
    value: bytes


Decide = Callable[[KeptLetter], Change]
"""What an action makes of a letter; may raise to leave it as it is."""


class DeadLetterStore(Protocol):
    """Raises `DependencyAway` while the database cannot be reached.

    `add` and `count_open` work for all organisations; everything else within one: letters that name no organisation
    are seen by none.
    """

    async def add(self, letters: Sequence[KeptLetter]) -> None:
        """Store what is not stored yet; a letter that is known by its id stays as it stands."""
        ...

    async def list(
        self, org: str, chosen: LetterFilter, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[KeptLetter]:
        """Return the newest first (by receipt, then id), after the place `after`; without their raw bodies."""
        ...

    async def history(self, org: str, id_: str) -> LetterHistory | None: ...

    async def change(self, org: str, id_: str, decide: Decide, again: InboxRecord | None = None) -> KeptLetter | None:
        """Lock the letter and store what `decide` makes of it with its line, and `again` on its way to `inbox`.

        None: the organisation has no such letter.
        """
        ...

    async def counts(self, org: str) -> Sequence[LetterCount]:
        """Return every kind that has at least one, ordered by its fields."""
        ...

    async def count_open(self) -> dict[str, int]:
        """Count open letters by reason, those without an organisation too."""
        ...


class Inbox(Protocol):
    """Looks into the topic `inbox`."""

    async def find(self, partition: int, offset: int) -> InboxRecord | None:
        """Return the record at a place; None: it is no longer kept. Raises `DependencyAway` while Kafka is away."""
        ...

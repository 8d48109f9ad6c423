"""What is held about one account of an `invariant` rule: the last snapshot, its counters, closing readings."""

import msgspec

from services.matcher.domain.group import Raised
from services.matcher.domain.state import Codec
from shared.contracts.leg import Leg
from shared.rules.extract.invariant import CLOSING, CONTENT

CLOSINGS_MAX = 64
"""Closing readings remembered per account: five years of months, two months of days."""


class Snapshot(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """One snapshot as it came: time in microseconds, fields as text."""

    source: str
    record: str
    id: str
    occurred_at: int
    sequence: int
    amount: str | None
    currency: str | None
    status: str | None
    values: dict[str, str]

    @property
    def rank(self) -> tuple[int, int, str]:
        """Of two snapshots the greater is newer."""
        return self.occurred_at, self.sequence, self.id

    @property
    def content(self) -> str:
        """Digest of what it says."""
        return self.values.get(CONTENT, "")

    @property
    def closing(self) -> str:
        """The period that it is the last reading of; empty: it is none."""
        return self.values.get(CLOSING, "")

    def text(self, field: str) -> str | None:
        """Return what a field says; None where it is absent or empty."""
        return self.amount if field == "amount" else self.values.get(field)


class Counter(msgspec.Struct, array_like=True, gc=False):
    """What one check has seen of an account in the current period. Exact decimals as text."""

    code: str
    field: str
    currency: str | None
    period: str
    mark: str
    """What the next reading is held against: the greatest of the period, or the value when the other field last grew."""
    last: str
    """The last reading, or of the other field."""


class Closing(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A closing reading: what each field said."""

    period: str
    id: str
    content: str
    occurred_at: int
    sequence: int
    currency: str | None
    readings: dict[str, str]

    @property
    def rank(self) -> tuple[int, int, str]:
        """Of two closing readings of a period the greater counts."""
        return self.occurred_at, self.sequence, self.id


class Watched(msgspec.Struct, array_like=True, gc=False):
    """State of one account. Times in milliseconds."""

    generation: str
    opener: str
    """Id of the event that opened it: part of every id that the account gives out."""
    touched_at: int
    """Receipt of the last snapshot that was taken: `keep` and `expire` count from here."""
    due_at: int
    last: Snapshot | None = None
    """The last one that was judged."""
    counters: list[Counter] = []
    closings: list[Closing] = []
    raised: list[Raised] = []

    def counter(self, code: str) -> Counter | None:
        """Return what the check of this code has seen."""
        return next((counter for counter in self.counters if counter.code == code), None)

    def closing_of(self, period: str, field: str) -> Closing | None:
        """Return the closing reading of a period that says what `field` was."""
        found = [one for one in self.closings if one.period == period and field in one.readings]
        return max(found, key=lambda one: one.rank, default=None)

    def remember(self, closing: Closing) -> None:
        """Keep a closing reading, and of too many those of the latest periods."""
        self.closings.append(closing)
        if len(self.closings) > CLOSINGS_MAX:
            self.closings.remove(min(self.closings, key=lambda one: (one.period, one.rank)))


WATCHED = Codec(3, Watched)


def snapshot_of(leg: Leg) -> Snapshot:
    """Return a leg as the snapshot that it is."""
    return Snapshot(
        leg.source,
        leg.record,
        leg.id,
        leg.occurred_at,
        leg.sequence,
        leg.amount,
        leg.currency,
        leg.status,
        leg.values or {},
    )

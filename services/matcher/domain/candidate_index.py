"""What finds the candidates of a record: open records by amount and date, and by what their texts name.

It holds nothing that the cells do not say, so that it can be made again from them after a restore; and what it answers
depends on what it holds alone, not on the order in which that came.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from decimal import Decimal
from typing import Final, NamedTuple

from services.matcher.domain.group import MATCHED, Group
from services.matcher.domain.similarity import Features, read_text
from shared.contracts.discrepancy import Resolution
from shared.ids import canonical

POSTINGS_MAX: Final = 64
"""A word that more open records of one side name says nothing about which of them is meant."""
RECORD: Final = "record:"
ADJUSTMENT: Final = "adjustment:"
_LAST: Final = b"\xff"
_NO_TIME: Final = -(1 << 62)


class Candidate(Group):
    """A record, alone, or as the anchor of the records that it was matched with."""

    live: bool = False
    text: str = ""
    """Its references, a line each."""
    changed_at: int = 0
    """Receipt of what last changed anything that decides: `decide_after` counts from here, milliseconds."""
    anchor: bytes | None = None
    """Where it stands in another record's group: that record's cell."""
    members: list[bytes] | None = None
    """Of an anchor: the cells of its group, its own included."""
    confidence: int = 0
    """Of an anchor: the score of its group, in thousandths."""
    why: list[str] | None = None
    rivals: list[tuple[bytes, int]] | None = None
    """Candidates among which nobody can decide, with their scores."""
    is_said: bool = False
    """It raises the ambiguity; the others are named by one that does."""
    adds_up: bool = False
    """Ambiguous since several sets of records add up to its amount."""
    note: str | None = None
    """Why nothing was found for it."""
    cause: Resolution = "late_arrival"
    """What resolves the discrepancies that the next decision makes untrue."""
    is_keyless: bool = False
    """Something that partitions the rule is empty: it meets nobody."""


class Entry(NamedTuple):
    """An open record as the index holds it."""

    key: bytes
    bucket: bytes
    side: int
    changed_at: int
    source: str
    record: str
    features: Features

    @property
    def rank(self) -> tuple[int, str, str]:
        """Decides between equals."""
        return (self.features.first_at, self.source, self.record)


class _Side:
    """The open records of one side of one bucket."""

    def __init__(self) -> None:
        self.by_amount: list[tuple[Decimal, int, bytes]] = []
        self.by_sign: dict[str, dict[bytes, None]] = {}

    def add(self, entry: Entry) -> None:
        insort(self.by_amount, _place(entry))
        for sign in entry.features.text.signs:
            self.by_sign.setdefault(sign, {})[entry.key] = None

    def remove(self, entry: Entry) -> None:
        place = _place(entry)
        at = bisect_left(self.by_amount, place)
        assert self.by_amount[at] == place, "what is removed was added"
        del self.by_amount[at]
        for sign in entry.features.text.signs:
            postings = self.by_sign[sign]
            del postings[entry.key]
            if not postings:
                del self.by_sign[sign]


class Index:
    """The open records of one partition, and who is named by whom."""

    def __init__(self) -> None:
        self.entries: dict[bytes, Entry] = {}
        self._sides: dict[tuple[bytes, int], _Side] = {}
        self._made_of: dict[bytes, tuple[object, ...]] = {}
        self._rivals: dict[bytes, tuple[bytes, ...]] = {}
        self._named_by: dict[bytes, set[bytes]] = {}
        self._ids: dict[bytes, tuple[str, ...]] = {}
        self._raised: dict[str, bytes] = {}
        self._adjusts: dict[bytes, tuple[str, ...]] = {}
        self._adjusting: dict[str, set[bytes]] = {}

    def note(self, key: bytes, cell: Candidate | None) -> None:
        """Bring what is known of a cell in line with it; None: it was forgotten."""
        self._note_entry(key, cell)
        self._note_names(key, tuple(rival for rival, _ in cell.rivals) if cell and cell.rivals else ())
        ids = tuple(raised.id for raised in cell.raised) if cell and cell.raised else ()
        if ids or key in self._ids:
            for one in self._ids.pop(key, ()):
                self._raised.pop(one, None)
            for one in ids:
                self._raised[one] = key
                self._ids[key] = ids
        adjusts = (
            tuple(sorted({entry.adjusts or "" for entry in cell.adjustments})) if cell and cell.adjustments else ()
        )
        if adjusts != self._adjusts.get(key, ()):
            for one in self._adjusts.pop(key, ()):
                self._adjusting[one].discard(key)
                if not self._adjusting[one]:
                    del self._adjusting[one]
            for one in adjusts:
                self._adjusting.setdefault(one, set()).add(key)
                self._adjusts[key] = adjusts

    def named_by(self, key: bytes) -> list[bytes]:
        """Return the records that name this one as a rival, in order."""
        return sorted(self._named_by.get(key, ()))

    def raised_at(self, discrepancy: str) -> bytes | None:
        """Return the cell that raised a discrepancy."""
        return self._raised.get(discrepancy)

    @property
    def has_adjustments(self) -> bool:
        """Any adjustment is held."""
        return bool(self._adjusting)

    def adjusting(self, discrepancy: str) -> list[bytes]:
        """Return the cells of the adjustments to a discrepancy, in order."""
        return sorted(self._adjusting.get(discrepancy, ()))

    def of_amount(self, entry: Entry, low: Decimal, high: Decimal, count_max: int) -> list[Entry]:
        """Return open records of the other side from `low` to `high`, those nearest in amount and date where there are more."""
        side = self._sides.get((entry.bucket, 1 - entry.side))
        if side is None:
            return []
        places = side.by_amount
        start, end = bisect_left(places, (low, _NO_TIME)), bisect_right(places, (high, -_NO_TIME, _LAST))
        if end - start > count_max:
            middle = bisect_left(places, (entry.features.amount, entry.features.first_at))
            start = max(start, min(middle - count_max // 2, end - count_max))
            end = min(end, start + count_max)
        return [self.entries[key] for _, _, key in places[start:end]]

    def count_of_amount(self, bucket: bytes, side: int, low: Decimal, high: Decimal) -> int:
        """Return how many open records of a side lie from `low` to `high`."""
        found = self._sides.get((bucket, side))
        if found is None:
            return 0
        places = found.by_amount
        return bisect_right(places, (high, -_NO_TIME, _LAST)) - bisect_left(places, (low, _NO_TIME))

    def of_text(self, entry: Entry) -> Iterable[Entry]:
        """Return open records of the other side that name something this one names."""
        side = self._sides.get((entry.bucket, 1 - entry.side))
        if side is None:
            return ()
        found: dict[bytes, None] = {}
        for sign in entry.features.text.signs:
            postings = side.by_sign.get(sign)
            if postings and len(postings) <= POSTINGS_MAX:
                found |= postings
        return [self.entries[key] for key in found]

    def _note_entry(self, key: bytes, cell: Candidate | None) -> None:
        made_of = _made_of(cell)
        if self._made_of.get(key) == made_of:
            return
        before = self.entries.pop(key, None)
        if before is not None:
            del self._made_of[key]
            self._sides[before.bucket, before.side].remove(before)
        if made_of is None:
            return
        assert cell is not None
        record = cell.records[0]
        features = Features(Decimal(record.amount or 0), record.currency, record.first_at, read_text(cell.text))
        entry = Entry(key, bucket_of(key), record.side, cell.changed_at, record.source, record.record, features)
        self.entries[key] = entry
        self._made_of[key] = made_of
        self._sides.setdefault((entry.bucket, entry.side), _Side()).add(entry)

    def _note_names(self, key: bytes, rivals: tuple[bytes, ...]) -> None:
        before = self._rivals.get(key, ())
        if rivals == before:
            return
        for rival in before:
            self._named_by[rival].discard(key)
            if not self._named_by[rival]:
                del self._named_by[rival]
        for rival in rivals:
            self._named_by.setdefault(rival, set()).add(key)
        if rivals:
            self._rivals[key] = rivals
        else:
            del self._rivals[key]


def record_key(bucket: bytes, source: str, record: str, what: str = RECORD) -> bytes:
    """Return the cell of a record: the Kafka key of its legs with the record's name at the end."""
    return bucket[:-1] + b"," + canonical([f"{what}{source}/{record}"])[1:]


def bucket_of(key: bytes) -> bytes:
    """Return the Kafka key of the legs of a record's cell."""
    return key[: key.rindex(b',"record:')] + b"]"


def is_open(cell: Candidate) -> bool:
    """Tell whether a record may still find its counterpart; money without a partition meets nobody."""
    return (
        cell.live and not cell.is_keyless and cell.anchor is None and not cell.members and cell.item_status != MATCHED
    )


def _made_of(cell: Candidate | None) -> tuple[object, ...] | None:
    if cell is None or not is_open(cell):
        return None
    record = cell.records[0]
    return (cell.changed_at, record.side, record.amount, record.currency, record.first_at, cell.text)


def _place(entry: Entry) -> tuple[Decimal, int, bytes]:
    return (entry.features.amount, entry.features.first_at, entry.key)

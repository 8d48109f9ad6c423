"""Movements of one account: pages in the state, and an index over them that is built from the pages when it is needed.

Work per movement is bounded: a page is written, one integer sorted in, sums changed. Judging a new reading adds what is
dated since the one before; every movement is added once.
"""

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from decimal import Decimal
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from services.matcher.domain.account import (
    GONE,
    MOVEMENT,
    NAME_BYTES,
    Account,
    AccountCell,
    Book,
    Entry,
    Total,
)
from services.matcher.domain.pages import Page, Pages
from services.matcher.domain.state import State
from services.matcher.domain.timers import NEVER
from shared.money import EXACT
from shared.rules.balance_rule import BalanceRule

ZERO = Decimal(0)
LONG_AGO = -(1 << 62)
"""Microseconds: before every movement."""
PLACE_BITS = 40
"""A date and a place make one integer, so that a list of plain integers is sorted by date."""
PLACE_MASK = (1 << PLACE_BITS) - 1
LOOK_AGAIN_MS = 3_600_000
"""A page that cannot be folded yet is looked at again no sooner than an hour later."""
NAMES_MAX = 1 << 16
"""Names in one array: sorting one in moves half of it, 256 kB, in some 10 microseconds."""


class Bounds(NamedTuple):
    """Of one currency: movements count that are dated after `start` and at or before `upto` (microseconds)."""

    start: int
    upto: int


class Dated:
    """The live movements of one currency that are held, by date."""

    def __init__(self, bounds: Bounds) -> None:
        self.start, self.upto = bounds
        self.keys: list[int] = []
        """Date and place of each, in one integer; in order."""
        self.counted = ZERO
        self.count = 0
        """How many are in `counted`."""
        self.later = ZERO

    def add(self, entry: Entry, place: int) -> None:
        """Sort a movement in."""
        insort(self.keys, entry.occurred_at << PLACE_BITS | place)
        self.sum(entry.occurred_at, _amount(entry), 1)

    def remove(self, entry: Entry, place: int) -> None:
        """Take a movement out again."""
        at = bisect_left(self.keys, entry.occurred_at << PLACE_BITS | place)
        del self.keys[at]
        self.sum(entry.occurred_at, _amount(entry).copy_negate(), -1)

    def remove_all(self, removed: list[tuple[Entry, int]]) -> None:
        """Take old movements out: one move of what is behind them."""
        keys = {entry.occurred_at << PLACE_BITS | place for entry, place in removed}
        end = bisect_left(self.keys, max(keys) + 1)
        self.keys[:end] = [key for key in self.keys[:end] if key not in keys]
        for entry, _ in removed:
            self.sum(entry.occurred_at, _amount(entry).copy_negate(), -1)

    def sum(self, date: int, amount: Decimal, count: int) -> None:
        """Add to the sum that a date belongs to."""
        if date > self.upto:
            self.later = EXACT.add(self.later, amount)
        elif date > self.start:
            self.counted = EXACT.add(self.counted, amount)
            self.count += count

    def places(self, after: int, upto: int) -> list[int]:
        """Return the places of the movements dated after `after` and at or before `upto`."""
        begin = bisect_left(self.keys, (after + 1) << PLACE_BITS)
        end = bisect_left(self.keys, (upto + 1) << PLACE_BITS)
        return [key & PLACE_MASK for key in self.keys[begin:end]]

    def newest(self, count: int) -> list[int]:
        """Return the places of the newest movements that count, newest first."""
        begin = bisect_left(self.keys, (self.start + 1) << PLACE_BITS)
        end = bisect_left(self.keys, (self.upto + 1) << PLACE_BITS)
        return [key & PLACE_MASK for key in reversed(self.keys[max(begin, end - count) : end])]


class Names:
    """Names of movements that were folded: what comes of them again is too late and must not count twice."""

    def __init__(self) -> None:
        self._arrays: list[array[int]] = []

    def __contains__(self, name: int) -> bool:
        for names in self._arrays:
            at = bisect_left(names, name)
            if at < len(names) and names[at] == name:
                return True
        return False

    def __bool__(self) -> bool:
        return bool(self._arrays)

    def add(self, names: Iterable[int]) -> None:
        """Remember names."""
        for name in names:
            if not self._arrays or len(self._arrays[-1]) >= NAMES_MAX:
                self._arrays.append(array("Q"))
            insort(self._arrays[-1], name)

    def discard(self, names: Iterable[int]) -> None:
        """Forget names, once each."""
        for name in names:
            for held in self._arrays:
                at = bisect_left(held, name)
                if at < len(held) and held[at] == name:
                    del held[at]
                    break
        self._arrays = [held for held in self._arrays if held]


class Ledger:
    """Movements of one account under its rule."""

    def __init__(self, state: State, key: bytes, account: Account, rule: BalanceRule, name: str) -> None:
        self._state = state
        self._key = key
        self._rule = rule
        self._is_live = rule.movements.is_live
        self._account_name = name
        self._places: dict[int, int] = {}
        self.folded = Names()
        self._dated: dict[str | None, Dated] = {}
        self._pages = Pages(state, key, b"", rule.generation)
        self._load(account)

    # ---- what is held

    def counts(self, entry: Entry | None) -> bool:
        """Tell whether an entry is a movement that counts."""
        return entry is not None and entry.kind == MOVEMENT and entry.amount is not None and self._is_live(entry.status)

    def dated(self, account: Account, currency: str | None) -> Dated:
        """Return the movements of a currency."""
        found = self._dated.get(currency)
        if found is None:
            found = self._dated[currency] = Dated(
                bounds(account.book(currency), self._rule, self._account_name, currency)
            )
        return found

    def find(self, name: int) -> tuple[int, Entry] | None:
        """Return place and entry of a name that is held."""
        place = self._places.get(name)
        if place is None:
            return None
        return place, self._pages.entry(place)

    def is_folded(self, source: str, record: str) -> bool:
        """Tell whether a movement is in the sums for good."""
        return record_name(source, record) in self.folded

    def is_gone(self, source: str, record: str) -> bool:
        """Tell whether a record was superseded, so long ago that its page was folded since."""
        return bool(self.folded) and _gone_name(source, record) in self.folded

    def holder(self, source: str, id_: str) -> Entry | None:
        """Return the record whose winning event has this id."""
        found = self.find(record_name(source, id_))
        if found is not None and found[1].kind == MOVEMENT and found[1].id is None:
            return found[1]
        found = self.find(_id_name(source, id_))
        return None if found is None else found[1]

    def entries(self, places: Iterable[int]) -> Iterator[Entry]:
        """Yield the movements at some places."""
        return self._pages.entries(places)

    # ---- changes

    def append(self, account: Account, entry: Entry, name: int) -> bool:
        """Put an entry on the newest page; tell whether the account's head changed."""
        place, begins = self._pages.append(account.moved, entry)
        if begins:
            account.look_at = min(account.look_at, entry.occurred_at // 1000 + self._rule.keep_ms)
        self._places[name] = place
        self._index(account, entry, place)
        return begins

    def drop(self, account: Account, name: int) -> None:
        """Take the entry of a name off its page."""
        found = self.find(name)
        assert found is not None
        place, entry = found
        self._unindex(account, entry, place)
        self._pages.write(place, None)
        del self._places[name]

    def replace(self, account: Account, name: int, entry: Entry) -> None:
        """Put an entry where the one of a name was."""
        found = self.find(name)
        assert found is not None
        place, before = found
        self._unindex(account, before, place)
        self._pages.write(place, entry)
        self._index(account, entry, place)

    def advance(self, account: Account, currency: str | None, upto: int) -> None:
        """Count what is dated up to a new reading; every movement is added once."""
        dated = self.dated(account, currency)
        places = sorted(dated.places(max(dated.upto, dated.start), upto))  # so that each page is read once
        for entry in self.entries(places):
            amount = _amount(entry)
            dated.later = EXACT.subtract(dated.later, amount)
            dated.counted = EXACT.add(dated.counted, amount)
            dated.count += 1
        dated.upto = max(dated.upto, upto)

    # ---- folding

    def fold(self, account: Account, now: int, generation: str) -> None:
        """Fold pages that are old enough into sums, oldest first; `now` is log time (milliseconds)."""
        account.look_at, account.is_blocked = NEVER, False
        span = account.moved
        while span.first < span.next:
            look_at = self._not_before(account, self._pages.page(span.first), now)
            if look_at is not None:
                account.look_at = look_at
                break
            self._fold_page(account, span.first, now, generation)
            span.first += 1
        self.forget(account, now)

    def forget(self, account: Account, now: int) -> None:
        """Forget names that were remembered long enough."""
        account.forget_at = NEVER
        while account.names_from < account.moved.first:
            key = self._pages.key(account.names_from)
            cell: AccountCell | None = self._state.get(key)
            if cell is not None and cell.names is not None:
                if cell.forget_at >= now:
                    account.forget_at = cell.forget_at
                    return
                self.folded.discard(_read_names(cell.names))
                self._state.forget(key)
            account.names_from += 1

    def _not_before(self, account: Account, page: Page, now: int) -> int | None:
        """Return when a page has to be looked at again; None: it can be folded now.

        What no reading has judged is held until `expire`, so that a reading that comes late finds it.
        """
        held = [entry for entry in page if entry is not None]
        newest = max((entry.occurred_at for entry in held), default=LONG_AGO)
        if newest >= (now - self._rule.keep_ms) * 1000:
            return newest // 1000 + self._rule.keep_ms
        expired = (now - self._rule.expire_ms) * 1000
        unread = [entry for entry in held if self.counts(entry) and not _is_read(account, entry)]
        blocking = [entry for entry in unread if entry.occurred_at >= expired or _is_waited_for(account, entry)]
        if not blocking:
            return None
        account.is_blocked = True
        last = max(entry.occurred_at for entry in blocking)
        return max(last // 1000 + self._rule.expire_ms, now + LOOK_AGAIN_MS)

    def _fold_page(self, account: Account, number: int, now: int, generation: str) -> None:
        names: list[int] = []
        counted: dict[str | None, list[tuple[Entry, int]]] = {}
        for place, entry in self._pages.placed(number):
            name = record_name(entry.source, entry.record)
            counts = self.counts(entry)
            if counts:
                total = _total_of(account.open_book(entry.currency), entry.occurred_at)
                total.amount = str(EXACT.add(Decimal(total.amount), _amount(entry)))
                total.count += 1
                counted.setdefault(entry.currency, []).append((entry, place))
            if entry.kind == MOVEMENT and entry.id is not None:
                self._places.pop(_id_name(entry.source, entry.id), None)
            del self._places[name]
            if counts:
                names.append(name)
            elif entry.kind == GONE:
                names.append(_gone_name(entry.source, entry.record))
        for currency, removed in counted.items():
            self.dated(account, currency).remove_all(removed)
        if not names:
            self._pages.drop(number)
            return
        self._pages.left(number)
        self.folded.add(names)
        packed = b"".join(name.to_bytes(NAME_BYTES) for name in sorted(names))
        cell = AccountCell(generation, names=packed, forget_at=now + self._rule.expire_ms)
        self._state.put(self._pages.key(number), cell, settled=True)

    # ---- index

    def _load(self, account: Account) -> None:
        dated: dict[str | None, list[tuple[int, Entry]]] = {}
        for number in range(account.moved.first, account.moved.next):
            for place, entry in self._pages.placed(number):
                self._load_entry(entry, place, dated)
        for currency, held in dated.items():
            of_currency = self.dated(account, currency)
            of_currency.keys = sorted(key for key, _ in held)
            for _, entry in held:
                of_currency.sum(entry.occurred_at, _amount(entry), 1)
        for number in range(account.names_from, account.moved.first):
            cell: AccountCell | None = self._state.get(self._pages.key(number))
            if cell is not None and cell.names is not None:
                self.folded.add(_read_names(cell.names))

    def _load_entry(self, entry: Entry, place: int, dated: dict[str | None, list[tuple[int, Entry]]]) -> None:
        self._places[record_name(entry.source, entry.record)] = place
        if entry.kind == MOVEMENT and entry.id is not None:
            self._places[_id_name(entry.source, entry.id)] = place
        if self.counts(entry):
            dated.setdefault(entry.currency, []).append((entry.occurred_at << PLACE_BITS | place, entry))

    def _index(self, account: Account, entry: Entry, place: int) -> None:
        if entry.kind != MOVEMENT:
            return
        if entry.id is not None:
            self._places[_id_name(entry.source, entry.id)] = place
        if self.counts(entry):
            self.dated(account, entry.currency).add(entry, place)

    def _unindex(self, account: Account, entry: Entry, place: int) -> None:
        if entry.kind != MOVEMENT:
            return
        if entry.id is not None:
            self._places.pop(_id_name(entry.source, entry.id), None)
        if self.counts(entry):
            self.dated(account, entry.currency).remove(entry, place)


def bounds(book: Book | None, rule: BalanceRule, account: str, currency: str | None) -> Bounds:
    """Return which movements count by the latest judged reading."""
    if book is None:
        return Bounds(LONG_AGO, LONG_AGO)
    start = LONG_AGO
    if book.opening is not None and rule.given_opening(account, currency) is None:
        start = book.opening.as_of
    return Bounds(start, book.judged.as_of if book.judged is not None else start)


def record_name(source: str, record: str) -> int:
    """Return what a record is looked up by."""
    return _name(f"m{source}\0{record}")


def gone(entry: Entry) -> Entry:
    """Return what stays of a record that never counts again."""
    return Entry(GONE, entry.source, entry.record, None, entry.occurred_at, 0)


def _gone_name(source: str, record: str) -> int:
    return _name(f"g{source}\0{record}")


def _id_name(source: str, id_: str) -> int:
    return _name(f"i{source}\0{id_}")


@lru_cache(maxsize=16)
def _name(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=NAME_BYTES).digest())


def _read_names(packed: bytes) -> list[int]:
    return [int.from_bytes(packed[at : at + NAME_BYTES]) for at in range(0, len(packed), NAME_BYTES)]


def _amount(entry: Entry) -> Decimal:
    return Decimal(entry.amount or 0)


def _read_upto(book: Book) -> int:
    """Return the as-of time (microseconds) of the latest reading that counts for good."""
    if book.judged is not None:
        return book.judged.as_of
    return book.opening.as_of if book.opening is not None else LONG_AGO


def _is_read(account: Account, entry: Entry) -> bool:
    book = account.book(entry.currency)
    return book is not None and entry.occurred_at <= _read_upto(book)


def _is_waited_for(account: Account, entry: Entry) -> bool:
    book = account.book(entry.currency)
    return book is not None and bool(book.waiting)


def _total_of(book: Book, date: int) -> Total:
    """Return the sum that a folded movement goes into."""
    if book.opening is not None and date <= book.opening.as_of:
        return book.ignored
    return book.counted if date <= _read_upto(book) else book.later

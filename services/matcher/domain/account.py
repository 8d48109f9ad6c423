"""What is held about one account of a `balance` rule: a head with its balances, and pages of movements beside it.

An account may have very many movements, so they are not one cell: a change writes the head, or one page, or both.
"""

import msgspec

from services.matcher.domain.group import Raised
from services.matcher.domain.state import Codec
from services.matcher.domain.timers import NEVER

PAGE_ENTRIES = 64
"""Entries of a page: what a new movement rewrites, some 5 kB at most."""
MOVEMENT, READ, GONE = 0, 1, 2
"""Kinds of entries: a movement; that an account was read as of a time; a record that never counts again."""
NAME_BYTES = 8
"""Of a name that is remembered: among a million of them two are the same in one account of ten million."""
_PAGE_MARK = b"#"


class Entry(msgspec.Struct, array_like=True, gc=False):
    """The winning event of one record: time in microseconds, amount with its sign applied."""

    kind: int
    source: str
    record: str
    id: str | None
    """None: the same as `record`."""
    occurred_at: int
    sequence: int
    amount: str | None = None
    currency: str | None = None
    status: str | None = None
    adjusts: str | None = None

    @property
    def event(self) -> str:
        """Id of the event."""
        return self.record if self.id is None else self.id

    @property
    def rank(self) -> tuple[int, int, str]:
        """Of two events of one record the greater counts."""
        return self.occurred_at, self.sequence, self.event


class Reading(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """What a source said an account holds."""

    as_of: int
    """Microseconds."""
    sequence: int
    id: str
    source: str
    record: str
    amount: str
    status: str | None
    read_at: int
    """Milliseconds: its receipt, and never before that of the reading before; `settle` counts from here."""

    @property
    def rank(self) -> tuple[int, str]:
        """Of two readings as of one time the greater counts."""
        return self.sequence, self.id


class Total(msgspec.Struct, array_like=True, gc=False):
    """Movements that are no longer held one by one."""

    amount: str = "0"
    count: int = 0


class Book(msgspec.Struct, array_like=True, gc=False):
    """The balance of an account in one currency."""

    currency: str | None
    opening: Reading | None = None
    judged: Reading | None = None
    """The latest reading that was judged."""
    waiting: list[Reading] = []
    """Readings that wait for `settle`, in the order of their as-of times."""
    ignored: Total = msgspec.field(default_factory=Total)
    """Folded movements dated at or before the opening reading."""
    counted: Total = msgspec.field(default_factory=Total)
    """Folded movements after that, dated at or before the latest judged reading."""
    later: Total = msgspec.field(default_factory=Total)
    """Folded movements dated after the latest judged reading."""
    raised: list[Raised] | None = None
    said: tuple[str, str, str] | None = None
    """Result, expected and explained part of the verdict last published of the latest judged reading."""

    def readings(self) -> list[Reading]:
        """Return the readings that are held."""
        return [one for one in (self.opening, self.judged, *self.waiting) if one is not None]


class Span(msgspec.Struct, array_like=True, gc=False):
    """Pages by number: from `first`, the oldest that is held, to the one before `next`."""

    first: int = 0
    next: int = 0


class Account(msgspec.Struct, array_like=True, gc=False):
    """Head of an account. Page numbers count up; a folded page keeps its number as long as its names are remembered."""

    opener: str
    """Id of the event that opened it: part of every id that the account gives out."""
    books: list[Book] = []
    adjustments: list[Entry] = []
    """Adjustments count whatever their date, so they are never folded."""
    names_from: int = 0
    """Oldest folded page whose names are remembered."""
    moved: Span = msgspec.field(default_factory=Span)
    """Pages of movements."""
    reads: Span = msgspec.field(default_factory=Span)
    """Pages of readings that were taken."""
    look_at: int = NEVER
    """Milliseconds: when the oldest page may be old enough to be folded."""
    is_blocked: bool = False
    """The oldest page is old enough, but holds movements that no reading has judged."""
    forget_at: int = NEVER
    """Milliseconds: when the oldest remembered names are forgotten."""
    unread_at: int = NEVER
    """Milliseconds: when the oldest page of readings may be forgotten."""

    def book(self, currency: str | None) -> Book | None:
        """Return the balance in a currency, None where nothing was read or folded."""
        return next((book for book in self.books if book.currency == currency), None)

    def open_book(self, currency: str | None) -> Book:
        """Return the balance in a currency, a new one where there is none."""
        book = self.book(currency)
        if book is None:
            book = Book(currency)
            self.books.append(book)
        return book


class AccountCell(msgspec.Struct, array_like=True, gc=False):
    """A cell of an account: its head, a page of entries, or the names of those that were on a folded page."""

    generation: str
    due_at: int = NEVER
    account: Account | None = None
    page: list[Entry | None] | None = None
    """By place; None where an entry was replaced."""
    names: bytes | None = None
    """8 bytes each, sorted."""
    forget_at: int = NEVER
    """Milliseconds, of names."""


ACCOUNTS = Codec(2, AccountCell)


def page_key(head: bytes, sort: bytes, number: int) -> bytes:
    """Return the key of a page of some sort; a head's key ends with a bracket, so they cannot meet."""
    return head + _PAGE_MARK + sort + str(number).encode()


def head_key(key: bytes) -> bytes:
    """Return the key of the account that a cell belongs to."""
    return key if key.endswith(b"]") else key.rpartition(_PAGE_MARK)[0]


def is_settled(cell: AccountCell) -> bool:
    """Tell whether a cell waits for no reading to be judged and has nothing raised."""
    account = cell.account
    if account is None:
        return True
    return not any(book.waiting or any(one.open for one in book.raised or ()) for book in account.books)

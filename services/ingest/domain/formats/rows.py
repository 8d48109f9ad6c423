"""What every format takes and gives: a stream of bytes in, one outcome per row out."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from shared.contracts.event import PostedEvent
from shared.errors import UsageError


class RowError(NamedTuple):
    """Why a row is no event, for the person who has the file; the rows around it are not touched by it."""

    reason: str


class Row(NamedTuple):
    """What one row of a file says: usually one event, several where it speaks about several movements."""

    line: int
    """Line of the file that the row begins in, from 1."""
    outcome: list[PostedEvent] | RowError
    notice: str | None = None
    """Something about a good row that people should know; the same words for all rows that it is true of."""


class FileUnreadable(UsageError):
    """The file as a whole is not of the format: none of its rows can be told."""


class Format(Protocol):
    """A kind of file."""

    columns_vary: bool
    """Whether two files may tell of the same event with more or fewer of its refs and attrs, as their columns were chosen."""

    def read(self, chunks: Iterable[bytes], name: str) -> Iterator[Row]:
        """Yield the rows of one file as they are read, in bounded memory.

        Args:
            chunks: the file's bytes, in pieces of any size.
            name: what errors call the file.

        Raises:
            FileUnreadable: for instance a header without a column that is needed.
        """


class Occurrences(Protocol):
    """Counts equal things of one file: where a bank gives its lines no id, two equal lines are two movements."""

    def next(self, digest: bytes) -> int:
        """Return how often `digest` has been asked for, this time included."""

"""Lines of text to records of cells: CSV as exports write it, with recovery after a broken line.

The csv module takes a quote that is never closed for the beginning of a cell that lasts to the end of the file. Here a
record may go on over some lines, as free text in cells does; where that makes no whole record, only the line with the
quote is broken, and the lines after it are read as if it were not there.
"""

import csv
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from services.ingest.domain.formats.text_lines import TextLine

RECORD_LINES_MAX = 100
"""Lines that one record may go on for: free text of a payment has some; the look-ahead stays bounded."""


class Dialect(NamedTuple):
    """How cells are told from each other."""

    delimiter: str = ","
    quote: str | None = '"'
    escape: str | None = None


class Record(NamedTuple):
    """The cells of one record, or why it is broken; it begins in `line`."""

    line: int
    cells: list[str]
    problem: str | None = None


class _Read(NamedTuple):
    cells: list[str]
    problem: str | None = None


OPEN = "unexpected end of data"
"""What the csv module says of a quote that is open at the end (in its strict mode)."""


class Records:
    """The records of a stream of lines, one after the other; empty lines are left out."""

    def __init__(self, lines: Iterator[TextLine], dialect: Dialect) -> None:
        self._lines = lines
        self._ahead: deque[TextLine] = deque()
        self._dialect = dialect
        self._width: int | None = None

    def skip(self, count: int) -> None:
        """Leave out the next `count` lines, whatever they hold."""
        for _ in islice(self._lines, count):
            pass

    def expect(self, width: int) -> None:
        """Say how many cells a whole record has, which tells free text over several lines from a broken line."""
        self._width = width

    def __iter__(self) -> "Records":
        return self

    def __next__(self) -> Record:
        """Return the next record."""
        while True:
            first = self._ahead.popleft() if self._ahead else next(self._lines)
            if first.problem is not None:
                return Record(first.number, [], first.problem)
            if first.text.strip():
                return self._record(first)

    def _record(self, first: TextLine) -> Record:
        read = self._cells([first.text])
        if read.problem != OPEN:
            return Record(first.number, read.cells, read.problem)
        taken = [first.text]
        for place in range(RECORD_LINES_MAX - 1):
            line = self._look(place)
            if line is None or line.problem is not None:
                break
            taken.append(line.text)
            read = self._cells(taken)
            if read.problem == OPEN:
                continue
            if read.problem is None and self._may_be_one(taken, read.cells):
                for _ in range(place + 1):
                    self._ahead.popleft()
                return Record(first.number, read.cells)
            break
        return Record(first.number, [], f"a quote ({self._dialect.quote}) is opened and never closed")

    def _may_be_one(self, taken: list[str], cells: list[str]) -> bool:
        """Tell whether these lines are one record, and not a broken one, good ones and another broken one."""
        if self._width is None:
            return True
        inside = (self._cells([text]) for text in taken[1:-1])
        swallowed = any(read.problem is None and len(read.cells) == self._width > 1 for read in inside)
        return len(cells) == self._width and not swallowed

    def _look(self, place: int) -> TextLine | None:
        while len(self._ahead) <= place:
            line = next(self._lines, None)
            if line is None:
                return None
            self._ahead.append(line)
        return self._ahead[place]

    def _cells(self, lines: list[str]) -> _Read:
        delimiter, quote, escape = self._dialect
        try:
            reader = csv.reader(
                [f"{text}\n" for text in lines],
                delimiter=delimiter,
                quotechar=quote,
                quoting=csv.QUOTE_NONE if quote is None else csv.QUOTE_MINIMAL,
                escapechar=escape,
                strict=True,
            )
            return _Read(next(reader))
        except csv.Error as error:
            if OPEN in str(error):
                return _Read([], OPEN)
            if any("\r" in text for text in lines):
                return _Read([], "holds a carriage return; save the file with line feeds at the ends of its lines")
            return _Read([], f"is no record of a table: {error}")


def wrong_width(cells: int, columns: int) -> str:
    """Say that a record has not one cell for each column."""
    return f"has {cells} {'cell' if cells == 1 else 'cells'} where the table has {columns} columns"

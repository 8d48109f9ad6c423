"""Rows of a fills.csv: how many there are, and which cannot be read."""

import csv
import re
from collections.abc import Callable, Iterable
from typing import Final

from shared.packs.bots.tail import Line, Position

NUMBER_COLUMNS: Final = frozenset(
    {
        "price",
        "amount",
        "qty",
        "quantity",
        "size",
        "cost",
        "notional",
        "fee",
        "fees",
        "fee_quote",
        "amount_base",
        "amount_quote",
        "notional_quote",
    }
)
"""Columns that hold a number wherever they are called so."""
SHOWN_CHARS_MAX: Final = 60

_NUMBER = re.compile(r"\s*[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\s*", re.ASCII)

Complain = Callable[[int, str], None]
"""Told the offset of a line and what is wrong with it."""


def count_rows(lines: Iterable[Line], position: Position, bot: str, complain: Complain) -> int:
    """Count the rows among some lines into `position.here`, and return how many there were.

    The first line of a file names the columns where none of its cells is a number. A line with another number of cells
    than that is no row; one that has no number in a column of numbers is one, and is complained about as well.
    """
    rows = 0
    for line in lines:
        if not line.raw.strip():
            continue
        if line.offset == 0 and names_columns(line):
            position.header = line.raw.decode("utf-8-sig", errors="replace")
            continue
        if is_row(line, position.header, complain):
            rows += 1
    position.here[bot] = position.here.get(bot, 0) + rows
    return rows


def is_row(line: Line, header: str, complain: Complain) -> bool:
    """Tell whether a line is a whole row of a table with these columns."""
    columns = _cells(header) if header else []
    try:
        cells = _cells(line.raw.decode())
    except UnicodeDecodeError:
        complain(line.offset, "the row is not UTF-8 text")
        return False
    if columns and len(cells) != len(columns):
        complain(line.offset, f"the row has {len(cells)} cells, its columns are {len(columns)}")
        return False
    for column, cell in zip(columns, cells, strict=False):
        if cell and column.strip().lower() in NUMBER_COLUMNS and not _NUMBER.fullmatch(cell):
            complain(line.offset, f"{column} is {cell[:SHOWN_CHARS_MAX]!r}, which is no number")
            break
    return True


def names_columns(line: Line) -> bool:
    """Tell whether a first line names columns: none of its cells is a number."""
    return not any(_NUMBER.fullmatch(cell) for cell in _cells(line.raw.decode("utf-8-sig", errors="replace")))


def _cells(text: str) -> list[str]:
    return text.split(",") if '"' not in text else next(csv.reader([text]), [])

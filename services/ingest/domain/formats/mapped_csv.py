"""Format `csv`: tables of any layout, read by a mapping file."""

import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import chain
from typing import Any
from zoneinfo import ZoneInfo

from services.ingest.domain.formats.amount_text import AmountForm, AmountUnreadable
from services.ingest.domain.formats.csv_mapping import (
    ISO,
    UNIX,
    AmountColumns,
    BySign,
    CsvMapping,
    FromColumns,
    RowHash,
    TimeColumns,
)
from services.ingest.domain.formats.rows import FileUnreadable, Occurrences, Row, RowError
from services.ingest.domain.formats.table import Dialect, Record, Records, wrong_width
from services.ingest.domain.formats.text_lines import text_lines
from shared.contracts.event import EPOCH, VALUE_LENGTH_MAX, EventRefused, PostedEvent, convert_posted
from shared.ids import canonical
from shared.money import format_amount

HASH_HEX_DIGITS = 32
"""Of an id made of a row's cells: 128 bits."""

Reader = Callable[[list[str]], str | None]
"""Reads one thing from the cells of a row; None: there is nothing."""


class RowUnreadable(ValueError):
    """A row is no event: why."""


class CsvFormat:
    """Tables of one layout."""

    columns_vary = False

    def __init__(self, mapping: CsvMapping, occurrences: Callable[[], Occurrences]) -> None:
        self._mapping = mapping
        self._occurrences = occurrences

    def read(self, chunks: Iterable[bytes], name: str) -> Iterator[Row]:
        """See `Format`."""
        layout = self._mapping.file
        lines = text_lines(chunks, layout.encoding)
        records = Records(lines, Dialect(layout.delimiter, layout.quote, layout.escape))
        records.skip(layout.skip_rows)
        if layout.header:
            header = next(records, None)
            table = _Table(self._mapping, _header(header, name), name, header.line if header else 0)
            records.expect(table.width)
            body: Iterator[Record] = records
        else:
            first = next(records, None)
            while first is not None and first.problem is not None:
                yield Row(first.line, RowError(first.problem))
                first = next(records, None)
            if first is None:
                return
            table = _Table(self._mapping, None, name, first.line, len(first.cells))
            records.expect(table.width)
            body = chain([first], records)
        make = _Maker(self._mapping, table, self._occurrences())
        for record in self._without_footer(body):
            row = make.row(record)
            if row is not None:
                yield row

    def _without_footer(self, records: Iterator[Record]) -> Iterator[Record]:
        layout = self._mapping.file
        held: deque[Record] = deque()
        for record in records:
            starts = layout.footer_starts_with
            if starts is not None and record.cells and record.cells[0].strip().startswith(starts):
                break
            held.append(record)
            if len(held) > layout.footer_rows:
                yield held.popleft()


def _header(record: Record | None, name: str) -> list[str]:
    if record is None:
        raise FileUnreadable(f"{name}: is empty: a header with the names of the columns was expected")
    if record.problem is not None:
        raise FileUnreadable(f"{name}:{record.line}: the header cannot be read: {record.problem}")
    return [cell.strip() for cell in record.cells]


class _Table:
    """Where the columns of a mapping stand in one file."""

    def __init__(
        self, mapping: CsvMapping, header: list[str] | None, name: str, line: int, width: int | None = None
    ) -> None:
        self._header = header
        self._where = f"{name}:{line}"
        self._delimiter = mapping.file.delimiter
        self.width = len(header) if header is not None else width or 0

    def place(self, column: str | int) -> int:
        """Return the place of a column, from 0.

        Raises:
            FileUnreadable: there is none, or there are several.
        """
        if isinstance(column, int):
            if column > self.width:
                raise FileUnreadable(f"{self._where}: has {self.width} columns, but the mapping names number {column}")
            return column - 1
        if self._header is None:
            raise FileUnreadable(
                f"{self._where}: the file has no header, so columns are named by number, not {column!r}"
            )
        places = [place for place, name in enumerate(self._header) if name == column]
        if len(places) == 1:
            return places[0]
        if places:
            numbers = " and ".join(str(place + 1) for place in places)
            raise FileUnreadable(f"{self._where}: several columns are named {column!r}; name it by number: {numbers}")
        found = ", ".join(repr(one) for one in self._header if one)
        hint = "" if self.width > 1 else f"; is {self._delimiter!r} the delimiter (`file.delimiter`)?"
        raise FileUnreadable(f"{self._where}: there is no column {column!r}; there are {found}{hint}")


class _Maker:
    """Makes the events of one file."""

    def __init__(self, mapping: CsvMapping, table: _Table, occurrences: Occurrences) -> None:
        self._source = mapping.source
        self._width = table.width
        self._occurrences = occurrences
        self._ignored = [(table.place(one.column), frozenset(one.values)) for one in mapping.ignore]
        self._id = (
            self._hashed(mapping.id, table) if isinstance(mapping.id, RowHash) else _needed("id", mapping.id, table)
        )
        self._record = _reader("record", mapping.record, table) if mapping.record else None
        self._time = _time_reader(mapping.occurred_at, table)
        self._amount = _amount_reader(mapping.amount, table) if mapping.amount else None
        self._absolute = mapping.amount is not None and mapping.amount.absolute
        self._type: Callable[[list[str], Decimal | None], str | None] = _type_reader(mapping.type, table)
        self._texts = {
            name: _reader(name, given, table)
            for name in ("currency", "status", "account")
            if (given := getattr(mapping, name)) is not None
        }
        self._refs = {name: _reader(f"refs.{name}", given, table) for name, given in mapping.refs.items()}
        self._attrs = {name: _reader(f"attrs.{name}", given, table) for name, given in mapping.attrs.items()}

    def row(self, record: Record) -> Row | None:
        """Return what a record says; None: the mapping ignores it."""
        if record.problem is not None:
            return Row(record.line, RowError(record.problem))
        cells = record.cells
        if len(cells) != self._width:
            if len(cells) < self._width or any(cell.strip() for cell in cells[self._width :]):
                return Row(record.line, RowError(wrong_width(len(cells), self._width)))
            cells = cells[: self._width]
        if any(cells[place].strip() in values for place, values in self._ignored):
            return None
        try:
            return Row(record.line, [self._event(cells)])
        except (RowUnreadable, EventRefused) as error:
            return Row(record.line, RowError(str(error)))

    def _event(self, cells: list[str]) -> PostedEvent:
        # Before anything may fail: how often such a row has stood here must not depend on what the mapping makes of it.
        id_ = self._id(cells)
        amount = self._amount(cells) if self._amount else None
        fields: dict[str, Any] = {
            "source": self._source,
            "type": self._type(cells, amount),
            "id": id_,
            "occurred_at": self._time(cells),
            "refs": _filled(self._refs, cells),
            "attrs": _filled(self._attrs, cells),
            **_filled(self._texts, cells),
        }
        if self._record is not None and (named := self._record(cells)) is not None:
            fields["record"] = named
        if "currency" in fields:
            fields["currency"] = fields["currency"].upper()
        if amount is not None:
            fields["amount"] = format_amount(abs(amount) if self._absolute else amount, fields.get("currency"))
        return convert_posted(fields)

    def _hashed(self, made_of: RowHash, table: _Table) -> Reader:
        columns = range(table.width) if made_of.hash == "row" else [table.place(one) for one in made_of.hash]
        places = list(columns)

        def read(cells: list[str]) -> str:
            digest = hashlib.sha256(canonical([cells[place].strip() for place in places])).digest()
            occurrence = self._occurrences.next(digest)
            return f"{digest.hex()[:HASH_HEX_DIGITS]}-{occurrence}"

        return read


def _filled(readers: dict[str, Reader], cells: list[str]) -> dict[str, str]:
    return {name: value for name, read in readers.items() if (value := read(cells))}


def _reader(field: str, given: str | FromColumns, table: _Table) -> Reader:
    """Return what reads a text of a row."""
    if isinstance(given, str):
        fixed = given
        return lambda _cells: fixed
    places = [table.place(name) for name in given.names]
    pattern = re.compile(given.pattern) if given.pattern else None
    values, default, join = given.values, given.default, given.join
    title = _title(given)

    def read(cells: list[str]) -> str | None:
        text = join.join(filter(None, (cells[place].strip() for place in places)))
        if pattern is not None:
            found = pattern.search(text)
            text = "" if found is None else (found.group(pattern.groups) or "")
        if values is not None and text not in values and default is None:
            raise _unknown(field, title, text, values)
        if values is not None:
            text = values.get(text, default or "")
        text = text or default or ""
        if len(text) > VALUE_LENGTH_MAX:
            raise RowUnreadable(f"{field}: {title} holds {len(text)} characters; {VALUE_LENGTH_MAX} are allowed")
        return text or None

    return read


def _unknown(field: str, title: str, text: str, values: dict[str, str]) -> RowUnreadable:
    known = ", ".join(repr(one) for one in values)
    return RowUnreadable(f"{field}: {title} holds {text!r}; the mapping knows {known} (add it, or a `default`)")


def _needed(field: str, given: FromColumns, table: _Table) -> Reader:
    read, title = _reader(field, given, table), _title(given)

    def needed(cells: list[str]) -> str:
        value = read(cells)
        if value is None:
            raise RowUnreadable(f"{field}: {title} is empty")
        return value

    return needed


def _title(given: FromColumns) -> str:
    names = [f"column {name!r}" if isinstance(name, str) else f"column {name}" for name in given.names]
    return " and ".join(names)


def _type_reader(given: str | BySign | FromColumns, table: _Table) -> Callable[[list[str], Decimal | None], str | None]:
    if not isinstance(given, BySign):
        read = _reader("type", given, table) if isinstance(given, str) else _needed("type", given, table)
        return lambda cells, _amount: read(cells)
    credit, debit = given.credit, given.debit
    return lambda _cells, amount: debit if amount is not None and amount < 0 else credit


def _time_reader(given: TimeColumns, table: _Table) -> Callable[[list[str]], datetime]:
    read, title = _needed("occurred_at", given, table), _title(given)
    zone = ZoneInfo(given.zone) if given.zone else None

    def time(cells: list[str]) -> datetime:
        text = read(cells) or ""
        for form in given.formats:
            try:
                found = _time(text, form)
            except (ValueError, OverflowError):
                continue
            if found.tzinfo is not None:
                return found.astimezone(UTC)
            if zone is None:
                raise RowUnreadable(f"occurred_at: {title} holds {text!r}, which names no zone; set `occurred_at.zone`")
            return found.replace(tzinfo=zone).astimezone(UTC)
        raise RowUnreadable(f"occurred_at: {title} holds {text[:60]!r}, which is none of {', '.join(given.formats)}")

    return time


def _time(text: str, form: str) -> datetime:
    if form == ISO:
        return datetime.fromisoformat(text)
    if form == UNIX:
        seconds, _, fraction = text.partition(".")
        # Through whole numbers: a float would move the microseconds.
        return EPOCH + timedelta(seconds=int(seconds), microseconds=int(fraction[:6].ljust(6, "0") or 0))
    return datetime.strptime(text, form)  # noqa: DTZ007 - the zone is set by the caller


def _amount_reader(given: AmountColumns, table: _Table) -> Callable[[list[str]], Decimal | None]:
    form = AmountForm(given.decimal, given.thousands, given.strip)

    def value(cells: list[str], place: int) -> Decimal | None:
        text = cells[place].strip()
        if not text:
            return None
        try:
            return form.read(text)
        except AmountUnreadable as error:
            raise RowUnreadable(f"amount: {error}") from None

    read = _one_column(given, table, value) if given.column is not None else _two_columns(given, table, value)
    if not given.flip:
        return read

    def flipped(cells: list[str]) -> Decimal | None:
        amount = read(cells)
        return -amount if amount else amount

    return flipped


_ValueAt = Callable[[list[str], int], Decimal | None]


def _one_column(given: AmountColumns, table: _Table, value: _ValueAt) -> Callable[[list[str]], Decimal | None]:
    assert given.column is not None
    place, flag = table.place(given.column), given.flag
    if flag is None:
        return lambda cells: value(cells, place)
    at = table.place(flag.column)
    signs = dict.fromkeys(flag.credit, 1) | dict.fromkeys(flag.debit, -1)

    def flagged(cells: list[str]) -> Decimal | None:
        amount = value(cells, place)
        if amount is None:
            return None
        sign = signs.get(cells[at].strip())
        if sign is None:
            known: Sequence[str] = list(signs)
            raise RowUnreadable(
                f"amount: column {flag.column!r} holds {cells[at].strip()!r}, which tells no direction; "
                f"the mapping knows {', '.join(repr(one) for one in known)}"
            )
        if amount < 0:
            raise RowUnreadable(f"amount: {amount} carries a minus and a direction in column {flag.column!r}")
        return amount if sign > 0 or not amount else -amount

    return flagged


def _two_columns(given: AmountColumns, table: _Table, value: _ValueAt) -> Callable[[list[str]], Decimal | None]:
    assert given.credit is not None
    assert given.debit is not None
    credit_at, debit_at = table.place(given.credit), table.place(given.debit)
    is_negative = given.debit_written == "negative"

    def directed(cells: list[str]) -> Decimal | None:
        credit, debit = value(cells, credit_at), value(cells, debit_at)
        if credit and debit:
            raise RowUnreadable(f"amount: columns {given.credit!r} and {given.debit!r} both hold an amount")
        if credit is not None and credit < 0:
            raise RowUnreadable(f"amount: {credit} in column {given.credit!r} carries a minus")
        if debit and (debit < 0) != is_negative:
            written = "`positive`: set it to `negative`" if not is_negative else "`negative`"
            raise RowUnreadable(
                f"amount: {debit} in column {given.debit!r}, though `amount.debit_written` is {written}"
            )
        if debit:
            return debit if is_negative else -debit
        return credit if credit is not None else debit

    return directed

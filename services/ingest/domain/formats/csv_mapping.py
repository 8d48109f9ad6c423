"""The mapping file of `--as csv`: which column means what, validated before a row is read."""

import codecs
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictStr,
    Tag,
    ValidationError,
)
from pydantic import model_validator as validator
from pydantic_core import ErrorDetails

from services.ingest.domain.formats.amount_text import THOUSANDS
from shared.contracts.event import EventRefused, convert_posted
from shared.errors import UsageError
from shared.money import is_currency
from shared.strict_yaml import parse_yaml

ROWS_MAX = 1000
"""Lines before a header or after the last row: a preamble, not half of the file."""
ISO = "iso"
UNIX = "unix"
_DATE_WORDS = f"`{ISO}`, `{UNIX}` (seconds since 1970) or a format like %d.%m.%Y %H:%M"
_SAMPLE = datetime(2026, 11, 27, 22, 45, 59, tzinfo=UTC)


class MappingInvalid(UsageError):
    """The mapping file has errors; a line for each, with file and field."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _column(value: Any) -> Any:
    if (
        isinstance(value, bool)
        or not isinstance(value, str | int)
        or value == ""
        or (isinstance(value, int) and value < 1)
    ):
        msg = f"name a column of the header, or its number from 1 (got {value!r})"
        raise ValueError(msg)
    return value


ColumnName = Annotated[str | int, BeforeValidator(_column)]


def _one_character(value: str) -> str:
    if value == "tab":
        return "\t"
    if len(value) != 1 or value in "\r\n":
        msg = f'must be one character, or "tab" (got {value!r})'
        raise ValueError(msg)
    return value


def _encoding(value: str) -> str:
    try:
        info = codecs.lookup(value)
    except LookupError:
        info = None
    if info is None or not getattr(info, "_is_text_encoding", True):
        msg = f"{value!r} is no encoding of text that Python knows; e.g. utf-8, cp1252, iso-8859-15, utf-16"
        raise ValueError(msg)
    return value


def _pattern(value: str) -> str:
    try:
        compiled = re.compile(value)
    except re.error as error:
        msg = f"{value!r} is no regular expression: {error}"
        raise ValueError(msg) from None
    if compiled.groups > 1:
        msg = f"{value!r} has {compiled.groups} groups; one says what is taken, others are written (?:…)"
        raise ValueError(msg)
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        msg = (
            f"{value!r} is no time zone; write a name of the IANA database, e.g. Europe/Berlin, America/New_York or UTC"
        )
        raise ValueError(msg) from None
    return value


def _date_format(value: str) -> str:
    if value in {ISO, UNIX}:
        return value
    if "%" not in value:
        msg = f"{value!r} is no date format: use {_DATE_WORDS}"
        raise ValueError(msg)
    try:
        read = datetime.strptime(_SAMPLE.strftime(value), value)  # noqa: DTZ007 - only to try the format
    except (ValueError, re.error) as error:
        msg = f"{value!r} is no date format ({error}): use {_DATE_WORDS}"
        raise ValueError(msg) from None
    if read.date() != _SAMPLE.date():
        msg = f"{value!r} names no whole date: day, month and year are needed (%d, %m, %Y)"
        raise ValueError(msg)
    return value


OneCharacter = Annotated[StrictStr, AfterValidator(_one_character)]
Word = Annotated[StrictStr, Field(min_length=1)]


class Layout(Strict):
    """How the file is written."""

    encoding: Annotated[StrictStr, AfterValidator(_encoding)] = "utf-8"
    delimiter: OneCharacter = ","
    quote: OneCharacter | None = '"'
    escape: OneCharacter | None = None
    skip_rows: Annotated[int, Field(ge=0, le=ROWS_MAX)] = 0
    """Lines before the header."""
    header: bool = True
    """Without one columns are named by their number."""
    footer_rows: Annotated[int, Field(ge=0, le=ROWS_MAX)] = 0
    """Records at the end that are no rows."""
    footer_starts_with: Word | None = None
    """From the first record on whose first cell starts so, nothing is read."""

    @validator(mode="after")
    def _differ(self) -> Self:
        if self.quote == self.delimiter:
            msg = f"quote: {self.quote!r} is the delimiter as well; write `quote: null` where nothing is quoted"
            raise ValueError(msg)
        return self


class FromColumns(Strict):
    """What stands in one column, or in several joined."""

    column: ColumnName | None = None
    columns: Annotated[list[ColumnName], Field(min_length=1)] | None = None
    join: StrictStr = " "
    pattern: Annotated[StrictStr, AfterValidator(_pattern)] | None = None
    """Regular expression to be found in it; its group, else all that it finds, is taken. Not found: as if empty."""
    values: dict[StrictStr, StrictStr] | None = None
    """What stands there to what it means; anything else is an error of the row, unless `default` says what it means."""
    default: StrictStr | None = None

    @validator(mode="after")
    def _says_where(self) -> Self:
        if (self.column is None) == (self.columns is None):
            msg = "name either `column` or `columns`"
            raise ValueError(msg)
        return self

    @property
    def names(self) -> list[str | int]:
        """The columns that are read."""
        return [self.column] if self.column is not None else list(self.columns or ())


class BySign(Strict):
    """A type that the sign of the amount tells: `{credit: movement.credit, debit: movement.debit}`. Zero is a credit."""

    credit: Word
    debit: Word


class RowHash(Strict):
    """An id made of what stands in the row: the hash of its cells and how often such a row has stood in the file."""

    hash: Literal["row"] | Annotated[list[ColumnName], Field(min_length=1)]
    """`row` for all cells; columns where others change between two exports of the same movement."""


class Flag(Strict):
    """A column that tells a debit from a credit."""

    column: ColumnName
    credit: Annotated[list[Word], Field(min_length=1)]
    debit: Annotated[list[Word], Field(min_length=1)]

    @validator(mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {k: [v] if k in {"credit", "debit"} and isinstance(v, str) else v for k, v in value.items()}


class AmountColumns(Strict):
    """Where the amount stands and how it is printed: one column with a sign or a flag, or a column for each direction."""

    column: ColumnName | None = None
    flag: Flag | None = None
    """The column has no sign; this one tells the direction."""
    credit: ColumnName | None = None
    debit: ColumnName | None = None
    debit_written: Literal["positive", "negative"] = "positive"
    """Whether amounts in the debit column carry a minus."""
    decimal: Literal[".", ","] = "."
    thousands: StrictStr | None = None
    strip: tuple[Word, ...] = ()
    flip: bool = False
    """The file's plus is our minus, as on statements of credit cards."""
    absolute: bool = False
    """The type says the direction, so the amount has no sign."""

    @validator(mode="after")
    def _one_way(self) -> Self:
        by_direction = self.credit is not None or self.debit is not None
        if (self.column is not None) == by_direction:
            msg = "name `column` (signed, or with `flag`), or `credit` and `debit`"
            raise ValueError(msg)
        if by_direction and (self.credit is None or self.debit is None):
            msg = "`credit` and `debit` stand for each other: name both columns"
            raise ValueError(msg)
        if by_direction and self.flag is not None:
            msg = "flag: tells the direction of `column`; with `credit` and `debit` the columns tell it"
            raise ValueError(msg)
        if self.thousands is not None and self.thousands not in THOUSANDS:
            msg = f"thousands: must be one of {', '.join(repr(one) for one in THOUSANDS)} (got {self.thousands!r})"
            raise ValueError(msg)
        if self.thousands == self.decimal:
            msg = f"thousands: {self.thousands!r} is the decimal sign as well"
            raise ValueError(msg)
        return self

    @property
    def names(self) -> list[str | int]:
        """The columns that are read."""
        given = (self.column, self.credit, self.debit, self.flag.column if self.flag else None)
        return [name for name in given if name is not None]


class TimeColumns(FromColumns):
    """When it happened: formats that are tried in order, and the zone of times that carry none."""

    formats: Annotated[list[Annotated[StrictStr, AfterValidator(_date_format)]], Field(min_length=1)] = [ISO]
    zone: Annotated[StrictStr, AfterValidator(_zone)] | None = None

    @validator(mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("formats"), str):
            return {**value, "formats": [value["formats"]]}
        return value

    @validator(mode="after")
    def _has_zone(self) -> Self:
        without = [one for one in self.formats if one not in {ISO, UNIX} and "%z" not in one]
        if without and self.zone is None:
            msg = f"zone: is missing: {without[0]!r} reads no zone; write e.g. `zone: Europe/Berlin`"
            raise ValueError(msg)
        return self


class Ignored(Strict):
    """Rows that are no movements, e.g. pending ones that the bank will print again with another text."""

    column: ColumnName
    values: Annotated[list[StrictStr], Field(min_length=1)]


def _form(value: Any) -> str | None:
    """Tell the form of a field by what is written, so that an error speaks about that form only."""
    if isinstance(value, str):
        return "fixed"
    if not isinstance(value, dict):
        return None
    keys = set(value)
    if "hash" in keys:
        return "hashed"
    return "signed" if keys & {"credit", "debit"} else "columns_"


_Fixed = Annotated[StrictStr, Field(min_length=1), Tag("fixed")]
_Columns = Annotated[FromColumns, Tag("columns_")]
"""The tag is not `columns`, which is a name that a file may hold: tags are left out of what errors say."""
_Form = Discriminator(_form, custom_error_type="form", custom_error_message="must be a fixed text or {column: NAME}")
Text = Annotated[_Fixed | _Columns, _Form]
"""A fixed text, or where it stands."""
Type = Annotated[_Fixed | Annotated[BySign, Tag("signed")] | _Columns, _Form]
Id = Annotated[
    Annotated[RowHash, Tag("hashed")] | _Columns,
    Discriminator(
        _form,
        custom_error_type="form",
        custom_error_message="must be {column: NAME}, {columns: [...]} or {hash: row} where rows have no id",
    ),
]


class CsvMapping(Strict):
    """A mapping file."""

    version: Literal[1]
    file: Layout = Layout()
    source: StrictStr
    type: Type
    id: Id
    record: FromColumns | None = None
    occurred_at: TimeColumns
    amount: AmountColumns | None = None
    currency: Text | None = None
    status: Text | None = None
    account: Text | None = None
    refs: dict[StrictStr, Text] = {}
    attrs: dict[StrictStr, Text] = {}
    ignore: list[Ignored] = []

    @validator(mode="after")
    def _makes_events(self) -> Self:
        if isinstance(self.type, BySign) and self.amount is None:
            msg = "type: credit and debit are told by the amount, but `amount` is missing"
            raise ValueError(msg)
        if isinstance(self.type, BySign) and self.amount is not None and self.amount.absolute:
            msg = "amount.absolute: takes away the sign that `type` is told by; leave one of them out"
            raise ValueError(msg)
        if self.amount is not None and self.currency is None:
            msg = "currency: is missing: an amount without one says nothing; write a code or {column: NAME}"
            raise ValueError(msg)
        if isinstance(self.currency, str) and not is_currency(self.currency):
            msg = f"currency: {self.currency!r} is no ISO 4217 code and no token that tieout knows"
            raise ValueError(msg)
        for type_ in self.types:
            _check_words(self.source, type_)
        return self

    @property
    def types(self) -> list[str]:
        """The types that rows may get, as far as the mapping says."""
        if isinstance(self.type, str):
            return [self.type]
        if isinstance(self.type, BySign):
            return [self.type.credit, self.type.debit]
        named = [*(self.type.values or {}).values(), self.type.default]
        return [type_ for type_ in named if type_ is not None]


def _check_words(source: str, type_: str) -> None:
    try:
        convert_posted({"source": source, "type": type_, "id": "x", "occurred_at": _SAMPLE})
    except EventRefused as refused:
        msg = f"{refused} (got {source if refused.field == 'source' else type_!r})"
        raise ValueError(msg) from None


def parse_mapping(text: str, name: str) -> CsvMapping:
    """Read and validate a mapping; `name` is what errors call it.

    Raises:
        MappingInvalid: with every problem found, a line each: file, field, and what is allowed.
    """
    document = parse_yaml(text, name)
    if not isinstance(document, dict):
        raise MappingInvalid(f"{name}: must be a mapping with version, source, type, id and occurred_at")
    try:
        return CsvMapping.model_validate(document)
    except ValidationError as error:
        raise MappingInvalid("\n".join(dict.fromkeys(f"{name}: {_problem(one)}" for one in error.errors()))) from None


def _problem(detail: ErrorDetails) -> str:
    field = ".".join(str(part) for part in detail["loc"] if not _is_branch(part))
    message = detail["msg"].removeprefix("Value error, ")
    match detail["type"]:
        case "extra_forbidden":
            message = "is no field of a mapping; remove it or check its spelling"
        case "missing":
            message = "is missing"
        case "literal_error":
            message = f"{message} (got {detail['input']!r})"
    return f"{field}: {message}" if field else message


def _is_branch(part: str | int) -> bool:
    """Tell pydantic's names of forms that a field may have from names in the file."""
    return isinstance(part, str) and (
        part in {"fixed", "columns_", "signed", "hashed"} or part.startswith(("function-", "literal[", "list["))
    )

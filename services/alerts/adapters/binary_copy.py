"""Items and their records as PostgreSQL's binary COPY takes them: nearly all that a sink stores.

The driver asks a codec for each value of a row; here a row is put together of a few pieces, most of them made before.
Source: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
"""

from binascii import unhexlify
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from struct import Struct
from typing import Any

import asyncpg
import msgspec

from services.alerts.domain.settled import ArrivedItem
from shared.contracts.event import EPOCH
from shared.contracts.matched_pair import PlainMatch

ROWS_AT_ONCE = 250
"""Rows that are sent together: PostgreSQL takes them in while the next ones are made."""
_UUID_BYTES = 16
_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_JSONB = b"\x01"
"""The version that the text of a JSONB value begins with."""
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_TRUE, _FALSE = b"\0\0\0\1\1", b"\0\0\0\1\0"
_MICROSECOND = timedelta(microseconds=1)
_EPOCH_MICROS = (_EPOCH - EPOCH) // _MICROSECOND
_WORDS_REMEMBERED_MAX = 10_000
"""Combinations of what is the same for many rows; a bound, since organisations choose some of it."""

_json = msgspec.json.Encoder().encode
_length = Struct(">i").pack
_time = Struct(">iq").pack
_NOTHING_RAISED = Struct(">i").pack(3) + _JSONB + b"[]"

ITEM_COLUMNS = (
    "id", "group_id", "log_partition", "log_offset", "log_time", "revision", "at", "sides", "key", "occurred_at", "org",
    "rule", "pack", "status", "live", "shadow", "confidence", "last", "fresh", "discrepancies", "reasons",
)  # fmt: skip
RECORD_COLUMNS = ("record_id", "live", "item_id", "group_id", "org")
_item_start = Struct(">hi16si16siiiqiqiiiqi").pack
_RECORD_START = Struct(">hi").pack(len(RECORD_COLUMNS), 16)
_record_end = Struct(">i16si16s").pack


async def copy_rows(
    driver: "asyncpg.Connection[Any]", table: str, columns: Sequence[str], rows: Iterable[bytes]
) -> None:
    """COPY `rows`, each made by one of the functions below, into `columns` of `table`."""
    await driver.copy_to_table(table, source=_stream(iter(rows)), columns=list(columns), format="binary")


async def _stream(rows: Iterable[bytes]) -> AsyncIterator[bytes]:
    yield _HEADER
    while some := b"".join(islice(rows, ROWS_AT_ONCE)):
        yield some
    yield _TRAILER


def item_row(arrived: ArrivedItem, *, last: bool, fresh: bool) -> bytes:
    """Return an item's row of `ITEM_COLUMNS`."""
    told = arrived.told
    if isinstance(told, PlainMatch):
        return _plain_match_row(told, arrived.group_id, last=last, fresh=fresh)
    log, occurred_at, raised = told.log, told.occurred_at, _json(told.discrepancies)
    key, sides = _json(told.key), _json(told.sides)
    return b"".join(
        (
            _item_start(
                len(ITEM_COLUMNS), 16, _uuid(told.id), 16, _uuid(arrived.group_id), 4, log.partition, 8, log.offset,
                8, _micros(log.time), 4, told.revision, 8, _micros(told.at), len(sides),
            ),
            sides,
            _jsonb(key),
            _NULL if occurred_at is None else _time(8, _micros(occurred_at)),
            _words(told.org, told.rule, told.pack, told.status, told.live, told.shadow, told.confidence, last, fresh),
            _jsonb(raised),
            _jsonb(_json(told.reasons)) if told.reasons else _NULL,
        )
    )  # fmt: skip


def _plain_match_row(told: PlainMatch, group_id: str, *, last: bool, fresh: bool) -> bytes:
    """Return the same for the item of a plain match, which is not written out for it."""
    key, sides = _json(told.key), _json(told.sides)
    return b"".join(
        (
            _item_start(
                len(ITEM_COLUMNS), 16, _uuid(told.id), 16, _uuid(group_id), 4, told.log_partition, 8, told.log_offset,
                8, told.log_time - _EPOCH_MICROS, 4, 1, 8, told.at - _EPOCH_MICROS, len(sides),
            ),
            sides,
            _jsonb(key),
            _time(8, told.occurred_at - _EPOCH_MICROS),
            _words(told.org, told.rule, told.pack, "matched", True, False, None, last, fresh),
            _NOTHING_RAISED,
            _NULL,
        )
    )  # fmt: skip


@lru_cache(_WORDS_REMEMBERED_MAX)
def _words(*words: str | bool | None) -> bytes:
    """Return the columns of an item that are the same for nearly all of a rule's."""
    return b"".join(map(_word, words))


def record_rows(arrived: ArrivedItem, records: Mapping[str, bool]) -> bytes:
    """Return the rows of `RECORD_COLUMNS` of an item's records, given by id and whether each counts."""
    end = _record_end(16, _uuid(arrived.id), 16, _uuid(arrived.group_id)) + _word(arrived.told.org)
    return b"".join([_RECORD_START + _uuid(id_) + (_TRUE if live else _FALSE) + end for id_, live in records.items()])


@lru_cache(_WORDS_REMEMBERED_MAX)
def _word(value: str | bool | None) -> bytes:
    if value is None:
        return _NULL
    if isinstance(value, bool):
        return _TRUE if value else _FALSE
    return _field(value.encode())


def _field(value: bytes) -> bytes:
    return _length(len(value)) + value


def _jsonb(text: bytes) -> bytes:
    return _field(_JSONB + text)


def _uuid(id_: str) -> bytes:
    value = unhexlify(id_.replace("-", ""))
    if len(value) != _UUID_BYTES:  # `Struct` would fill it up
        raise ValueError(f"{id_!r} is no UUID")
    return value


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND

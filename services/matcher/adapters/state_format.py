"""Records of the topic `matcher-state`: one version byte, then a msgpack array.

A transaction writes one record, or several where its entries do not fit into one; a large value goes on in the next
record. Each carries the next input offset, so the last record that was committed tells where to go on.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

import msgspec

from services.matcher.domain.compiled import pack_entries
from services.matcher.ports import NO_MARK, CheckpointHead, Entry, Mark, StateRecord
from shared.errors import TieoutError

VERSION = 1
RECORD_BYTES_MAX = 600_000
"""Of entries per record: well below the broker's limit for a batch (1 MB)."""
ENTRY_OVERHEAD_BYTES = 12

SNAPSHOT = 1
FIRST = 2
LAST = 4
CONTINUED = 8
"""The last entry's value goes on in the next record."""


class UnknownStateVersion(TieoutError):
    """The state was written by a newer build."""


class _Record(msgspec.Struct, array_like=True, gc=False):
    next_offset: int
    flags: int
    entries: list[tuple[bytes, bytes]]
    mark: tuple[int, int] = (-1, 0)
    head: tuple[int, int, int] | None = None
    base: int = 0
    partitions: int = 0


_PREFIX = bytes([VERSION])
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Record).decode


def encode_changes(
    next_offset: int, entries: Sequence[Entry], mark: Mark = NO_MARK, base: int = 0, partitions: int = 0
) -> list[bytes]:
    """Return the records for the changes of one transaction; at least one, for the offset."""
    plain = (mark[0], mark[1])
    return [
        _PREFIX + _encode(_Record(next_offset, flags, piece, plain, None, base, partitions))
        for piece, flags in _pieces(entries)
    ]


def encode_slice(
    next_offset: int,
    entries: Sequence[Entry],
    *,
    first: bool,
    last: bool,
    mark: Mark = NO_MARK,
    head: CheckpointHead | None = None,
    base: int = 0,
    partitions: int = 0,
) -> list[bytes]:
    """Return the records for a slice of a snapshot or, with a `head` before its first one, of a checkpoint."""
    plain = (mark[0], mark[1])
    records = [
        _Record(next_offset, flags | SNAPSHOT, piece, plain, None, base, partitions)
        for piece, flags in _pieces(entries)
    ]
    if first:
        records[0].flags |= FIRST
        if head is not None:
            records[0].head = (head.core_version, head.made_by, head.log_time)
    if last:
        records[-1].flags |= LAST
    return [_PREFIX + _encode(record) for record in records]


def _pieces(entries: Sequence[Entry]) -> Iterator[tuple[list[Entry], int]]:
    """Yield entries that fit into a record together, and its flags; none at all make one piece."""
    packed = pack_entries(entries, ENTRY_OVERHEAD_BYTES, RECORD_BYTES_MAX)
    if packed is not None:
        for piece in packed:
            yield msgspec.Raw(piece), 0  # type: ignore[misc]  # the list, as it is encoded
        return
    sizes = [len(key) + len(value) + ENTRY_OVERHEAD_BYTES for key, value in entries]
    if max(sizes, default=0) > RECORD_BYTES_MAX:
        yield from _pieces_of_large(entries)
        return
    ends = list(accumulate(sizes))
    begin = filled = 0
    while True:
        end = bisect_right(ends, filled + RECORD_BYTES_MAX, begin)
        yield list(entries[begin:end]), 0
        if end == len(ends):
            return
        begin, filled = end, ends[end - 1]


def _pieces_of_large(entries: Sequence[Entry]) -> Iterator[tuple[list[Entry], int]]:
    """Do the same where a value does not fit into one record."""
    piece: list[Entry] = []
    room = RECORD_BYTES_MAX
    for key, whole in entries:
        value = whole
        needed = len(key) + len(value) + ENTRY_OVERHEAD_BYTES
        if needed > room and piece:
            yield piece, 0
            piece, room = [], RECORD_BYTES_MAX
        while needed > room:
            fits = room - len(key) - ENTRY_OVERHEAD_BYTES
            yield [(key, value[:fits])], CONTINUED
            value = value[fits:]
            needed = len(key) + len(value) + ENTRY_OVERHEAD_BYTES
        piece.append((key, value))
        room -= needed
    yield piece, 0


def next_place_of(value: bytes) -> int:
    """Return the place in the log of the input offset to go on from that a record tells.

    Raises:
        UnknownStateVersion: written by a newer build.
        msgspec.MsgspecError: no state record.
    """
    record = _decode(_body(value, "the last record"))
    return record.next_offset + record.base


def next_offset_of(value: bytes) -> int:
    """Return the next input offset that a record tells.

    Raises:
        UnknownStateVersion: written by a newer build.
        msgspec.MsgspecError: no state record.
    """
    next_offset: int = _decode(_body(value, "the last record")).next_offset
    return next_offset


def _body(value: bytes, place: str) -> bytes:
    if value[0] != VERSION:
        raise UnknownStateVersion(
            f"matcher-state, {place}: version {value[0]}, this build reads {VERSION}; deploy the newer matcher"
        )
    return value[1:]


class StateReader:
    """Reads records in order and joins values that were cut."""

    def __init__(self) -> None:
        self._begun = b""

    def read(self, offset: int, value: bytes) -> StateRecord:
        """Read one record.

        Raises:
            UnknownStateVersion: written by a newer build.
            msgspec.MsgspecError: no state record.
        """
        record = _decode(_body(value, f"offset {offset}"))
        entries: list[Entry] = record.entries
        if self._begun:
            key, rest = entries[0]
            entries[0] = (key, self._begun + rest)
            self._begun = b""
        if record.flags & CONTINUED:
            self._begun = entries.pop()[1]
        return StateRecord(
            offset=offset,
            next_offset=record.next_offset,
            entries=entries,
            size_bytes=len(value),
            snapshot=bool(record.flags & SNAPSHOT),
            first=bool(record.flags & FIRST),
            last=bool(record.flags & LAST),
            mark=Mark(*record.mark),
            head=CheckpointHead(*record.head) if record.head else None,
            partitions=record.partitions,
        )

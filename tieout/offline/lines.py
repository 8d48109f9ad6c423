"""Event files as one stream in order of receipt, in bounded memory whatever their size and order."""

import heapq
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

import msgspec

from shared.contracts.event import EventRefused, PostedEvent, decode_posted
from shared.errors import UsageError

LINE_MAX_BYTES = 1_000_000
"""A line longer than this is no event."""
RUN_LINES = 50_000
"""Lines that are sorted in memory at once, where a file is not in order of receipt; about 50 MB."""


class Place(NamedTuple):
    """A line of a file, as people write it."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Line(NamedTuple):
    """A readable event and where it stands."""

    received_at: datetime
    place: Place
    posted: PostedEvent


Complain = Callable[[Place, str], None]
"""Called with the place and `refused: …` or `dead letter: …`."""


class EventFiles:
    """Files of events, merged by receipt (`received_at`, else `occurred_at`).

    Ties keep the order of the files, then of the lines. Each file is read twice: first for the times alone, so that a file
    in order needs no sorting; others are sorted in runs on disk. What cannot be read twice (a pipe) is copied first.
    Raises `UsageError` when a file cannot be read.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._stack = ExitStack()
        self._files: list[_File] = []

    def __enter__(self) -> Self:
        with self._stack:
            self._files = [_look(path, self._stack) for path in self._paths]
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __len__(self) -> int:
        """Lines that are not empty, readable or not."""
        return sum(file.lines for file in self._files)

    def read(self, complain: Complain) -> Iterator[Line]:
        """Yield every event; lines that are none are complained about."""
        streams = [file.read(complain) for file in self._files]
        return streams[0] if len(streams) == 1 else heapq.merge(*streams, key=_received)


def unnamed_file(stack: ExitStack) -> BinaryIO:
    """Open a file on disk that has no name, so that nothing is left of it, whatever ends the process."""
    return stack.enter_context(tempfile.TemporaryFile())


_received = attrgetter("received_at")


class _Times(msgspec.Struct):
    """What a first look needs of a line."""

    occurred_at: datetime
    received_at: datetime | None = None


_decode_times = msgspec.json.Decoder(_Times).decode
_encode_run = msgspec.msgpack.Encoder().encode
_decode_run = msgspec.msgpack.Decoder(tuple[int, bytes]).decode
_RUN_HEAD_BYTES = 4


class _File(NamedTuple):
    """A file that was looked at once."""

    name: str
    """As the user wrote it."""
    content: BinaryIO
    lines: int
    in_order: bool
    scratch: ExitStack
    """Closes what is opened on the way."""

    def read(self, complain: Complain) -> Iterator[Line]:
        lines = _lines(self, complain)
        return lines if self.in_order else _sorted(lines, self.scratch, self.name)


def _look(path: Path, scratch: ExitStack) -> _File:
    try:
        content: BinaryIO = scratch.enter_context(path.open("rb"))
        if not path.is_file():
            copy = unnamed_file(scratch)
            shutil.copyfileobj(content, copy)
            copy.seek(0)
            content = copy
        lines, in_order, last = 0, True, None
        for _, _, raw in raw_lines(content):
            if not raw.strip():
                continue
            lines += 1
            time = told_time(raw)
            if time is None:
                continue
            in_order = in_order and (last is None or time >= last)
            last = time
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    return _File(str(path), content, lines, in_order, scratch)


def told_time(raw: bytes) -> datetime | None:
    """Return the receipt that a line tells; None where it tells none, and the second look will say why."""
    try:
        times = _decode_times(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    time = times.received_at or times.occurred_at
    return time if time.tzinfo is not None else None


def raw_lines(file: BinaryIO, end: int | None = None) -> Iterator[tuple[int, int, bytes]]:
    """Yield number (from 1), place in the file and content of each line from here on that begins before `end`.

    Of a line that is too long the content is one byte more than is allowed.
    """
    number, place = 0, file.tell()
    while end is None or place < end:
        raw = file.readline(LINE_MAX_BYTES + 1)
        if not raw:
            return
        number += 1
        length, rest = len(raw), raw
        while len(rest) > LINE_MAX_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(LINE_MAX_BYTES + 1)
            length += len(rest)
        yield number, place, raw
        place += length


def _lines(file: _File, complain: Complain) -> Iterator[Line]:
    file.content.seek(0)
    for number, _, raw in raw_lines(file.content):
        line = read_line(raw, Place(file.name, number), complain) if raw.strip() else None
        if line is not None:
            yield line


def read_line(raw: bytes, place: Place, complain: Complain) -> Line | None:
    """Read a line that is not empty; None: it is no event, and was complained about."""
    if len(raw) > LINE_MAX_BYTES:
        complain(place, f"refused: the line is longer than {LINE_MAX_BYTES} bytes")
        return None
    try:
        posted = decode_posted(raw)
    except EventRefused as error:
        complain(place, f"refused: {error}")
        return None
    return Line((posted.received_at or posted.occurred_at).astimezone(UTC), place, posted)


def _sorted(lines: Iterator[Line], scratch: ExitStack, name: str) -> Iterator[Line]:
    """Sort by receipt in runs on disk; equal receipts keep their order, for runs are merged in theirs."""
    runs: list[BinaryIO] = []
    run: list[Line] = []
    for line in lines:
        run.append(line)
        if len(run) >= RUN_LINES:
            runs.append(unnamed_file(scratch))
            _write_run(run, runs[-1])
            run = []
    run.sort(key=_received)
    return heapq.merge(*(_read_run(file, name) for file in runs), run, key=_received)


def _write_run(run: list[Line], file: BinaryIO) -> None:
    run.sort(key=_received)
    encode = msgspec.json.Encoder().encode
    for line in run:
        row = _encode_run((line.place.line, encode(line.posted)))
        file.write(len(row).to_bytes(_RUN_HEAD_BYTES) + row)


def _read_run(file: BinaryIO, name: str) -> Iterator[Line]:
    file.seek(0)
    while head := file.read(_RUN_HEAD_BYTES):
        number, raw = _decode_run(file.read(int.from_bytes(head)))
        posted = decode_posted(raw)
        yield Line((posted.received_at or posted.occurred_at).astimezone(UTC), Place(name, number), posted)

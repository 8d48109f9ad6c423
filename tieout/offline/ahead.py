"""Files read ahead of the core: which events belong to plain pairs that agree, and all lines in order of receipt.

A pair is plain when its key has exactly two events in all of the files, one of either side, and nothing about them is
for the core to judge (see `columns`). Everything that grows with the files is on disk; in memory are one block of
a file, one partition of the legs, and a piece of each stream that is merged.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from shared.errors import UsageError
from shared.rules.model import Rule
from tieout.offline.columns import BLOCK_BYTES, FIRST, LEGS, LINES, SPOILS, Block, Columns
from tieout.offline.lines import LINE_MAX_BYTES, unnamed_file
from tieout.offline.readers import readers

TO_CORE, SETTLED, NO_EVENT = 0, 1, 2
"""What becomes of a line."""
PARTITION_BYTES = 64_000_000
"""Of the files, for each partition of their legs: some 300,000 legs, which take 40 MB to be paired."""
PARTITIONS_MAX = 256
"""As many files are open at once."""
WRITTEN_LEGS = 20_000
"""Legs that are put to their partitions at once, about 1 MB: of one block there are few for each."""
PIECE_LINES = 100_000
"""Lines of a stream that are in memory at once while it is merged."""
SORTED_LINES = 1_000_000
"""Lines of a file out of order that are sorted at once, and then merged; some 60 MB."""

_PLACED = np.dtype([*LINES.descr, ("line", "i8"), ("file", "i4")])
"""A line with its place among all lines, and its file."""


class Passage(NamedTuple):
    """Lines in order of receipt that follow one another."""

    lines: NDArray[Any]
    """`at` in microseconds, `offset`, `number` from 0, `file`."""
    fate: NDArray[np.uint8]


OpenFile = Callable[[], BinaryIO]
"""Opens a scratch file."""


class Ahead:
    """Everything that is known of the files once they have been read ahead."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.lines = 0
        """That are not empty."""
        self.settled = 0
        """Events of plain pairs that agree."""
        self._paths = paths
        self._scratch = ExitStack()
        self._open = partial(unnamed_file, self._scratch)
        self._files: list[_LinesOfFile] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.close()

    def read(
        self,
        packs: Mapping[str, Sequence[Rule]],
        org: str,
        step: Callable[[int, int], None] = lambda _done, _of: None,
        *,
        compiled: bool = True,
    ) -> None:
        """Read all files; `step` is told of bytes read, of bytes in all. `compiled`: by C where it is built."""
        sizes = [_size(path) for path in self._paths]
        legs = _Legs(self._open, min(sum(sizes) // PARTITION_BYTES + 1, PARTITIONS_MAX))
        with readers(packs, org, sum(sizes), compiled=compiled) as read:
            for file, path in enumerate(self._paths):
                self._files.append(_LinesOfFile(file, self._open, self.lines))
                for block, columns in read(_blocks(path)):
                    self._take(columns, legs)
                    step(sum(sizes[:file]) + block.end, sum(sizes))
        self._fate = self._zeros(max(self.lines, 1))
        for settled in legs.settled():
            self._fate[settled] = SETTLED
            self.settled += len(settled)

    def _zeros(self, count: int) -> "NDArray[np.uint8]":
        """Return so many zeros, on disk."""
        file = self._open()
        for begin in range(0, count, PIECE_LINES):  # written, for a disk that is full may not come to light in a map
            file.write(bytes(min(count - begin, PIECE_LINES)))
        file.flush()
        return np.memmap(file, np.uint8, "r+", shape=count)

    def _take(self, columns: Columns, legs: "_Legs") -> None:
        legs.add(columns, self.lines)
        self._files[-1].add(columns)
        self.lines += len(columns.lines)

    def passages(self) -> Iterator[Passage]:
        """Yield all lines in order of receipt, ties by file and line; a line that is no event stands where it is read."""
        streams = [stream for file in self._files for stream in file.streams()]
        for lines in _merged(streams):
            yield Passage(lines, np.where(lines["is_event"], self._fate[lines["line"]], NO_EVENT))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


def _blocks(path: Path) -> Iterator[Block]:
    """Cut a file into blocks of whole lines."""
    try:
        with path.open("rb") as file:
            begin, size = 0, os.fstat(file.fileno()).st_size
            while begin < size:
                file.seek(begin + BLOCK_BYTES - 1)
                while (raw := file.readline(LINE_MAX_BYTES)) and not raw.endswith(b"\n"):
                    pass
                end = min(file.tell(), size)
                yield Block(path, begin, end)
                begin = end
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None


class _LinesOfFile:
    """The lines of one file, on disk."""

    def __init__(self, file: int, open_: OpenFile, first_line: int) -> None:
        self._file = file
        self._open = open_
        self._target = open_()
        self._next_line = first_line
        self._next_number = 0
        self._last_at = self._last_told = FIRST
        self._in_order = True

    def add(self, columns: Columns) -> None:
        """Add the lines of the file's next block."""
        lines = np.empty(len(columns.lines), _PLACED)
        for name in LINES.names or ():
            lines[name] = columns.lines[name]
        at = lines["at"]
        at[at == FIRST] = self._last_at
        lines["number"] += self._next_number
        lines["line"] = np.arange(self._next_line, self._next_line + len(lines))
        lines["file"] = self._file
        if len(lines):
            self._last_at = at[-1]
        told = columns.told[columns.told != FIRST]
        if len(told):
            self._in_order &= bool(told[0] >= self._last_told and (told[1:] >= told[:-1]).all())
            self._last_told = told[-1]
        self._next_line += len(lines)
        self._next_number += columns.lines_in_all
        self._target.write(lines.tobytes())

    def streams(self) -> "list[_Stream]":
        """Return streams in order of receipt, the lines of earlier ones before those of later ones."""
        self._target.seek(0)
        if self._in_order:
            return [_Stream(self._target)]
        found: list[_Stream] = []
        while len(lines := np.fromfile(self._target, _PLACED, SORTED_LINES)):
            lines["at"][~lines["is_event"]] = FIRST  # sorting reads all of the file before the first event goes on
            run = self._open()
            run.write(lines[np.argsort(lines["at"], kind="stable")].tobytes())
            run.seek(0)
            found.append(_Stream(run))
        return found


class _Stream:
    """Lines in order of receipt, read piece by piece."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.piece = np.empty(0, _PLACED)
        self.is_over = False
        self.grow()

    def grow(self) -> None:
        """Read on, behind what is in memory."""
        more = np.fromfile(self._source, _PLACED, PIECE_LINES)
        self.is_over = len(more) < PIECE_LINES
        self.piece = np.concatenate((self.piece, more)) if len(self.piece) else more

    def take(self, before: int | None) -> "NDArray[Any]":
        """Return, and forget, what was received before a time; None: all."""
        count = len(self.piece) if before is None else int(np.searchsorted(self.piece["at"], before))
        taken, self.piece = self.piece[:count], self.piece[count:]
        return taken


def _merged(streams: "list[_Stream]") -> "Iterator[NDArray[Any]]":
    """Merge streams by receipt; ties keep the order of the streams."""
    while streams:
        going_on = [stream for stream in streams if not stream.is_over]
        bound = min((int(stream.piece["at"][-1]) for stream in going_on), default=None)
        taken = np.concatenate([stream.take(bound) for stream in streams])
        if len(taken):
            yield taken[np.argsort(taken["at"], kind="stable")]
        for stream in going_on:
            if not len(stream.piece) or stream.piece["at"][-1] == bound:
                stream.grow()
        streams = [stream for stream in streams if len(stream.piece) or not stream.is_over]


class _Legs:
    """Legs of all files in partitions by group, on disk."""

    def __init__(self, open_: OpenFile, partitions: int) -> None:
        self._files = [open_() for _ in range(partitions)]
        self._keyless: list[NDArray[np.uint64]] = [np.empty(0, np.uint64)]
        self._added: list[NDArray[Any]] = []
        self._count = 0

    def add(self, columns: Columns, first_line: int) -> None:
        """Add the legs of a block whose lines begin at a place among all lines."""
        legs = columns.legs
        legs["line"] += first_line
        if len(columns.keyless):
            self._keyless.append(columns.keyless)
        self._added.append(legs)
        self._count += len(legs)
        if self._count >= WRITTEN_LEGS:
            self._write()

    def _write(self) -> None:
        legs = np.concatenate(self._added) if self._added else np.empty(0, LEGS)
        self._added, self._count = [], 0
        partition = ((legs["group"] >> np.uint64(32)) % np.uint64(len(self._files))).astype(np.uint8)
        legs = legs[np.argsort(partition, kind="stable")]
        ends = np.cumsum(np.bincount(partition, minlength=len(self._files)))
        for file, begin, end in zip(self._files, [0, *ends[:-1]], ends, strict=True):
            file.write(legs[begin:end].tobytes())

    def settled(self) -> "Iterator[NDArray[np.int64]]":
        """Yield the lines of pairs that are plain and agree, partition by partition."""
        self._write()
        keyless = np.unique(np.concatenate(self._keyless))
        for file in self._files:
            file.seek(0)
            legs = np.fromfile(file, LEGS)
            file.close()
            yield _agreeing(legs, keyless)


def _agreeing(legs: "NDArray[Any]", keyless: "NDArray[np.uint64]") -> "NDArray[np.int64]":
    """Return the lines of the legs that settle one another."""

    def both(name: str) -> "tuple[NDArray[Any], NDArray[Any]]":
        column = np.ascontiguousarray(legs[name])
        return column[one], column[other]

    groups = np.ascontiguousarray(legs["group"])
    in_groups = np.argsort(groups)  # of the two legs of a pair either may come first
    groups = groups[in_groups]
    differs = np.concatenate(([True], groups[1:] != groups[:-1], [True])) if len(legs) else np.array([True])
    begins = np.flatnonzero(differs)
    pairs = begins[:-1][np.diff(begins) == 2]
    one, other = in_groups[pairs], in_groups[pairs + 1]
    side, says, status, at = both("side"), both("says"), both("status"), both("at")
    until_ms = np.where(at[0] <= at[1], *both("until_ms"))
    agree = (
        (side[0] != side[1])
        & (side[0] != SPOILS)
        & (side[1] != SPOILS)
        & (says[0] == says[1])
        & ((status[0] == status[1]) | (status[0] == 0) | (status[1] == 0))
        & (np.maximum(*at) // 1000 <= until_ms)
        & (np.minimum(*at) >= 0)  # log time begins in 1970
    )
    if len(keyless):
        for record in both("record"):
            agree &= ~np.isin(record, keyless)
    lines: NDArray[np.int64] = legs["line"][np.concatenate((one[agree], other[agree]))]
    return lines

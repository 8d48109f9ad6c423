"""Files that bots append to, read on from where the last look ended: no line twice, none left out.

A file may be rotated (renamed, compressed, or copied and emptied) between two looks: what was not yet read of the old
one is read first, where it still lies beside the new one. A last line without its line end is left for the next look.
"""

import gzip
from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, cast

import msgspec

CHUNK_BYTES: Final = 1 << 20
"""Read at once: a batch of lines, some thousands."""
LINE_MAX_BYTES: Final = 1_000_000
"""A longer line is none that a bot wrote; of it only the beginning is handed on, which nobody can read."""
LINE_SHOWN_BYTES: Final = 200
HEAD_MAX_BYTES: Final = 4096
"""How much of a file's beginning is compared to know it again."""
SIBLINGS_MAX: Final = 100
"""Rotated files that are looked at, newest first."""


class Position(msgspec.Struct, omit_defaults=True):
    """How far a file has been read, to be stored between two looks."""

    name: str = ""
    """Of the file's content: ids of its lines are made of it, and it stays when the file is renamed."""
    offset: int = 0
    """Of the first byte that was not taken yet."""
    head: str = ""
    """Digest of the file's first `head_bytes` bytes."""
    head_bytes: int = 0
    files: int = 0
    """How many files of this path were read to their end before this one."""
    header: str = ""
    """First line of a table, where it names its columns. The reader of its lines sets it."""
    here: dict[str, int] = {}
    """What the reader of its lines counted in this file, by bot."""
    before: dict[str, int] = {}
    """The same in the files before it."""

    def counted(self, bot: str) -> int:
        """Return what was counted of a bot in all files of this path."""
        return self.here.get(bot, 0) + self.before.get(bot, 0)

    @property
    def bots(self) -> set[str]:
        """Of which bots something was counted."""
        return {*self.here, *self.before}


class Line(NamedTuple):
    """A whole line without its line end."""

    offset: int
    raw: bytes


class Tail:
    """One look at one file: take `batches`, then store `position`.

    When a batch is handed out, `position` is already behind it: store it once the batch has been dealt with, and the
    next look goes on there.
    """

    def __init__(self, path: Path, position: Position | None = None) -> None:
        self.path = path
        self.position = position if position is not None else Position()
        self.is_missing = False
        self.is_rotated = False
        """Another file lies under this name now, or it was emptied."""
        self.is_lost = False
        """What was not yet read of the file before is nowhere to be found; there need not have been anything."""
        self.is_recounted = False
        """Lines at the end were removed: the file is read from its beginning, `here` counts from nothing again."""
        self.incomplete: Line | None = None
        """A last line without a line end, not yet taken: the next look gives it again, by then perhaps longer."""
        self.size = 0

    def batches(self) -> Iterator[list[Line]]:
        """Yield the lines that are new, some at a time.

        Raises:
            OSError: the file is there and cannot be read.
        """
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            self.is_missing = True
            return
        with file:
            self.size = file.seek(0, 2)
            if self.position.offset and not _is_same(file, self.position):
                yield from self._rest_of_the_old()
            elif self.position.offset > self.size:
                self.is_recounted = True
                self.position.offset, self.position.here = 0, {}
                self.position.head, self.position.head_bytes = "", 0
            yield from self._read(file)

    def _rest_of_the_old(self) -> Iterator[list[Line]]:
        self.is_rotated = True
        found = _sibling(self.path, self.position)
        if found is None:
            self.is_lost = True
        else:
            with found:
                yield from self._read(found)
            if self.incomplete is not None:  # nobody will write its end any more
                yield [self.incomplete]
                self.incomplete = None
        old = self.position
        before = {bot: old.counted(bot) for bot in sorted(old.bots)}
        self.position = Position(files=old.files + 1, before=before)

    def _read(self, file: BinaryIO) -> Iterator[list[Line]]:
        position, at = self.position, self.position.offset
        file.seek(at)
        held, skipping = b"", False
        while chunk := file.read(CHUNK_BYTES):
            held += chunk
            whole, newline, rest = held.rpartition(b"\n")
            if not newline:
                if len(held) > LINE_MAX_BYTES and not skipping:
                    skipping = True
                    yield [Line(at, held[:LINE_SHOWN_BYTES])]
                if skipping:
                    at += len(held)
                    held = b""
                continue
            lines = list(_lines(whole, at))
            if skipping:  # the end of a line whose beginning was handed on
                lines, skipping = lines[1:], False
            at += len(whole) + 1
            held = rest
            self._know(file, position, at)
            yield lines
        self.incomplete = Line(at, held) if held else None

    def _know(self, file: BinaryIO, position: Position, at: int) -> None:
        """Move the position to `at`, and remember what the file begins with."""
        position.offset = at
        if position.head_bytes >= HEAD_MAX_BYTES:
            return
        back = file.tell()
        head = _head(file, min(at, HEAD_MAX_BYTES))
        file.seek(back)
        position.head, position.head_bytes = _digest(head), len(head)
        if not position.name:
            first, _, _ = head.partition(b"\n")
            position.name = _digest(first + str(_inode(file)).encode())[:12]


def _lines(whole: bytes, at: int) -> Iterator[Line]:
    for raw in whole.split(b"\n"):
        yield Line(at, raw.removesuffix(b"\r"))
        at += len(raw) + 1


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=12).hexdigest()


def _head(file: BinaryIO, size: int) -> bytes:
    file.seek(0)
    return file.read(size)


def _inode(file: BinaryIO) -> int:
    """Return the file's number: two files that begin alike are two files."""
    with suppress(OSError, AttributeError):
        return Path(file.name).stat().st_ino
    return 0


def _is_same(file: BinaryIO, position: Position) -> bool:
    """Tell whether a file begins as the one that was read; the shorter one, where its end was cut off."""
    head = _head(file, position.head_bytes)
    return len(head) == position.head_bytes and _digest(head) == position.head


def _sibling(path: Path, position: Position) -> BinaryIO | None:
    """Return the old file under its new name, to be read on."""
    stem = path.name.removesuffix(path.suffix)
    others = [
        one
        for one in path.parent.glob(f"{stem}*")
        if one != path and one.is_file() and one.name.startswith((path.name, f"{stem}-", f"{stem}.", f"{stem}_"))
    ]
    others.sort(key=lambda one: (-one.stat().st_mtime, one.name))
    for other in others[:SIBLINGS_MAX]:
        file = _opened(other)
        try:
            if _is_same(file, position) and _holds(file, position.offset):
                return file
        except (OSError, EOFError):
            pass
        file.close()
    return None


def _opened(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _holds(file: BinaryIO, offset: int) -> bool:
    """Tell whether a file is at least as long as what was read."""
    file.seek(offset - 1)
    return bool(file.read(1))

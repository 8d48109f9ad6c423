"""Bytes to lines of text: each line stands for itself, so that one in a wrong encoding stops no other."""

import codecs
from collections.abc import Iterable, Iterator
from typing import NamedTuple

LINE_BYTES_MAX = 1_000_000
"""A line longer than this is none of a table; the bound keeps memory bounded."""
WIDE = ("utf-16", "utf-32")
"""Encodings in which the byte of a line's end also stands inside of characters."""


class TextLine(NamedTuple):
    """A line without its end, or why it cannot be read."""

    number: int
    text: str
    problem: str | None = None


class _Unreadable(NamedTuple):
    problem: str


_TOO_LONG = _Unreadable(f"the line is longer than {LINE_BYTES_MAX} bytes; is this a table of text?")


def text_lines(chunks: Iterable[bytes], encoding: str) -> Iterator[TextLine]:
    """Yield the lines of a stream; a byte order mark is no part of the first."""
    name = codecs.lookup(encoding).name
    raw_lines = _wide_lines(chunks, name) if name.startswith(WIDE) else _byte_lines(chunks)
    for number, raw in enumerate(raw_lines, start=1):
        match raw:
            case _Unreadable(problem):
                yield TextLine(number, "", problem)
            case str():
                yield _clean(number, raw)
            case bytes():
                yield _decoded(number, raw, name)


def _decoded(number: int, raw: bytes, encoding: str) -> TextLine:
    try:
        return _clean(number, raw.decode("utf-8" if encoding == "utf-8-sig" else encoding))
    except UnicodeDecodeError as error:
        wrong = raw[error.start : error.start + 1].hex()
        return TextLine(
            number,
            "",
            f"byte 0x{wrong} at position {error.start + 1} is no {encoding}: correct it, or set `file.encoding` of the "
            "mapping to how the file was written, e.g. cp1252",
        )


def _clean(number: int, text: str) -> TextLine:
    text = text.removesuffix("\r")
    if number == 1:
        text = text.removeprefix("\ufeff")
    if "\x00" in text:
        return TextLine(number, "", "holds a NUL character; is this a table of text?")
    return TextLine(number, text)


def _byte_lines(chunks: Iterable[bytes]) -> Iterator[bytes | _Unreadable]:
    """Split at line feeds; a line that is too long is skipped."""
    pending = b""
    too_long = False
    for chunk in chunks:
        *whole, pending = (pending + chunk).split(b"\n")
        for line in whole:
            yield _TOO_LONG if too_long or len(line) > LINE_BYTES_MAX else line
            too_long = False
        if len(pending) > LINE_BYTES_MAX:
            pending, too_long = b"", True
    if too_long or pending:
        yield _TOO_LONG if too_long else pending


def _wide_lines(chunks: Iterable[bytes], encoding: str) -> Iterator[str | _Unreadable]:
    """Split decoded text; from the first wrong byte on nothing can be told, so the rest is one unreadable line."""
    decoder = codecs.getincrementaldecoder(encoding)()
    pending = ""
    for chunk in _then_end(chunks):
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            yield _Unreadable(
                f"from here on the file is no {encoding} ({error.reason}): nothing after this line was read"
            )
            return
        *whole, pending = (pending + text).split("\n")
        yield from whole
        if len(pending) > LINE_BYTES_MAX:
            yield _TOO_LONG
            return
    if pending:
        yield pending


def _then_end(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        if chunk:
            yield chunk
    yield b""

"""Lines of files in any encoding; one that cannot be read stops no other."""

import pytest

from services.ingest.domain.formats.text_lines import LINE_BYTES_MAX, text_lines

TEXT = "Währung;Straße\r\n€ 5;ä\r\nlast"


def read(raw: bytes, encoding: str, size: int = 3) -> list[tuple[int, str]]:
    lines = list(text_lines((raw[at : at + size] for at in range(0, len(raw), size)), encoding))
    assert [line.problem for line in lines] == [None] * len(lines)
    return [(line.number, line.text) for line in lines]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "iso-8859-15", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_every_encoding_gives_the_same_lines(encoding: str, size: int):
    assert read(TEXT.encode(encoding), encoding, size) == [(1, "Währung;Straße"), (2, "€ 5;ä"), (3, "last")]


@pytest.mark.parametrize(("written", "said"), [("utf-8-sig", "utf-8"), ("utf-8", "utf-8-sig"), ("utf-16", "utf-16")])
def test_a_byte_order_mark_is_no_part_of_the_first_line(written: str, said: str):
    assert read("a;b\n".encode(written), said) == [(1, "a;b")]


def test_a_line_in_another_encoding_is_named_and_the_others_are_read():
    raw = b"one\n" + "Müller\n".encode("cp1252") + "drei ä\n".encode()
    first, second, third = text_lines([raw], "utf-8")

    assert (first.text, third.text, third.number) == ("one", "drei ä", 3)
    assert second.number == 2
    assert second.problem is not None
    assert second.problem.startswith("byte 0xfc at position 2 is no utf-8: ")
    assert "file.encoding" in second.problem


def test_where_a_wide_encoding_breaks_is_said_once():
    raw = "a;b\n".encode("utf-16-le") + b"\x00\xd8\x00\xd8" + "\nc\n".encode("utf-16-le")
    lines = list(text_lines([raw], "utf-16-le"))

    assert lines[-1].problem is not None
    assert "from here on the file is no utf-16-le" in lines[-1].problem


def test_a_line_that_is_too_long_is_skipped_in_bounded_memory():
    chunks = [b"a\n", *[b"x" * 100_000] * 30, b"\nlast\n"]
    lines = list(text_lines(chunks, "utf-8"))

    assert [(line.number, line.text) for line in lines] == [(1, "a"), (2, ""), (3, "last")]
    assert lines[1].problem == f"the line is longer than {LINE_BYTES_MAX} bytes; is this a table of text?"


def test_nul_characters_are_no_text():
    (line,) = text_lines([b"a\x00b\n"], "utf-8")
    assert line.problem == "holds a NUL character; is this a table of text?"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_an_empty_file_has_no_lines(encoding: str):
    assert list(text_lines([], encoding)) == []

"""Reading on: every line once, through rotation, truncation and half-written lines."""

import gzip
import shutil
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.packs.bots import tail as module
from shared.packs.bots.tail import Position, Tail


def look(path: Path, position: Position | None = None) -> tuple[list[str], Tail]:
    """Read what is new; the position goes through its stored form, as between two processes."""
    stored = None if position is None else msgspec.json.decode(msgspec.json.encode(position), type=Position)
    tail = Tail(path, stored)
    return [line.raw.decode() for lines in tail.batches() for line in lines], tail


def test_a_second_look_gives_only_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("a\nb\n")
    first, tail = look(path)
    path.write_text("a\nb\nc\n")
    second, after = look(path, tail.position)
    assert (first, second, look(path, after.position)[0]) == (["a", "b"], ["c"], [])


def test_a_line_without_its_end_waits_and_is_given_whole(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a\nhal")
    first, tail = look(path)
    assert first == ["a"]
    assert tail.incomplete is not None
    assert (tail.incomplete.offset, tail.incomplete.raw) == (2, b"hal")
    with path.open("ab") as file:
        file.write(b"f\r\nb\n")
    second, after = look(path, tail.position)
    assert (second, after.incomplete) == (["half", "b"], None)


def test_a_file_that_is_not_there_or_empty_says_so_and_nothing_else(tmp_path: Path) -> None:
    missing, tail = look(tmp_path / "none")
    assert (missing, tail.is_missing) == ([], True)
    (tmp_path / "empty").touch()
    empty, tail = look(tmp_path / "empty")
    assert (empty, tail.is_missing, tail.size) == ([], False, 0)


@pytest.mark.parametrize("how", ["renamed", "copied and emptied", "compressed"])
def test_what_was_not_read_before_a_rotation_is_read_first(tmp_path: Path, how: str) -> None:
    path, old = tmp_path / "events.jsonl", tmp_path / "events.jsonl.1"
    path.write_text("a\nb\n")
    _, tail = look(path)
    tail.position.here = {"bot1": 2}
    with path.open("a") as file:
        file.write("c\nd")
    if how == "renamed":
        path.rename(old)
        path.write_text("e\n")
    elif how == "copied and emptied":
        shutil.copy(path, old)
        path.write_text("e\n")
    else:
        (tmp_path / "events.jsonl.1.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
        path.write_text("e\n")
    found, after = look(path, tail.position)
    assert (found, after.is_rotated, after.is_lost) == (["c", "d", "e"], True, False)
    assert (after.position.files, after.position.before, after.position.here) == (1, {"bot1": 2}, {})


def test_an_old_file_that_is_nowhere_is_told(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("a\nb\n")
    _, tail = look(path)
    path.unlink()
    path.write_text("x\ny\nz\n")
    found, after = look(path, tail.position)
    assert (found, after.is_lost) == (["x", "y", "z"], True)


def test_lines_cut_off_at_the_end_let_the_file_be_counted_again(tmp_path: Path) -> None:
    """Nobody can say which of the counted lines are gone."""
    path = tmp_path / "fills.csv"
    head = "x" * module.HEAD_MAX_BYTES
    path.write_text(f"{head}\nb\nc\n")
    _, tail = look(path)
    tail.position.here = {"bot1": 3}
    path.write_text(f"{head}\nb\n")
    found, after = look(path, tail.position)
    assert (found, after.is_recounted, after.position.here) == ([head, "b"], True, {})


def test_a_line_of_any_length_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"a\n" + b"x" * (3 * module.CHUNK_BYTES) + b"\nb\n")
    found, _ = look(path)
    assert [found[0], len(found[1]), found[2]] == ["a", module.LINE_SHOWN_BYTES, "b"]


def test_places_of_lines_stay_under_rotation_and_differ_between_files(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("same\n")
    _, tail = look(path)
    name = tail.position.name
    with path.open("a") as file:
        file.write("more\n")
    _, tail = look(path, tail.position)
    assert tail.position.name == name
    path.rename(tmp_path / "log.1")
    path.write_text("same\n")
    _, tail = look(path, tail.position)
    assert tail.position.name != name


STEPS = st.lists(
    st.one_of(
        st.lists(st.text("abcdef", max_size=6), min_size=1, max_size=5),
        st.sampled_from(["look", "rename", "copy and empty"]),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS)
def test_whatever_is_written_and_rotated_every_line_comes_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[list[str] | str]
) -> None:
    """With a look between two rotations, as with any rotation that keeps one old file."""
    folder = tmp_path_factory.mktemp("tail")
    path, position = folder / "log", Position()
    written: list[str] = []
    read: list[str] = []
    path.touch()
    number = 0
    for step in [*steps, "look"]:
        if isinstance(step, list):
            lines = [f"{len(written) + place}-{text}" for place, text in enumerate(step)]
            written += lines
            with path.open("a") as file:
                file.write("".join(f"{line}\n" for line in lines))
            continue
        found, tail = look(path, position)
        read, position = read + found, tail.position
        if step != "look":
            number += 1
            old = folder / f"log.{number}"
            shutil.copy(path, old)
            if step == "rename":
                path.replace(old)
                path.touch()
            else:
                path.write_bytes(b"")
    assert read == written

"""Event files as one stream: in order of receipt, ties by file and line, in bounded memory."""

import os
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import UsageError
from tieout.offline import lines
from tieout.offline.lines import EventFiles

START = datetime(2026, 11, 1, tzinfo=UTC)


def row(name: str, second: int) -> bytes:
    at = (START + timedelta(seconds=second)).isoformat()
    return msgspec.json.encode({"source": "ledger", "type": "payment.succeeded", "id": name, "occurred_at": at}) + b"\n"


def read(paths: list[Path]) -> tuple[list[tuple[str, str]], list[str]]:
    told: list[str] = []
    with EventFiles(paths) as files:
        found = [
            (line.posted.id, str(line.place))
            for line in files.read(lambda place, what: told.append(f"{place}: {what}"))
        ]
    return found, told


@given(st.lists(st.lists(st.integers(0, 6), max_size=12), min_size=1, max_size=3), st.integers(1, 5))
def test_the_stream_is_a_stable_sort_of_all_lines(files: list[list[int]], run_lines: int) -> None:
    """Whatever order the files are in, and however few lines are sorted at once."""
    wanted = []
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "RUN_LINES", run_lines)
        paths = [Path(folder) / f"{number}.jsonl" for number in range(len(files))]
        for path, seconds in zip(paths, files, strict=True):
            path.write_bytes(b"".join(row(f"{path.name}-{place}", second) for place, second in enumerate(seconds)))
            wanted += [(second, f"{path.name}-{place}", f"{path}:{place + 1}") for place, second in enumerate(seconds)]
        found, told = read(paths)
    assert found == [(name, place) for _, name, place in sorted(wanted, key=lambda one: one[0])]
    assert told == []


def test_a_line_that_is_too_long_is_named_and_the_next_is_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(row("a", 1) + b"x" * (3 * lines.LINE_MAX_BYTES) + b"\n\n" + row("b", 2))
    found, told = read([path])
    assert found == [("a", f"{path}:1"), ("b", f"{path}:4")]
    assert told == [f"{path}:2: refused: the line is longer than {lines.LINE_MAX_BYTES} bytes"]


def test_lines_that_are_no_events_are_named_once_in_a_file_out_of_order(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(row("late", 9) + b"{broken\n" + row("early", 1))
    found, told = read([path])
    assert [name for name, _ in found] == ["early", "late"]
    assert len(told) == 1
    assert told[0].startswith(f"{path}:2: refused: not valid JSON")


def test_a_pipe_is_read_like_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(row("b", 2) + row("a", 1)))
    writer.start()
    found, _ = read([pipe])
    writer.join()
    assert [name for name, _ in found] == ["a", "b"]


def test_a_file_that_is_not_there_is_said_by_its_name(tmp_path: Path) -> None:
    missing = tmp_path / "nothing.jsonl"
    with pytest.raises(UsageError, match=r"nothing\.jsonl: cannot be read: No such file"):
        read([missing])


def test_lines_are_counted_before_they_are_read(tmp_path: Path) -> None:
    """So that progress has an end."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(row("a", 1) + b"\n{broken\n" + row("b", 2))
    with EventFiles([path, path]) as files:
        assert len(files) == 6

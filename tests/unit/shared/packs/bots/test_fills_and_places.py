"""Rows of fills.csv, and where the files of bots lie."""

from pathlib import Path

import pytest

from shared.errors import UsageError
from shared.packs.bots.fills import count_rows
from shared.packs.bots.places import read_places
from shared.packs.bots.tail import Line, Position


def count(text: str) -> tuple[int, list[str], Position]:
    told: list[str] = []
    position, lines, at = Position(), [], 0
    for raw in text.encode().split(b"\n"):
        lines.append(Line(at, raw))
        at += len(raw) + 1
    return count_rows(lines, position, "bot1", lambda _, why: told.append(why)), told, position


def test_the_header_is_no_row_and_a_table_without_one_is_all_rows() -> None:
    assert count("ts,price,fee\n2026,1,2\n2026,3,4\n")[0] == 2
    assert count("2026,1,2\n2026,3,4\n")[0] == 2
    assert count("\ufeffts,price\n\n1,2\n")[0] == 1


def test_quoted_cells_may_hold_commas() -> None:
    assert count('ts,note,price\n1,"a, b",2\n')[:2] == (1, [])


def test_a_row_with_another_number_of_cells_is_none_and_told() -> None:
    assert count("ts,price,fee\n2026,1\n2026,1,2\n")[:2] == (1, ["the row has 2 cells, its columns are 3"])


@pytest.mark.parametrize("cell", ["NaN", "inf", "x", "1,5"])
def test_a_row_without_a_number_in_a_column_of_numbers_is_told(cell: str) -> None:
    rows, told, _ = count(f'ts,price,fee\n2026,"{cell}",2\n')
    assert (rows, told) == (1, [f"price is {cell!r}, which is no number"])


def test_rows_are_counted_into_the_position() -> None:
    assert count("ts,price\n1,2\n1,3\n")[2].here == {"bot1": 2}


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_the_default_places_are_under_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("data/a/snapshot.json", "data/a/fills.csv", "data/b/events.jsonl", "reports/event_store/day.jsonl"):
        touch(tmp_path / name)
    found = read_places({}).find()
    assert [(one.bot, one.snapshot, one.fills, one.events) for one in found.bots] == [
        ("a", Path("data/a/snapshot.json"), (Path("data/a/fills.csv"),), ()),
        ("b", None, (), (Path("data/b/events.jsonl"),)),
    ]
    assert found.stores == (Path("reports/event_store/day.jsonl"),)


def test_other_layouts_are_patterns(tmp_path: Path) -> None:
    touch(tmp_path / "bots/x/logs/v2/a/fills.csv")
    touch(tmp_path / "bots/x/logs/v2/b/fills.csv")
    touch(tmp_path / "snap/x.json")
    places = read_places(
        {
            "RECON_FILLS_FILES": f"{tmp_path}/bots/{{bot}}/**/fills.csv",
            "RECON_SNAPSHOT_FILES": f"{tmp_path}/snap/{{bot}}.json",
        }
    )
    (one,) = places.find().bots
    assert (one.bot, one.snapshot, len(one.fills)) == ("x", tmp_path / "snap/x.json", 2)


def test_of_several_snapshots_the_one_written_last_counts(tmp_path: Path) -> None:
    import os

    for age, name in ((1, "new"), (9, "old")):
        path = touch(tmp_path / "a" / f"{name}.json")
        os.utime(path, (1000 - age, 1000 - age))
    (one,) = read_places({"RECON_SNAPSHOT_FILES": f"{tmp_path}/{{bot}}/*.json"}).find().bots
    assert one.snapshot == tmp_path / "a/new.json"


@pytest.mark.parametrize("pattern", ["data/fills.csv", ",", "{bot}/{bot}/fills.csv"])
def test_a_pattern_that_finds_no_bot_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="RECON_FILLS_FILES"):
        read_places({"RECON_FILLS_FILES": pattern})

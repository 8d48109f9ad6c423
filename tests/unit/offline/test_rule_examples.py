"""The examples of each kind of rule print what stands beside them, by the command that the docs show."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted(path.parent for path in (Path(__file__).parents[3] / "examples").glob("*/command.txt"))


def test_there_are_examples() -> None:
    """A pattern that finds nothing would make the other test worthless."""
    assert {"invariant", "zero_sum"} <= {folder.name for folder in EXAMPLES}


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_the_command_prints_what_is_expected(folder: Path) -> None:
    name, *arguments = shlex.split((folder / "command.txt").read_text(encoding="utf-8"))
    assert name == "tieout"
    told = subprocess.run(
        [sys.executable, "-m", "tieout", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )

    assert told.returncode == 0, told.stderr
    assert told.stdout == (folder / "expected.jsonl").read_text(encoding="utf-8")

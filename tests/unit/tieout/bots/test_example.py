"""`examples/bots` prints what stands beside it, by the command that the docs show."""

import shutil
from pathlib import Path

from tests.unit.tieout.bots.conftest import Desk
from tieout.bots.report import table

EXAMPLE = Path(__file__).parents[4] / "examples/bots"


def test_the_example_prints_what_is_expected(desk: Desk) -> None:
    shutil.copytree(EXAMPLE, desk.root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("reconciliation"))
    said = "".join(f"{line}\n" for line in table(desk.cycle().report))
    assert said == (EXAMPLE / "expected.txt").read_text(encoding="utf-8")
    assert said in "\n".join(
        line.removeprefix("    ")
        for line in (EXAMPLE.parents[1] / "docs/bots.md").read_text(encoding="utf-8").split("\n")
    )

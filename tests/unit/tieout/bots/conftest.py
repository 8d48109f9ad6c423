"""A working directory of bots, and cycles over it."""

import json
from pathlib import Path
from typing import Any

import pytest

from shared.packs.bots.thresholds import ThresholdsFile
from tests.support.bot_files import Bot
from tieout.bots.service import Done, read_settings, reconcile


class Desk:
    """One working directory. Cycles see its files and these variables, and nothing of the machine's environment."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.variables: dict[str, str] = {"RECON_SETTLE_SECONDS": "0"}

    def bot(self, name: str = "bot1") -> Bot:
        """Return a bot's folder."""
        return Bot(self.root, name)

    def cycle(self, *, synthetic_drift: bool = False, **more: Any) -> Done:
        """Run one cycle."""
        return reconcile(
            read_settings(self.variables, synthetic_drift=synthetic_drift), ThresholdsFile(self.variables), **more
        )

    def open(self, **more: Any) -> set[tuple[str, str]]:
        """Run one cycle; return what is open as (bot, name)."""
        return {(one.bot, one.name) for one in self.cycle(**more).report.findings}

    def finding(self, name: str) -> Any:
        """Run one cycle; return the finding of that name as the report's file has it."""
        self.cycle()
        (found,) = [one for one in self.latest()["findings"] if one["name"] == name]
        return found

    def latest(self) -> Any:
        """Return latest.json; numbers as their text."""
        raw = (self.root / "reports/reconciliation/latest.json").read_text()
        return json.loads(raw, parse_float=str, parse_int=str)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path)

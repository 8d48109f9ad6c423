"""What `tieout replay` says to a person where there is nothing to show."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tieout.cli import build

RULES = Path(__file__).parents[3] / "shared" / "packs" / "billing" / "rules.yaml"


def event(source: str, minute: int) -> dict[str, Any]:
    return {
        "source": source,
        "type": "payment.succeeded",
        "id": f"{source}-1",
        "occurred_at": f"2026-11-20T10:{minute:02}:00Z",
        "amount": "10.00",
        "currency": "EUR",
        "refs": {"payment_id": "p1"},
    }


def table(tmp_path: Path, events: list[dict[str, Any]], *more: str) -> str:
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in events))
    command = ["replay", str(path), "--rules", str(RULES), "--format", "table", *more]
    answer = CliRunner().invoke(build(), command)
    assert answer.exit_code == 0, answer.output
    return answer.output


@pytest.mark.parametrize("events", [[], [{"source": "ledger"}]])
def test_files_without_an_event_are_not_said_to_agree(events: list[dict[str, Any]], tmp_path: Path) -> None:
    assert "No event was read, so nothing was compared." in table(tmp_path, events)


def test_a_record_that_still_waits_is_not_said_to_agree(tmp_path: Path) -> None:
    said = table(tmp_path, [event("ledger", 0)])
    assert "No discrepancies up to 2026-11-20T10:00:00+00:00; what is due later still waits" in said


def test_where_all_was_judged_log_time_says_how_far(tmp_path: Path) -> None:
    said = table(tmp_path, [event("ledger", 0), event("stripe", 1)], "--until", "2026-12-01T00:00:00Z")
    assert "No discrepancies up to 2026-12-01T00:00:00+00:00." in said

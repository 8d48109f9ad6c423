"""`tieout replay` as a person runs it: one file with every case of match.yaml, the right final states, the same bytes.

Each case gets rules and sources of its own, and is moved in time so that all end at one instant.
"""

import json
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cases import Case, differences, has_placeholder, load_match_cases

UNTIL = datetime(2026, 3, 8, 23, 0, tzinfo=UTC)
"""Where the case that counts business days ends: it must keep its weekdays, so everything moves to its end."""
CASES = [case for case in load_match_cases() if not any(has_placeholder(event) for event in case.events)]


def tag(number: int) -> str:
    return f"c{number:03d}"


def rules_of(case: Case, number: int) -> list[dict[str, Any]]:
    rules = []
    for rule in case.rules:
        sides = {
            name: {**selector, "source": f"{selector['source']}-{tag(number)}"}
            for name, selector in rule["sides"].items()
        }
        rules.append({**rule, "name": f"{tag(number)}.{rule['name']}", "sides": sides})
    return rules


def events_of(case: Case, number: int) -> list[dict[str, Any]]:
    shift = UNTIL - datetime.fromisoformat(case.until)
    events = []
    for event in case.events:
        moved = {**event, "source": f"{event['source']}-{tag(number)}"}
        for field in ("received_at", "occurred_at"):
            moved[field] = (datetime.fromisoformat(event[field]) + shift).isoformat()
        events.append(moved)
    return events


def own_words(one: dict[str, Any], number: int) -> dict[str, Any]:
    """Undo the renaming, so that the case's own expectation can be held against it."""
    key = one["key"].replace(f"-{tag(number)}/", "/") if isinstance(one["key"], str) else one["key"]
    return {**one, "rule": one["rule"].removeprefix(f"{tag(number)}."), "key": key}


def replay(folder: Path, *events: Path) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "tieout", "replay", *map(str, events), "--rules", str(folder / "rules.yaml")]
    return subprocess.run([*command, "--until", UNTIL.isoformat()], capture_output=True, check=False, cwd=Path.cwd())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("every-case")
    rules = [rule for number, case in enumerate(CASES) for rule in rules_of(case, number)]
    (made / "rules.yaml").write_text(yaml.safe_dump({"version": 1, "pack": "cases", "rules": rules}, sort_keys=False))
    events = [event for number, case in enumerate(CASES) for event in events_of(case, number)]
    (made / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return made


def test_every_case_in_one_file_ends_right_and_twice_the_same(folder: Path) -> None:
    first = replay(folder, folder / "events.jsonl")
    assert first.returncode == 0, first.stderr
    found: dict[str, list[dict[str, Any]]] = {}
    for line in first.stdout.splitlines():
        one = json.loads(line)
        found.setdefault(one["rule"].split(".")[0], []).append(one)
    complaints = {
        case.name: problems
        for number, case in enumerate(CASES)
        if (problems := differences(case.expect, [own_words(one, number) for one in found.get(tag(number), [])]))
    }
    assert complaints == {}
    again = replay(folder, folder / "events.jsonl")
    assert again.stdout == first.stdout
    assert again.stderr == first.stderr
    refused = sum(case.refused for case in CASES)
    dead_letters = sum(len(case.dead_letters) for case in CASES)
    assert first.stderr.count(b": refused: ") == refused
    assert first.stderr.count(b": dead letter: ") == dead_letters


def test_arrival_permuted_within_deadlines_leaves_the_same_open(tmp_path: Path) -> None:
    """A day of payments, received in any order before their deadlines: the same discrepancies are open at the end."""
    draw = random.Random(11)
    start = datetime(2026, 3, 2, tzinfo=UTC)
    events = []
    for number in range(400):
        at = start + timedelta(seconds=10 * number)
        amount = f"{draw.randrange(100, 99999) / 100:.2f}"
        base = {"org": "acme", "currency": "EUR", "status": "succeeded", "refs": {"payment_id": f"p{number}"}}
        sides = [("ledger", amount), ("stripe", amount if number % 9 else f"{float(amount) + 1:.2f}")]
        for source, value in sides[: 1 if number % 13 == 0 else 2]:
            for turn in range(2 if number % 7 == 0 else 1):
                occurred = at + timedelta(seconds=turn)
                events.append(
                    {
                        **base,
                        "source": source,
                        "type": "payment.updated",
                        "id": f"{source}-{number}-{turn}",
                        "record": f"{source}-{number}",
                        "occurred_at": occurred.isoformat(),
                        "amount": value if turn else (value if number % 14 else "1.00"),
                    }
                )
    pack = Path("shared/packs/billing/rules.yaml").read_text()
    (tmp_path / "rules.yaml").write_text(pack)
    opened = []
    for seed in range(3):
        order = list(events)
        random.Random(seed).shuffle(order)
        received = [start + timedelta(hours=2, seconds=n) for n in range(len(order))]
        file = tmp_path / f"events-{seed}.jsonl"
        rows = [{**event, "received_at": at.isoformat()} for event, at in zip(order, received, strict=True)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        done = replay(tmp_path, file)
        assert done.returncode == 0, done.stderr
        last = [json.loads(line) for line in done.stdout.splitlines()]
        opened.append(
            sorted(
                (one["type"], one["key"], one["side"], one["expected"], one["actual"])
                for one in last
                if one["state"] == "raised"
            )
        )
    assert len(opened[0]) > 60
    assert opened[0] == opened[1] == opened[2]

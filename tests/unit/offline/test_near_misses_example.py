"""Twenty near misses planted in examples/near_misses: through the engine, and the sentence for each."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.support.near_miss_example import ACROSS, FILES, NONE, RULES, UNTIL, WITHIN
from tieout.cli import build


def run(*more: str) -> str:
    answer = CliRunner().invoke(build(), ["replay", *map(str, FILES), "--rules", str(RULES), "--until", UNTIL, *more])
    assert answer.exit_code == 0, answer.output
    return answer.stdout


@pytest.fixture(scope="module")
def said() -> dict[str, dict[str, Any]]:
    """What `tieout replay` says, by key."""
    return {line["key"]: line for line in map(json.loads, run().splitlines())}


def test_twenty_near_misses_and_the_sentence_for_each(said: dict[str, dict[str, Any]]):
    """Fourteen across groups, which name each other, and six within one; run with -s to read them."""
    by_id = {line["id"]: line for line in said.values()}
    for number, (key, (kind, sentence)) in enumerate(ACROSS.items(), start=1):
        near_miss = said[key]["near_miss"]
        print(f"{number:2}. {near_miss['sentence']}")  # noqa: T201 - the issue asks to see them
        assert near_miss["kind"] == kind
        assert near_miss["sentence"] == f"Near miss: {sentence} (discrepancy {near_miss['discrepancy']})."
        other = by_id[near_miss["discrepancy"]]
        assert (other["key"], other["near_miss"]["discrepancy"]) == (near_miss["key"], said[key]["id"])
    for number, (key, ending) in enumerate(WITHIN.items(), start=len(ACROSS) + 1):
        print(f"{number:2}. {said[key]['explanation']}")  # noqa: T201 - as above
        assert said[key]["explanation"].endswith(ending)
        assert "near_miss" not in said[key]
    assert len(ACROSS) + len(WITHIN) == 20


def test_what_is_none_is_called_none(said: dict[str, dict[str, Any]]):
    """Two of one price, ten days apart, a fee without a reference: nothing is guessed."""
    assert {key for key, line in said.items() if line["state"] == "raised" and "near_miss" not in line} == NONE | set(
        WITHIN
    )


def test_the_table_has_the_sentences_too(monkeypatch: pytest.MonkeyPatch):
    """Whole, on the narrowest terminal; clusters stand below."""
    monkeypatch.setenv("COLUMNS", "20")
    table = run("--format", "table")
    assert "Near miss: stripe record ch_1 of 120.50 EUR has the same amount under the reference INV-71" in table
    assert "cluster: 13 records of ledger since 2026-11-20 10:00 UTC have no provider record" in table


def test_of_earlier_revisions_nothing_is_said():
    """A near miss is a statement about the end."""
    lines = [json.loads(line) for line in run("--all-revisions").splitlines()]
    last = {line["id"]: line["revision"] for line in lines}
    assert all(line["revision"] == last[line["id"]] for line in lines if "near_miss" in line)

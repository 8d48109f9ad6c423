"""The accuracy bench: its labels are true, and the defaults keep their goal on a small statement."""

import json
from decimal import Decimal
from pathlib import Path

import pytest

from shared.rules.load import load_rules
from tieout.bench.accuracy import bench
from tieout.bench.bank_statement import SHARES, generate, write


@pytest.fixture(scope="module")
def statement():
    return generate(2000, seed=7)


def test_the_same_seed_makes_the_same_statement(statement) -> None:
    assert generate(2000, seed=7).events == statement.events
    assert generate(2000, seed=8).events != statement.events


def test_labels_add_up_but_for_a_fee(statement) -> None:
    """Whatever is said to belong together has the same sum on both sides."""
    amounts = {event["record"]: Decimal(event["amount"]) for event in statement.events}
    assert {link.kind for link in statement.links} == set(SHARES) - {"unpaid"}
    for link in statement.links:
        owed, paid = (sum(amounts[record] for record in records) for records in (link.invoices, link.lines))
        assert owed == paid or (link.kind == "fee kept" and owed * Decimal("0.98") <= paid < owed), link


def test_the_goal_is_kept_on_a_small_statement() -> None:
    """Precision 0.99 at recall 0.95, with the rule at its defaults; the large one is `tieout bench accuracy`."""
    result = bench(800, seed=3)

    assert result.precision >= 0.99
    assert result.recall >= 0.95
    assert result.said <= result.pairs + result.ambiguous + sum(result.wrong_by_kind.values())


def test_the_files_are_those_of_a_replay(tmp_path: Path, statement) -> None:
    """With rules that load, and labels that name their records."""
    write(statement, tmp_path)

    (rule,) = load_rules(tmp_path / "rules.yaml").rules
    assert rule.name == "bank.invoices"
    rows = [json.loads(row) for name in ("invoices", "statement") for row in (tmp_path / f"{name}.jsonl").open()]
    labels = [json.loads(row) for row in (tmp_path / "labels.jsonl").open()]
    assert {one for label in labels for one in label["lines"] + label["invoices"]} <= {row["record"] for row in rows}

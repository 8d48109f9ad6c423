"""`tieout rules diff`: what a change of rules would do to some events."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from tieout.cli import build

RULE: dict[str, Any] = {
    "name": "billing.payments",
    "kind": "match",
    "sides": {
        "internal": {"source": "ledger", "type": ["payment.*"]},
        "provider": {"source": "stripe", "type": ["payment.*"]},
    },
    "key": "refs.payment_id",
    "compare": {"amount": {"tolerance": "0.00"}, "currency": {}},
    "deadline": "1h",
}
UNTIL = "2026-11-20T12:30:00Z"


def event(source: str, number: int, amount: str, at: str = "10:00:00") -> dict[str, Any]:
    return {
        "org": "acme",
        "source": source,
        "type": "payment.succeeded",
        "id": f"{source}_{number}",
        "occurred_at": f"2026-11-20T{at}Z",
        "amount": amount,
        "currency": "EUR",
        "refs": {"payment_id": f"pay_{number}"},
    }


EVENTS = [
    event("ledger", 1, "10.00"),
    event("stripe", 1, "9.00"),
    event("ledger", 2, "20.00"),
    event("stripe", 2, "15.00"),
    event("ledger", 3, "30.00"),
    event("ledger", 4, "40.00"),
    event("stripe", 4, "40.00", at="11:30:00"),
]


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Runs the command over `EVENTS` with two versions of the rules, each a list."""

    def write(name: str, rules: list[dict[str, Any]], pack: str = "billing") -> str:
        path = tmp_path / name
        path.write_text(yaml.safe_dump({"version": 1, "pack": pack, "rules": rules}))
        return str(path)

    def command(old: list[dict[str, Any]], new: list[dict[str, Any]], *more: str, pack: str = "billing") -> Result:
        events = tmp_path / "events.jsonl"
        events.write_text("".join(json.dumps(one) + "\n" for one in EVENTS))
        files = [write("old.yaml", old), write("new.yaml", new, pack)]
        return CliRunner().invoke(build(), ["rules", "diff", *files, "--events", str(events), "--until", UNTIL, *more])

    return command


def changed(**fields: Any) -> dict[str, Any]:
    return RULE | fields


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def effects(result: Result) -> set[tuple[str, str, str]]:
    return {
        (line["effect"], (line["after"] or line["before"])["key"], line["type"])
        for line in lines(result)
        if line["what"] == "discrepancy"
    }


def test_a_tolerance_makes_small_differences_disappear_and_leaves_large_ones(run: Any) -> None:
    """Only what is under the new tolerance goes; what stays as it was is not named."""
    new = changed(compare={"amount": {"tolerance": "2.00"}, "currency": {}})
    result = run([RULE], [new], "--format", "jsonl")
    assert result.exit_code == 0
    assert effects(result) == {("disappears", "pay_1", "AmountMismatch")}
    rule = lines(result)[0]
    assert (rule["rule"], rule["change"], rule["fields"]) == ("billing.payments", "changed", ["compare"])
    assert rule["before"]["totals"] == {"EUR": "36.00"}
    assert rule["after"]["totals"] == {"EUR": "35.00"}
    assert (rule["before"]["matched"], rule["after"]["matched"]) == (1, 2)


def test_a_longer_deadline_makes_a_late_record_no_discrepancy_and_an_open_one_wait(run: Any) -> None:
    """What was raised and healed is named as well: somebody was alerted."""
    result = run([RULE], [changed(deadline="10h")], "--format", "jsonl")
    assert effects(result) == {
        ("disappears", "pay_3", "MissingProviderRecord"),
        ("disappears", "pay_4", "MissingProviderRecord"),
    }


def test_severity_shadow_and_amounts_are_changes(run: Any) -> None:
    """The same discrepancy with other words is `changes`, with both revisions."""
    result = run([RULE], [changed(severity={"default": "critical"})], "--format", "jsonl")
    found = [line for line in lines(result) if line["what"] == "discrepancy"]
    assert {line["effect"] for line in found} == {"changes"}
    assert {(line["before"]["severity"], line["after"]["severity"]) for line in found} == {("medium", "critical")}


def test_text_names_rules_discrepancies_totals_and_how_many_more(run: Any) -> None:
    """For people: a line a rule, lines up to the limit, figures before and after."""
    result = run([RULE], [changed(name="billing.others"), changed(name="billing.shade", shadow=True)], "--limit", "1")
    assert "- billing.payments: withdrawn" in result.stdout
    assert "+ billing.others: new\n" in result.stdout
    assert "+ billing.shade: new (shadow" in result.stdout
    assert "billing.payments AmountMismatch: 2 disappear" in result.stdout
    assert "  - pay_1 provider raised medium, expected 10.00, actual 9.00 EUR" in result.stdout
    assert "  - … and 1 more" in result.stdout
    assert "open 3 -> 0, healed 1 -> 0" in result.stdout


def test_what_needs_rederive_is_said(run: Any) -> None:
    """Another key is shown with its effect, and with how it can be applied."""
    result = run([RULE], [changed(key="refs.invoice")])
    assert "key only with --rederive" in result.stdout


def test_nothing_changes(run: Any) -> None:
    """The same rules: said, exit 0 with any flag."""
    result = run([RULE], [RULE], "--fail-on", "any")
    assert result.exit_code == 0
    assert "= billing.payments: unchanged" in result.stdout
    assert "No discrepancy appears, disappears or changes." in result.stdout


@pytest.mark.parametrize(("flag", "old", "new", "code"), [
    ("new", "2.00", "0.00", 1), ("new", "0.00", "2.00", 0), ("any", "0.00", "2.00", 1),
])  # fmt: skip
def test_fail_on(run: Any, flag: str, old: str, new: str, code: int) -> None:
    """`new`: something would be open that is not; `any`: any difference."""
    versions = [changed(compare={"amount": {"tolerance": tolerance}, "currency": {}}) for tolerance in (old, new)]
    assert run([versions[0]], [versions[1]], "--fail-on", flag).exit_code == code


def test_two_packs_are_no_two_versions(run: Any) -> None:
    """The mistake is named, with both files' packs."""
    result = run([RULE], [RULE], pack="stack")
    assert result.exit_code != 0
    assert "'billing'" in str(result.exception)
    assert "'stack'" in str(result.exception)

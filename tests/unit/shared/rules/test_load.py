"""Every error of a rules file names file, rule, field and what is allowed."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.rules.load import RulesInvalid, load_rules, parse_rules, validate_rules

RULE: dict[str, Any] = {
    "name": "billing.payments",
    "kind": "match",
    "sides": {
        "internal": {"source": "ledger", "type": ["payment.*"]},
        "provider": {"source": "stripe", "type": "payment.*"},
    },
    "key": "refs.payment_id",
}


def problems(**changes: Any) -> list[str]:
    with pytest.raises(RulesInvalid) as caught:
        validate_rules({"version": 1, "pack": "billing", "rules": [RULE | changes]}, "my.yaml")
    return caught.value.problems


def sides(**internal: Any) -> dict[str, Any]:
    return {**RULE["sides"], "internal": RULE["sides"]["internal"] | internal}


def test_what_is_left_out_has_the_defaults_of_the_design() -> None:
    """A single field and a single type may be written without a list."""
    (rule,) = validate_rules({"version": 1, "pack": "billing", "rules": [RULE]}).rules

    assert (rule.deadline, rule.settle, rule.keep, rule.expire) == ("24h", "0s", "24h", "90d")
    assert (rule.key, rule.sides["provider"].type) == (["refs.payment_id"], ["payment.*"])
    assert rule.severity.default == "medium"
    assert rule.compare.amount is not None
    assert rule.compare.status is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "guess"}, ["kind", "match", "guess"]),
        ({"deadline": "24 hours"}, ["deadline", "'24 hours'", "ms, s, m, h, d or bd", "24h"]),
        ({"deadline": {"internal": "1h"}}, ["deadline", "provider"]),
        (
            {"deadline": {"internal": "1h", "provider": "1h", "bank": "1h"}},
            ["deadline", "'bank'", "internal, provider"],
        ),
        ({"settle": "1bd"}, ["settle", "business days are for deadlines only"]),
        ({"compare": {"amount": {"tolerance": 0.05}}}, ["compare.amount.tolerance", "string", "0.05"]),
        ({"compare": {"amount": {"tolerance": "-1"}}}, ["compare.amount.tolerance", "negative"]),
        ({"compare": {"amount": {"percent": "1e3"}}}, ["compare.amount.percent", "'1e3'"]),
        ({"compare": {"amonut": {}}}, ["compare.amonut", "not a field", "spelling"]),
        ({"compare": {"status": {"map": {"bank": {}}}}}, ["compare.status.map", "'bank'", "internal, provider"]),
        ({"cardinality": "one_to_two"}, ["cardinality", "one_to_one", "one_to_many", "many_to_many", "one_to_two"]),
        ({"duplicates": ["bank"]}, ["duplicates", "'bank'", "internal, provider"]),
        ({"key": "payment_id"}, ["key", "'payment_id'", "refs.<name>"]),
        ({"key": []}, ["key", "at least 1"]),
        ({"severity": {"AmountMismatch": "urgent"}}, ["severity", "AmountMismatch", "critical", "urgent"]),
        ({"severity": {"Wrong": "high"}}, ["severity", "Wrong", "AmountMismatch"]),
        ({"severity": {"AmountMismatch": {"above": {"EURO": {"1": "high"}}}}}, ["severity", "'EURO'", "ISO 4217"]),
        ({"severity": {"AmountMismatch": {"above": {"EUR": {"much": "high"}}}}}, ["severity", "'much'"]),
        ({"sides": {"internal": RULE["sides"]["internal"]}}, ["sides", "at least 2"]),
        ({"sides": sides(type="Payment")}, ["sides.internal.type", "pattern"]),
        ({"sides": sides(sign=2)}, ["sides.internal.sign", "1", "2"]),
        ({"sides": sides(sign={"by": "attrs.direction", "credit": 5})}, ["sides.internal.sign", "credit", "5"]),
        ({"sides": sides(source="stripe")}, ["sides", "select the same source and types"]),
        ({"name": "Payments"}, ["name", "pattern"]),
        ({"until": "2027"}, ["until", "not a field of this format"]),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else "",
)
def test_an_error_names_file_rule_field_and_what_is_allowed(changes: dict[str, Any], words: list[str]) -> None:
    """Someone who has never seen the code can mend the file from the message alone."""
    said = "\n".join(problems(**changes))

    assert said.startswith("my.yaml: rule ")
    assert changes.get("name", "billing.payments") in said
    for word in words:
        assert word in said


def test_a_missing_field_is_named() -> None:
    """As is the number of a rule that has no name."""
    without_key = {name: value for name, value in RULE.items() if name != "key"}
    without_name = {name: value for name, value in RULE.items() if name != "name"}
    with pytest.raises(RulesInvalid) as caught:
        validate_rules({"version": 1, "pack": "billing", "rules": [without_key, without_name]}, "my.yaml")

    assert caught.value.problems == [
        "my.yaml: rule billing.payments: key: is missing",
        "my.yaml: rule number 2: name: is missing",
    ]


def test_all_problems_are_told_at_once() -> None:
    """Not one per attempt; only an unknown kind hides the rest, for nothing says which fields it has."""
    said = problems(cardinality="guess", settle="soon", keep="never")

    assert [line.split(": ")[2] for line in said] == ["settle", "keep", "cardinality"]
    assert len(problems(kind="guess", settle="soon")) == 1


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], ["my.yaml", "mapping", "version, pack and rules"]),
        ({"version": 2, "pack": "billing", "rules": []}, ["my.yaml", "version", "1", "2"]),
        ({"version": 1, "pack": "Bill ing", "rules": []}, ["my.yaml", "pack", "pattern"]),
        ({"version": 1, "pack": "billing", "rules": [RULE, RULE]}, ["my.yaml", "'billing.payments' is given twice"]),
        ({"version": 1, "pack": "billing"}, ["my.yaml", "rules", "is missing"]),
    ],
)
def test_an_error_outside_of_rules_names_file_and_field(document: Any, words: list[str]) -> None:
    """Version, pack and the list itself."""
    with pytest.raises(RulesInvalid) as caught:
        validate_rules(document, "my.yaml")

    for word in words:
        assert word in str(caught.value)


def test_a_file_is_read_like_its_text(tmp_path: Path) -> None:
    """And errors in it carry its path."""
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "pack": "billing", "rules": [RULE]}, sort_keys=False))

    assert load_rules(path) == parse_rules(path.read_text())
    with pytest.raises(RulesInvalid, match=r"none\.yaml: cannot be read"):
        load_rules(tmp_path / "none.yaml")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RulesInvalid, match=r"rules\.yaml: is not UTF-8"):
        load_rules(path)


def test_yaml_errors_carry_line_and_column() -> None:
    """Also for a key that is given twice, of which YAML would silently take the last."""
    with pytest.raises(RulesInvalid, match=r"my\.yaml:3:1: not valid YAML"):
        parse_rules("version: 1\npack: [billing\n", "my.yaml")
    with pytest.raises(RulesInvalid, match=r"my\.yaml:3:1: .*'pack' is given twice"):
        parse_rules("version: 1\npack: billing\npack: bots\n", "my.yaml")
    with pytest.raises(RulesInvalid, match=r"my\.yaml:\d+:\d+: not valid YAML"):
        parse_rules("!!python/object/apply:os.getcwd []", "my.yaml")

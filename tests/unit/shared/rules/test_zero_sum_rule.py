"""Rules of kind `zero_sum` that contradict themselves are refused in words."""

from typing import Any

import pytest

from shared.rules.generation import generation_of, specification
from shared.rules.load import RulesInvalid, validate_rules

RULE: dict[str, Any] = {
    "name": "stack.ledger_consistency",
    "kind": "zero_sum",
    "entries": {"source": "ledger", "type": ["entry.*"]},
    "key": "refs.transaction",
}


def rule_of(**changes: Any) -> Any:
    (rule,) = validate_rules({"version": 1, "pack": "stack", "rules": [RULE | changes]}, "my.yaml").rules
    return rule


def test_what_is_left_out_has_its_default() -> None:
    rule = rule_of()

    assert (rule.deadline, rule.keep, rule.expire) == ("24h", "24h", "90d")
    assert rule.complete.count is None
    assert rule.discrepancy_types == ("LedgerImbalance",)


def test_a_rule_read_back_from_the_log_is_the_same_generation() -> None:
    rule = rule_of(complete={"count": "attrs.entries"}, severity={"LedgerImbalance": {"above": {"EUR": {"1": "high"}}}})
    again = rule_of(**specification(rule))

    assert generation_of("acme", "stack", again) == generation_of("acme", "stack", rule)


def test_another_place_of_the_number_of_entries_is_another_rule() -> None:
    """Held entries carry the number that they stated where it was looked for then."""
    assert rule_of(complete={"count": "attrs.entries"}).fixed != rule_of(complete={"count": "attrs.legs"}).fixed
    assert rule_of(deadline="1h").fixed == rule_of().fixed


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"complete": {"count": "currency"}}, ["complete.count", "'currency'", "attrs.entries"]),
        ({"complete": {"count": "refs.transaction"}}, ["complete.count", "part of the key"]),
        ({"complete": {"number": "attrs.entries"}}, ["complete.number", "not a field"]),
        ({"entries": RULE["entries"] | {"live": []}}, ["entries.live", "no entry would ever count"]),
        ({"keep": "2bd"}, ["keep", "business days are for deadlines only"]),
        ({"deadline": "soon"}, ["deadline", "'soon'", "24h"]),
        ({"severity": {"AmountMismatch": "high"}}, ["severity", "AmountMismatch", "LedgerImbalance"]),
        ({"sides": {}}, ["sides", "not a field of this format"]),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else "",
)
def test_a_contradiction_is_named(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(RulesInvalid) as caught:
        rule_of(**changes)
    told = "\n".join(caught.value.problems)

    assert told.startswith("my.yaml: rule stack.ledger_consistency:")
    for word in words:
        assert word in told

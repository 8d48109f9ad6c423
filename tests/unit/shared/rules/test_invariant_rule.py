"""Rules of kind `invariant` that contradict themselves or can never say anything are refused in words."""

from decimal import Decimal
from typing import Any

import pytest

from shared.rules.compiled import compile_rule
from shared.rules.generation import generation_of, specification
from shared.rules.invariant_rule import InvariantRule
from shared.rules.load import RulesInvalid, validate_rules

DRIFT = {"code": "drift", "field": "attrs.share", "minus": "attrs.target", "warn": "0.05", "critical": "0.10"}
FEES = {"code": "fees", "field": "attrs.fees", "never_decreases": True}
EQUITY = {"code": "equity", "field": "attrs.equity", "above": "0"}
RULE: dict[str, Any] = {
    "name": "bots.state",
    "kind": "invariant",
    "snapshots": {"source": "bot", "type": ["snapshot.*"]},
    "key": "account",
    "checks": [DRIFT, FEES, EQUITY],
}


def rule_of(**changes: Any) -> Any:
    (rule,) = validate_rules({"version": 1, "pack": "bots", "rules": [RULE | changes]}, "my.yaml").rules
    return rule


def compiled(**changes: Any) -> InvariantRule:
    rule = compile_rule("acme", "bots", rule_of(**changes))
    assert isinstance(rule, InvariantRule)
    return rule


def test_the_codes_are_what_it_raises() -> None:
    rule = rule_of()

    assert rule.discrepancy_types == ("drift", "fees", "equity")
    assert (rule.zone, rule.keep, rule.expire) == ("UTC", "400d", "90d")


def test_a_rule_read_back_from_the_log_is_the_same_generation() -> None:
    rule = rule_of(overrides={"bot1": {"enabled": False}, "bot2": {"drift": {"warn": "0.01"}}}, zone="Europe/Berlin")
    again = rule_of(**specification(rule))

    assert generation_of("acme", "bots", again) == generation_of("acme", "bots", rule)


def test_overrides_change_one_account_and_leave_the_rest() -> None:
    rule = compiled(
        overrides={
            "bot1": {"drift": {"warn": "0.01"}},
            "bot2": {"fees": {"enabled": False}},
            "bot3": {"enabled": False},
        }
    )
    own = rule.checks_of(("bot1",))

    assert own is not None
    assert (own[0].code, own[0].warn, own[0].critical) == ("drift", Decimal("0.01"), Decimal("0.10"))
    assert [check.code for check in rule.checks_of(("bot2",)) or ()] == ["drift", "equity"]
    assert rule.checks_of(("bot3",)) is None
    assert rule.checks_of(("bot4",)) == rule.checks


def check(**changes: Any) -> dict[str, Any]:
    return {"checks": [{"code": "some", "field": "attrs.value"} | changes]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (check(), ["check some", "checks nothing", "never_decreases"]),
        (check(min="2", max="1"), ["check some", "min 2 is greater than max 1"]),
        (check(above="2", max="1"), ["above 2 is greater than max 1"]),
        (check(above="1", max="1"), ["leave no allowed value"]),
        (check(min="0", above="0"), ["both lower bounds"]),
        (check(warn="2", critical="1"), ["warn 2 is greater than critical 1"]),
        (check(warn="0"), ["warn", "reached at its own value"]),
        (check(critical="-1"), ["critical", "negative"]),
        (check(warn=0.05), ["warn", "string", "0.05"]),
        (check(max=1), ["max", "string"]),
        (check(max="1e3"), ["max", "'1e3'"]),
        (check(reset="monthly", warn="1"), ["reset is for counters", "never_decreases"]),
        (check(never_decreases=True, reset="weekly"), ["reset", "daily", "monthly", "weekly"]),
        (check(never_decreases=True, minus="attrs.other"), ["never_decreases looks at one field"]),
        (check(never_decreases=True, min="0"), ["never_decreases looks at one field"]),
        (check(never_decreases=True, grows_without="attrs.other"), ["never_decreases looks at one field"]),
        (check(grows_without="attrs.other", max="1"), ["grows_without looks at two fields"]),
        (check(minus="attrs.value"), ["held against itself"]),
        (check(grows_without="attrs.value"), ["held against itself"]),
        (check(field="refs.value", max="1"), ["field", "'refs.value'", "amount or attrs.<name>"]),
        (check(code="enabled", max="1"), ["a word of `overrides`"]),
        (check(code="some code", max="1"), ["code", "pattern"]),
        ({"checks": []}, ["checks", "at least 1"]),
        ({"checks": [FEES, FEES]}, ["code 'fees' is given twice"]),
        ({"overrides": {"bot1": {"feees": {"enabled": False}}}}, ["overrides.bot1", "'feees'", "drift, fees, equity"]),
        ({"overrides": {"bot1": {"drift": {"warn": "0.2"}}}}, ["overrides.bot1.drift", "warn 0.2", "critical 0.10"]),
        ({"overrides": {"bot1": {"drift": {"min": "0.2"}}}}, ["overrides.bot1", "min", "not a field"]),
        ({"severity": {"drift": "low"}}, ["severity", "'drift'", "decide its severity"]),
        ({"severity": {"other": "low"}}, ["severity", "'other'", "drift, fees, equity"]),
        ({"zone": "Berlin"}, ["zone", "'Berlin'", "Europe/Berlin"]),
        ({"snapshots": RULE["snapshots"] | {"sign": -1}}, ["snapshots", "sign"]),
        ({"expire": "2bd"}, ["expire", "business days are for deadlines only"]),
    ],
    ids=str,
)
def test_a_contradiction_is_named(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(RulesInvalid) as caught:
        rule_of(**changes)
    told = "\n".join(caught.value.problems)

    assert told.startswith("my.yaml: rule bots.state:")
    for word in words:
        assert word in told

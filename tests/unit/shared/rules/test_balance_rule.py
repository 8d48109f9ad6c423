"""Rules of kind `balance`: what may be written, what is refused and why, and what becomes of a rule on the way to the matcher."""

from decimal import Decimal
from typing import Any

import pytest

from shared.rules.balance_rule import BalanceRule
from shared.rules.compiled import compile_record, compile_rule, rule_record
from shared.rules.load import RulesInvalid, validate_rules

RULE: dict[str, Any] = {
    "name": "stack.wallets",
    "kind": "balance",
    "movements": {"source": "ledger", "type": ["movement.*"]},
    "snapshots": {"source": "circle", "type": "balance.*"},
    "key": "account",
}
BY_DIRECTION = {"by": "attrs.direction", "credit": 1, "debit": -1}


def problems(**changes: Any) -> list[str]:
    with pytest.raises(RulesInvalid) as caught:
        validate_rules({"version": 1, "pack": "stack", "rules": [RULE | changes]}, "my.yaml")
    return caught.value.problems


def compiled(**changes: Any) -> BalanceRule:
    """As the matcher has it: through the record in the log."""
    (model,) = validate_rules({"version": 1, "pack": "stack", "rules": [RULE | changes]}).rules
    rule = compile_record(rule_record("acme", "stack", model, 1))
    assert rule == compile_rule("acme", "stack", model) or isinstance(rule, BalanceRule)
    assert isinstance(rule, BalanceRule)
    return rule


def test_what_is_left_out_has_the_defaults_of_the_docs() -> None:
    rule = compiled()

    assert (rule.settle_ms, rule.keep_ms, rule.expire_ms) == (0, 7 * 86_400_000, 90 * 86_400_000)
    assert (rule.counts, rule.given_opening("w1", "EUR"), rule.watch.enabled) == (False, None, True)
    assert rule.watch.allowance(Decimal(1000)) == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"opening": 5}, ["opening", "as a string", "snapshot"]),
        ({"opening": "first"}, ["opening", "'first'", "snapshot"]),
        ({"opening": {"w1": {"EURO": "1"}}}, ["opening", "'EURO'", "ISO 4217"]),
        ({"opening": {"w1": {"EUR": 1.5}}}, ["opening", "w1.EUR", "strings", "1.5"]),
        ({"opening": {"w1": "5"}}, ["opening.w1", "amounts by currency", '{EUR: "50.00"}']),
        ({"measure": "count", "opening": {"w1": {"EUR": "1"}}}, ["opening.w1", "count", '"0"']),
        ({"measure": "sum"}, ["measure", "amount", "count"]),
        ({"tolerance": 0.01}, ["tolerance", "string", "0.01"]),
        ({"tolerance_bps": "-5"}, ["tolerance_bps", "negative"]),
        ({"settle": "8d"}, ["settle", "8d", "keep (7d)"]),
        ({"keep": "7d", "expire": "1d"}, ["expire", "1d", "keep (7d)"]),
        ({"settle": "1bd"}, ["settle", "business days"]),
        ({"key": ["account", "currency"]}, ["key", "currency is always told apart"]),
        ({"snapshots": {"source": "circle", "type": "balance.*", "sign": -1}}, ["snapshots", "sign"]),
        ({"snapshots": {"source": "circle", "type": "balance.*", "live": ["ok"]}}, ["snapshots", "live"]),
        ({"movements": {"source": "ledger", "type": "movement.*", "live": []}}, ["movements.live", "no status"]),
        ({"snapshots": {"source": "ledger", "type": "movement.total"}}, ["snapshots", "'movement.total'", "movements"]),
        ({"snapshots": {"source": "ledger", "type": "*"}}, ["snapshots", "'*'"]),
        ({"overrides": {"w1": {"tolerence": "1"}}}, ["overrides.w1.tolerence", "not a field"]),
        ({"overrides": {"w1": {"severity": "urgent"}}}, ["overrides.w1.severity", "critical"]),
        ({"severity": {"AmountMismatch": "high"}}, ["severity", "'AmountMismatch'", "BalanceMismatch"]),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(changes: dict[str, Any], words: list[str]) -> None:
    (problem,) = problems(**changes)

    assert problem.startswith("my.yaml: rule stack.wallets: ")
    assert [word for word in words if word not in problem] == []


def test_one_source_may_say_both_with_types_apart() -> None:
    rule = compiled(snapshots={"source": "ledger", "type": ["balance.*"]})

    assert rule.snapshots_source == "ledger"


def test_openings_survive_the_log() -> None:
    rule = compiled(opening={"w1": {"EUR": "-50.00"}})

    assert rule.given_opening("w1", "EUR") == Decimal(-50)
    assert rule.given_opening("w1", "USD") is None
    assert compiled(opening="-1.5").given_opening("w9", "EUR") == Decimal("-1.5")
    assert compiled(measure="count", opening={"bot": "3"}).given_opening("bot", None) == 3


def test_overrides_survive_the_log() -> None:
    """What is left out is as the rule says."""
    rule = compiled(
        tolerance="0.01",
        tolerance_bps=5,
        movements=RULE["movements"] | {"sign": BY_DIRECTION},
        overrides={
            "w1": {"tolerance": "7"},
            "w2": {"enabled": False, "severity": "critical"},
            "w3": {"tolerance_bps": 0},
        },
    )

    assert rule.watch.allowance(Decimal(-20_000)) == 10
    assert rule.watch_of("w1").allowance(Decimal(100)) == 7
    assert rule.watch_of("w3").allowance(Decimal(20_000)) == Decimal("0.01")
    assert (rule.watch_of("w2").enabled, rule.watch_of("w2").severity_of("BalanceMismatch", None, None)) == (
        False,
        "critical",
    )


def test_keep_longer_than_the_default_of_expire_stretches_it() -> None:
    assert compiled(keep="365d").expire_ms == 365 * 86_400_000

"""The stack pack's six checks on the examples: all pass on clean data, each fails on data corrupted for it, by the right amount."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shared.packs.stack import CHECK_TYPES, check_type_of, rules_of_checks
from shared.rules.load import load_rules

ROOT = Path(__file__).parents[3]
RULES = ROOT / "shared/packs/stack/rules.yaml"
EXAMPLES = ROOT / "examples/stack"

USDC, USD = "USDC", "USD"
FOUND: dict[str, set[tuple[str, str, str, str, str]]] = {
    "ledger_consistency": {
        ("stack.ledger_consistency", "LedgerImbalance", "t5", "-0.18", USD),
        ("stack.ledger_consistency.accounts", "BalanceMismatch", "payables", "-0.18", USD),
    },
    "circle_balance": {
        ("stack.circle_balance", "BalanceMismatch", "usdc_buffer", "-10.000000", USDC),
        ("stack.circle_balance.users", "BalanceMismatch", "circle:w2", "-10.000000", USDC),
    },
    "alpaca_balance": {
        ("stack.alpaca_balance", "BalanceMismatch", "alpaca_exposure", "0.50", USD),
        ("stack.alpaca_balance.users", "BalanceMismatch", "alpaca:a1", "0.50", USD),
    },
    "deposits": {
        ("stack.deposits", "AmountMismatch", "d2", "5.000000", USDC),
        ("stack.deposits", "MissingInternalRecord", "d9", "12.000000", USDC),
    },
    "conversion_jobs": {
        ("stack.conversion_jobs", "MissingInternalRecord", "c2", "50.000000", USDC),
        ("stack.conversion_jobs", "MissingInternalRecord", "c2", "-49.95", USD),
    },
    "withdrawals": {("stack.withdrawals", "AmountMismatch", "wd1", "4.500000", USDC)},
}


def replay(name: str) -> list[dict[str, Any]]:
    told = subprocess.run(
        [
            sys.executable,
            "-m",
            "tieout",
            "replay",
            f"{name}.jsonl",
            "--rules",
            str(RULES),
            "--checks",
            "--strict",
            "--until",
            "2026-11-20T12:00:00Z",
        ],
        cwd=EXAMPLES,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    return [json.loads(line) for line in told.stdout.splitlines()]


def test_all_six_checks_pass_on_clean_data() -> None:
    """Nothing is raised, and every balance and every transaction was judged: silence for want of data is no pass."""
    results = replay("clean")
    assert [one for one in results if "id" in one] == []
    passed = [one["rule"] for one in results if one["result"] == "passed"]
    assert {one["result"] for one in results} == {"opening", "passed"}
    assert {rule: passed.count(rule) for rule in passed} == {
        "stack.ledger_consistency": 6,
        "stack.ledger_consistency.accounts": 3,
        "stack.circle_balance": 1,
        "stack.circle_balance.users": 2,
        "stack.alpaca_balance": 1,
        "stack.alpaca_balance.users": 2,
    }


@pytest.mark.parametrize("check", CHECK_TYPES)
def test_a_check_fails_on_data_corrupted_for_it(check: str) -> None:
    """It fails by the planted amount, and no other check does."""
    raised = [one for one in replay(check) if "id" in one]
    assert {one["state"] for one in raised} == {"raised"}
    found = {(one["rule"], one["type"], one["key"], one["difference"], one["currency"]) for one in raised}
    assert found == FOUND[check]
    assert len(raised) == len(FOUND[check])
    assert {check_type_of(one["rule"]) for one in raised} == {check}


def test_every_rule_belongs_to_exactly_one_check() -> None:
    """A rule that no check names would fail unseen by people who look at checks."""
    named = [rule for rules in rules_of_checks().values() for rule in rules]
    assert sorted(named) == sorted(rule.name for rule in load_rules(RULES).rules)
    assert tuple(rules_of_checks()) == CHECK_TYPES
    assert check_type_of("billing.payments") is None

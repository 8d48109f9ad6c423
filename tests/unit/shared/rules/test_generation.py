"""A generation is a name for everything a rule says."""

from decimal import Decimal
from typing import Any

import pytest

from shared.contracts.event import from_milliseconds
from shared.rules.compiled import compile_record, rule_record
from shared.rules.duration import parse_duration
from shared.rules.generation import generation_of
from shared.rules.load import validate_rules
from shared.rules.match_rule import compile_match
from shared.rules.model import Rule

PLAIN: dict[str, Any] = {
    "name": "billing.payments",
    "kind": "match",
    "sides": {
        "internal": {
            "source": "ledger",
            "type": ["payment.*"],
            "sign": {"by": "attrs.direction", "credit": 1, "debit": -1},
        },
        "provider": {"source": "stripe", "type": ["payment.*"]},
    },
    "key": ["refs.payment_id", "account"],
    "severity": {
        "default": "low",
        "AmountMismatch": {"above": {"EUR": {"9": "high", "10": "critical"}, "default": {"5": "high"}}},
    },
}


def rule_of(**changes: Any) -> Rule:
    (rule,) = validate_rules({"version": 1, "pack": "billing", "rules": [PLAIN | changes]}).rules
    return rule


def test_writing_a_default_does_not_change_the_generation() -> None:
    """Nor does the way it is written down."""
    assert generation_of("acme", "billing", rule_of()) == generation_of(
        "acme", "billing", rule_of(deadline="24h", keep="24h")
    )


@pytest.mark.parametrize(
    "change",
    [
        {"deadline": "25h"},
        {"settle": "1s"},
        {"key": ["account", "refs.payment_id"]},
        {"sides": dict(reversed(PLAIN["sides"].items()))},
    ],
)
def test_every_change_of_meaning_changes_the_generation(change: dict[str, Any]) -> None:
    """The order of sides too: the first one is what is expected."""
    assert generation_of("acme", "billing", rule_of()) != generation_of("acme", "billing", rule_of(**change))


def test_org_and_pack_are_part_of_the_generation() -> None:
    """Two organisations with the same rules file never share state."""
    names = {generation_of(org, pack, rule_of()) for org in ("acme", "globex") for pack in ("billing", "bots")}

    assert len(names) == 4


def test_a_rule_survives_the_log() -> None:
    """What the matcher compiles from a control record is what ingest had."""
    ours, theirs = (
        compile_match("acme", "billing", rule_of()),
        compile_record(rule_record("acme", "billing", rule_of(), 7)),
    )

    assert theirs.generation == ours.generation
    assert theirs.sides == ours.sides
    assert theirs.severity_of("AmountMismatch", None, "EUR") == "low"


def test_the_highest_threshold_passed_gives_the_severity() -> None:
    """By number and not by text; exactly at a threshold it is not passed."""
    severity = compile_match("acme", "billing", rule_of()).severity_of

    assert severity("AmountMismatch", Decimal("-10.01"), "EUR") == "critical"
    assert severity("AmountMismatch", Decimal(10), "EUR") == "high"
    assert severity("AmountMismatch", Decimal(9), "EUR") == "low"
    assert severity("AmountMismatch", Decimal(6), "USD") == "high"
    assert severity("StatusMismatch", Decimal(600), "USD") == "low"


@pytest.mark.parametrize(
    ("text", "milliseconds"), [("0s", 0), ("5ms", 5), ("2m", 120_000), ("24h", 86_400_000), ("90d", 7_776_000_000)]
)
def test_durations_are_whole_numbers_with_a_unit(text: str, milliseconds: int) -> None:
    """From milliseconds to days."""
    assert parse_duration(text).after(1000) == 1000 + milliseconds


@pytest.mark.parametrize("text", ["", "5", "h", "1.5h", "-1h", "1h30m", "1 h", "1H", "\u0661h"])
def test_anything_else_is_no_duration(text: str) -> None:
    """The message shows how to write one."""
    with pytest.raises(ValueError, match="24h"):
        parse_duration(text)


def test_business_days_skip_the_weekend() -> None:
    """From Friday noon to Monday noon; from a Saturday to the end of Monday."""
    friday, saturday = 1_772_798_400_000, 1_772_884_800_000

    assert from_milliseconds(parse_duration("1bd").after(friday)).isoformat() == "2026-03-09T12:00:00+00:00"
    assert from_milliseconds(parse_duration("1bd").after(saturday)).isoformat() == "2026-03-10T00:00:00+00:00"

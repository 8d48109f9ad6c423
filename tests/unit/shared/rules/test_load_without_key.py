"""Errors of rules without a shared key, of sums of sides, of calendars and of duplicates without a common key."""

from datetime import UTC, datetime
from typing import Any

import pytest

from shared.contracts.event import milliseconds
from shared.rules.calendar import find_calendar
from shared.rules.companions import with_companions
from shared.rules.duration import parse_duration
from shared.rules.load import RulesInvalid, validate_rules

SIDES: dict[str, Any] = {
    "internal": {"source": "erp", "type": ["invoice.*"]},
    "provider": {"source": "bank", "type": ["entry.*"]},
}
WITHOUT_KEY = {"name": "bank.invoices", "kind": "match", "sides": SIDES, "partition_by": "currency"}
KEYED = {"name": "bank.invoices", "kind": "match", "sides": SIDES, "key": "refs.invoice"}
DUPLICATES = {"name": "bank.twice", "kind": "duplicates", "sides": SIDES, "same": ["account", "amount"]}
PAYOUT = KEYED | {
    "cardinality": "one_to_many",
    "sides": {**SIDES, "fees": {"source": "bank", "type": ["fee.*"]}},
}


def problems(rule: dict[str, Any]) -> str:
    with pytest.raises(RulesInvalid) as caught:
        validate_rules({"version": 1, "pack": "bank", "rules": [rule]}, "my.yaml")
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (WITHOUT_KEY | {"partition_by": ["record"]}, ["partition_by", "'record'", "no two would ever meet"]),
        (WITHOUT_KEY | {"partition_by": ["amount"]}, ["partition_by", "'amount'", "is no field"]),
        (WITHOUT_KEY | {"accept": 0.3}, ["accept", "0.3", "0.5"]),
        (WITHOUT_KEY | {"accept": "1.5"}, ["accept", "1.5"]),
        (WITHOUT_KEY | {"margin": "0.95"}, ["margin", "0.95", "ambiguous"]),
        (WITHOUT_KEY | {"decide_after": "11d"}, ["deadline", "10d", "decide_after (11d)"]),
        (WITHOUT_KEY | {"decide_after": "1bd"}, ["decide_after", "business days are for deadlines only"]),
        (WITHOUT_KEY | {"score": {"date": {"within": "2bd"}}}, ["score.date.within", "business days"]),
        (WITHOUT_KEY | {"score": {"reference": {"fields": {"internal": ["refs.x"]}}}}, ["fields", "provider"]),
        (WITHOUT_KEY | {"score": {"amount": {"weight": 0}}}, ["score.amount.weight", "greater than or equal to 1"]),
        (WITHOUT_KEY | {"limits": {"candidates_max": 1}}, ["limits.candidates_max", "2"]),
        (WITHOUT_KEY | {"settle": "1h"}, ["settle", "not a field of this format"]),
        (WITHOUT_KEY | {"sides": {"internal": SIDES["internal"]}}, ["sides", "at least 2"]),
        (WITHOUT_KEY | {"severity": {"StatusMismatch": "high"}}, ["severity", "StatusMismatch", "AmbiguousMatch"]),
        (KEYED | {"deadline": "2bd", "calendar": "GERMANY"}, ["calendar", "'GERMANY'", "country", "TARGET"]),
        (KEYED | {"deadline": "2bd", "calendar": "TARGT"}, ["calendar", "do you mean", "TARGET"]),
        (
            KEYED | {"deadline": "2bd", "calendar": {"country": "DE", "subdivision": "XX"}},
            ["calendar", "'XX'", "DE", "BY"],
        ),
        (KEYED | {"calendar": "DE"}, ["calendar", "no deadline is in business days", "2bd"]),
        (PAYOUT | {"compare": {"amount": {"equals": {"internal": ["provider"]}}}}, ["equals", "every side", "fees"]),
        (PAYOUT | {"compare": {"amount": {"equals": {"internal": []}}}}, ["equals", "at least 1"]),
        (
            PAYOUT
            | {"cardinality": "one_to_one", "compare": {"amount": {"equals": {"internal": ["provider", "fees"]}}}},
            ["equals", "one_to_many"],
        ),
        (KEYED | {"duplicates": {"same": ["amount", "currency"]}}, ["duplicates", "by chance", "account"]),
        (KEYED | {"duplicates": {"same": ["id"]}}, ["duplicates", "'id'", "no two would ever agree"]),
        (KEYED | {"duplicates": {"same": ["account"], "sides": ["bank"]}}, ["duplicates", "'bank'", "internal"]),
        (DUPLICATES | {"keep": "5m"}, ["keep", "5m", "within (10m)"]),
        (DUPLICATES | {"watch": ["bank"]}, ["watch", "'bank'", "internal, provider"]),
    ],
)
def test_an_error_names_field_and_what_is_allowed(rule: dict[str, Any], words: list[str]) -> None:
    said = problems(rule)

    assert said.startswith(f"my.yaml: rule {rule['name']}")
    for word in words:
        assert word in said


def test_a_rule_without_a_key_is_told_by_what_it_has_instead() -> None:
    """And one that has neither misses its key."""
    (rule,) = validate_rules({"version": 1, "pack": "bank", "rules": [WITHOUT_KEY | {"accept": 0.9}]}).rules

    assert (rule.accept, rule.partition_by) == ("0.9", ["currency"])
    assert "key: is missing" in problems({name: value for name, value in KEYED.items() if name != "key"})


def test_duplicates_without_a_key_bring_a_rule_once() -> None:
    rules = validate_rules(
        {"version": 1, "pack": "bank", "rules": [KEYED | {"duplicates": {"same": ["account", "amount"]}}]}
    ).rules

    both = with_companions(rules)
    assert [rule.name for rule in both] == ["bank.invoices", "bank.invoices.duplicates"]
    assert with_companions(both) == both
    assert with_companions(validate_rules({"version": 1, "pack": "bank", "rules": [KEYED]}).rules)[1:] == []


def at(text: str) -> int:
    return milliseconds(datetime.fromisoformat(text).replace(tzinfo=UTC))


@pytest.mark.parametrize(
    ("start", "wait", "calendar", "end"),
    [
        ("2026-04-02T10:00", "1bd", None, "2026-04-03T10:00"),
        ("2026-04-02T10:00", "1bd", ("TARGET", None), "2026-04-07T10:00"),
        ("2026-04-03T10:00", "1bd", ("TARGET", None), "2026-04-08T00:00"),
        ("2026-12-24T10:00", "1bd", ("US", None), "2026-12-28T10:00"),
        ("2026-07-02T10:00", "1bd", ("XNYS", None), "2026-07-06T10:00"),
        ("2026-01-05T10:00", "1bd", ("DE", "BY"), "2026-01-07T10:00"),
        ("2026-01-05T10:00", "1bd", ("DE", None), "2026-01-06T10:00"),
        ("2026-11-19T10:00", "1bd", ("AE", None), "2026-11-20T10:00"),
        ("2026-04-02T10:00", "24h", ("TARGET", None), "2026-04-03T10:00"),
    ],
)
def test_business_days_are_counted_on_the_calendar(
    start: str, wait: str, calendar: tuple[str, str | None] | None, end: str
) -> None:
    """Weekends are the calendar's own; what begins on a closed day begins when the next open one does."""
    duration = parse_duration(wait, find_calendar(*calendar)) if calendar else parse_duration(wait)

    assert duration.after(at(start)) == at(end)

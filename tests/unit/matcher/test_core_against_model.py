"""The product and the independent model of the `match` rule say the same of any stream, to the last field."""

from collections import Counter
from datetime import datetime
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings

from shared.contracts.discrepancy import Discrepancy
from tests.model.match_model import run
from tests.model.strategies import Scenario, lawful_scenarios, scenarios
from tests.support.offline import run_offline

THOROUGH = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FIELDS = (
    "id", "org", "rule", "type", "side", "key", "state", "severity", "expected", "actual", "difference", "currency",
    "duplicate", "resolution", "revision", "raised_at", "resolved_at", "expired",
)  # fmt: skip


def plain(one: dict[str, Any]) -> tuple[Any, ...]:
    times = {name: one[name] and datetime.fromisoformat(one[name]) for name in ("raised_at", "resolved_at")}
    return tuple({**one, **times}[name] for name in FIELDS)


def told(discrepancies: list[Discrepancy]) -> list[tuple[Any, ...]]:
    return sorted((plain(one) for one in msgspec.to_builtins(discrepancies)), key=repr)


def assert_same(scenario: Scenario) -> None:
    engine, refused = run_offline(scenario.rules, scenario.events, scenario.until)
    outcome = run(scenario.rules, scenario.events, scenario.until)

    assert Counter(letter.reason for letter in engine.dead_letters) == Counter(outcome.dead_letters)
    assert refused == outcome.refused
    if len(set(outcome.openers)) == len(outcome.openers):  # else two groups share the ids of items and discrepancies
        assert told(engine.last_revisions()) == sorted(map(plain, outcome.discrepancies), key=repr)
        assert sum(item.status == "matched" for item in engine.items.values()) == outcome.matches


@THOROUGH
@given(scenarios())
def test_any_stream_is_told_alike(scenario: Scenario) -> None:
    """Groups are forgotten and expire, ids are reused, adjustments name duplicates, rules compare this or that."""
    assert_same(scenario)


@THOROUGH
@given(lawful_scenarios())
def test_streams_of_the_law_are_told_alike(scenario: Scenario) -> None:
    """Long ones, in which nothing is forgotten, after every deadline and settling time."""
    assert_same(scenario)

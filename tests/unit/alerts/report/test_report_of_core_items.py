"""What the matcher's core publishes adds up in a report: every gap has a cause, whatever stream came in."""

import pytest
from hypothesis import HealthCheck, given, settings

from services.alerts.domain.gap import causes_of, gap_of
from services.alerts.domain.history import item_state
from shared.contracts.item import Item
from tests.model.strategies import Scenario, scenarios
from tests.support.cases import Case, load_match_cases, substitute
from tests.support.offline import run_offline

CASES = load_match_cases()


def unexplained(items: list[Item]) -> list[str]:
    found = []
    for item in items:
        state = item_state(item)
        causes = causes_of(state)
        sums: dict[str, object] = {}
        for (currency, _), amount in causes.items():
            sums[currency] = sums.get(currency, 0) + amount  # type: ignore[operator]  # sums of decimals
        gap = {currency: amount for currency, amount in gap_of(state).items() if amount}
        assert {currency: amount for currency, amount in sums.items() if amount} == gap
        found += [f"{item}: {causes}" for _, cause in causes if cause == "residual"]
    return found


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_every_gap_of_a_case_of_the_match_rule_has_a_cause(case: Case) -> None:
    events = [substitute(event, lambda kind: f"the {kind}") for event in case.events]
    engine, _ = run_offline(case.rules, events, case.until)

    assert unexplained(list(engine.items.values())) == []


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenarios())
def test_every_gap_of_any_stream_has_a_cause(scenario: Scenario) -> None:
    engine, _ = run_offline(scenario.rules, scenario.events, scenario.until)

    assert unexplained(list(engine.items.values())) == []

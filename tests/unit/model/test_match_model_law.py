"""The Law of the `match` rule kind holds for the oracle itself: what is open at the end does not hang on arrival.

What the Law excludes is left out where streams are made (`lawful_scenarios`): groups that `keep` or `expire` end
between two legs, and one id with two contents, of which the first to arrive stays.
"""

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.model.match_model import run
from tests.model.strategies import (
    Scenario,
    lawful_scenarios,
    open_at_end,
    rearranged,
    repeated,
    same_sides,
    scenarios,
)

MODERATE = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
WHOLE = lawful_scenarios()
CUT_ANYWHERE = lawful_scenarios(whole=False)


@MODERATE
@given(WHOLE.flatmap(lambda one: st.tuples(st.just(one), rearranged(one))))
def test_any_order_of_arrival_leaves_the_same_open(pair: tuple[Scenario, Scenario]) -> None:
    """Once every deadline and settling time is over, order decides nothing, whichever side of a deadline a leg was."""
    first, second = (run(one.rules, one.events, one.until) for one in pair)

    assert open_at_end(first) == open_at_end(second)
    assert first.matches == second.matches
    assert sorted(first.dead_letters) == sorted(second.dead_letters)


@MODERATE
@given(CUT_ANYWHERE.flatmap(lambda one: st.tuples(st.just(one), rearranged(one))))
def test_order_within_deadlines_decides_nothing_at_any_time(pair: tuple[Scenario, Scenario]) -> None:
    """Also while deadlines still run, if each leg and the end stay on their side of the deadline."""
    first, second = (run(one.rules, one.events, one.until) for one in pair)
    assume(same_sides(pair[0], first, pair[1], second))

    assert open_at_end(first) == open_at_end(second)
    assert first.matches == second.matches


@MODERATE
@given(st.one_of(WHOLE, CUT_ANYWHERE).flatmap(lambda one: st.tuples(st.just(one), repeated(one))))
def test_redelivery_changes_nothing_at_all(pair: tuple[Scenario, Scenario]) -> None:
    """Not only what is open: no revision and no instant differs, only dead letters come once per delivery."""
    first, second = (run(one.rules, one.events, one.until) for one in pair)

    assert second.discrepancies == first.discrepancies
    assert second.matches == first.matches
    assert set(second.dead_letters) == set(first.dead_letters)


@MODERATE
@given(scenarios())
def test_what_is_published_keeps_its_word(scenario: Scenario) -> None:
    """Of any stream: states, resolutions and times of every last revision fit together."""
    outcome = run(scenario.rules, scenario.events, scenario.until)

    for one in outcome.discrepancies:
        resolved = one["state"] == "resolved"
        assert one["state"] in {"raised", "resolved"}
        assert (one["resolution"] is not None) == resolved == (one["resolved_at"] is not None)
        assert one["revision"] >= (2 if resolved or one["expired"] else 1)
        assert one["raised_at"] <= (one["resolved_at"] or scenario.until)
        assert not (resolved and one["expired"])

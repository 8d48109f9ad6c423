"""The oracle of `zero_sum` answers every case, and keeps the Law: only then may it judge the product."""

from decimal import Decimal

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.model.kinds import run
from tests.model.outcome import CHECK_FIELDS, DISCREPANCY_FIELDS, comparable
from tests.model.strategies_zero_sum import lawful_scenarios, over_at_end, scenarios
from tests.model.stream import Stream, rearranged, repeated
from tests.support.cases import KindCase, kind_complaints, kind_files, load_kind_cases

MODERATE = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
CASES = load_kind_cases("zero_sum")


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_model_answers_the_case(case: KindCase) -> None:
    told = run(case.rule, case.events, case.until)

    assert kind_complaints(case, told.discrepancies, told.checks, told.usage, told.dead_letters) == []
    assert told.refused == case.refused


def test_the_files_are_read_whole() -> None:
    """A loader that skips cases would make every other test of the kind worthless."""
    lines = [line for path in kind_files("zero_sum") for line in path.read_text(encoding="utf-8").splitlines()]
    written = [line for line in lines if line.startswith("  - name: ")]

    assert [case.name for case in CASES] == [line.removeprefix("  - name: ").strip("\"'") for line in written]


@MODERATE
@given(lawful_scenarios().flatmap(lambda one: st.tuples(st.just(one), rearranged(one))))
def test_any_order_of_arrival_leaves_the_same_open(pair: tuple[Stream, Stream]) -> None:
    first, second = (run(one.rule, one.events, one.until) for one in pair)

    assert first.open() == second.open()
    assert comparable(first.dead_letters, ("id", "reason")) == comparable(second.dead_letters, ("id", "reason"))


@MODERATE
@given(lawful_scenarios(whole=False).flatmap(lambda one: st.tuples(st.just(one), rearranged(one))))
def test_order_within_deadlines_decides_nothing_at_any_time(pair: tuple[Stream, Stream]) -> None:
    """Also while deadlines still run, if the end stays on the same side of each."""
    first, second = (run(one.rule, one.events, one.until) for one in pair)
    assume(over_at_end(pair[0], first) == over_at_end(pair[1], second))

    assert first.open() == second.open()


@MODERATE
@given(lawful_scenarios().flatmap(lambda one: st.tuples(st.just(one), repeated(one))))
def test_redelivery_changes_nothing_at_all(pair: tuple[Stream, Stream]) -> None:
    """Not only what is open: no revision, verdict or instant differs, only dead letters come once per delivery."""
    first, second = (run(one.rule, one.events, one.until) for one in pair)

    assert comparable(second.discrepancies, DISCREPANCY_FIELDS) == comparable(first.discrepancies, DISCREPANCY_FIELDS)
    assert comparable(second.checks, CHECK_FIELDS) == comparable(first.checks, CHECK_FIELDS)
    assert {(one["id"], one["reason"]) for one in second.dead_letters} == {
        (one["id"], one["reason"]) for one in first.dead_letters
    }


@MODERATE
@given(scenarios())
def test_what_is_published_keeps_its_word(stream: Stream) -> None:
    """Of any stream: states, resolutions, times and verdicts of every last revision fit together."""
    told = run(stream.rule, stream.events, stream.until)

    for one in told.discrepancies:
        resolved = one["state"] == "resolved"
        assert (one["resolution"] is not None) == resolved == (one["resolved_at"] is not None)
        assert one["revision"] >= (2 if resolved or one["expired"] else 1)
        assert one["raised_at"] <= (one["resolved_at"] or stream.until)
        assert not (resolved and one["expired"])
        assert one["reason"] == "incomplete" or Decimal(one["difference"]) != 0
    for check in told.checks:
        assert (check["result"] == "passed") == (check["reason"] is None)
        assert check["result"] == "failed" or Decimal(check["actual"]) == 0

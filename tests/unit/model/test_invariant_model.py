"""The oracle of `invariant` answers every case, and keeps its word on any stream: only then may it judge the product."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.model.kinds import run
from tests.model.outcome import CHECK_FIELDS, DISCREPANCY_FIELDS, USAGE_FIELDS, Outcome, comparable
from tests.model.strategies_invariant import lawful_scenarios, scenarios
from tests.model.stream import Stream, interleaved, repeated
from tests.support.cases import KindCase, kind_complaints, kind_files, load_kind_cases

MODERATE = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
CASES = load_kind_cases("invariant")


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_model_answers_the_case(case: KindCase) -> None:
    told = run(case.rule, case.events, case.until)

    assert kind_complaints(case, told.discrepancies, told.checks, told.usage, told.dead_letters) == []
    assert told.refused == case.refused


def test_the_files_are_read_whole() -> None:
    """A loader that skips cases would make every other test of the kind worthless."""
    lines = [line for path in kind_files("invariant") for line in path.read_text(encoding="utf-8").splitlines()]
    written = [line for line in lines if line.startswith("  - name: ")]

    assert [case.name for case in CASES] == [line.removeprefix("  - name: ").strip("\"'") for line in written]


@MODERATE
@given(lawful_scenarios().flatmap(lambda one: st.tuples(st.just(one), interleaved(one))))
def test_accounts_do_not_touch_each_other(pair: tuple[Stream, Stream]) -> None:
    """Order decides within an account, where an older snapshot is not judged, and nowhere else."""
    first, second = (run(one.rule, one.events, one.until) for one in pair)

    assert first.open() == second.open()
    assert comparable(first.checks, CHECK_FIELDS) == comparable(second.checks, CHECK_FIELDS)
    assert comparable(first.usage, USAGE_FIELDS) == comparable(second.usage, USAGE_FIELDS)


@MODERATE
@given(lawful_scenarios().flatmap(lambda one: st.tuples(st.just(one), repeated(one))))
def test_redelivery_changes_nothing_but_stale_verdicts(pair: tuple[Stream, Stream]) -> None:
    first, second = (run(one.rule, one.events, one.until) for one in pair)

    assert comparable(second.discrepancies, DISCREPANCY_FIELDS) == comparable(first.discrepancies, DISCREPANCY_FIELDS)
    assert comparable(judged(second), CHECK_FIELDS) == comparable(judged(first), CHECK_FIELDS)
    assert comparable(second.usage, USAGE_FIELDS) == comparable(first.usage, USAGE_FIELDS)


@MODERATE
@given(scenarios())
def test_what_is_published_keeps_its_word(stream: Stream) -> None:
    """Of any stream: states, resolutions, verdicts and usage fit together."""
    told = run(stream.rule, stream.events, stream.until)

    codes = {check["code"] for check in stream.rule["checks"]}
    for one in told.discrepancies:
        resolved = one["state"] == "resolved"
        assert one["type"] in codes
        assert one["resolution"] == ("corrected" if resolved else None)
        assert one["revision"] >= (2 if resolved else 1)
        assert (one["resolved_at"] is not None) == resolved
    for check in told.checks:
        assert (check["expected"] is not None) == (check["result"] == "failed")
        assert (check["reason"] == "not a number") == (check["result"] == "error")
        assert (check["code"] is None) == (check["result"] == "stale")
    raised = {(one["org"], one["key"], one["type"]) for one in told.discrepancies}
    assert raised >= {(one["org"], one["key"], one["code"]) for one in told.checks if one["result"] == "failed"}


def judged(told: Outcome) -> list[dict[str, Any]]:
    return [check for check in told.checks if check["result"] != "stale"]

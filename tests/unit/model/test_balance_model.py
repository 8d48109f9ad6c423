"""The oracle of `balance` answers every case, and keeps the Law for movements: only then may it judge the product."""

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.model.kinds import run
from tests.model.outcome import CHECK_FIELDS, DISCREPANCY_FIELDS, Outcome, comparable
from tests.model.strategies_balance import lawful_scenarios, movements_rearranged, scenarios
from tests.model.stream import Stream, repeated
from tests.support.cases import KindCase, kind_complaints, kind_files, load_kind_cases

MODERATE = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
CHECK_FIELDS_OF_DRIFT = ("org", "key", "currency", "as_of", "result", "expected", "actual", "difference")
CASES = load_kind_cases("balance")


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_model_answers_the_case(case: KindCase) -> None:
    told = run(case.rule, case.events, case.until)

    assert kind_complaints(case, told.discrepancies, told.checks, told.usage, told.dead_letters) == []
    assert told.refused == case.refused


def test_the_files_are_read_whole() -> None:
    """A loader that skips cases would make every other test of the kind worthless."""
    lines = [line for path in kind_files("balance") for line in path.read_text(encoding="utf-8").splitlines()]
    written = [line for line in lines if line.startswith("  - name: ")]

    assert [case.name for case in CASES] == [line.removeprefix("  - name: ").strip("\"'") for line in written]


@MODERATE
@given(lawful_scenarios().flatmap(lambda one: st.tuples(st.just(one), movements_rearranged(one))))
def test_any_order_of_movements_leaves_the_same_open(pair: tuple[Stream, Stream]) -> None:
    """Readings keep their places, because an older one that comes later is lost."""
    first, second = (run(one.rule, one.events, one.until) for one in pair)

    assert first.open() == second.open()
    assert comparable(last_verdicts(first), CHECK_FIELDS_OF_DRIFT) == comparable(
        last_verdicts(second), CHECK_FIELDS_OF_DRIFT
    )
    assert comparable(first.dead_letters, ("id", "reason")) == comparable(second.dead_letters, ("id", "reason"))


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
    """Of any stream: states, resolutions, figures and verdicts fit together."""
    told = run(stream.rule, stream.events, stream.until)

    for one in told.discrepancies:
        resolved = one["state"] == "resolved"
        assert (one["resolution"] is not None) == resolved == (one["resolved_at"] is not None)
        assert one["revision"] >= (2 if resolved else 1)
        assert Decimal(one["difference"]) == Decimal(one["actual"]) - Decimal(one["expected"]) != 0
    for check in told.checks:
        assert (check["result"] == "error") == (check["reason"] is not None)
        if check["result"] not in ("passed", "failed"):
            continue
        drift, explained = Decimal(check["difference"]), Decimal(check["explained"])
        assert drift == explained + Decimal(check["unexplained"])
        assert abs(explained) <= abs(drift)
        assert explained * drift >= 0


def last_verdicts(told: Outcome) -> list[dict[str, Any]]:
    """Of each account and currency the verdict that stands: the one of its latest judged reading."""
    verdicts = [check for check in told.checks if check["result"] in ("passed", "failed")]
    last = {(one["org"], one["key"], one["currency"]): one for one in sorted(verdicts, key=as_of)}
    return list(last.values())


def as_of(check: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(check["as_of"])

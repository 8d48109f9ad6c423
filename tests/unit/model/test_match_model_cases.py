"""The oracle answers every case of `tests/cases/match.yaml`: only then may it judge the product."""

from typing import Any

import pytest

from tests.model.match_model import run
from tests.support.cases import EXTRA_MATCH_CASES, MATCH_CASES, Case, differences, load_match_cases, substitute

CASES = load_match_cases() + load_match_cases(EXTRA_MATCH_CASES)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_model_answers_the_case(case: Case) -> None:
    events: list[dict[str, Any]] = []
    for event in case.events:
        events.append(substitute(event, lambda kind: id_of(case, events, kind, event["received_at"])))  # noqa: B023 - called at once
    outcome = run(case.rules, events, case.until)

    assert differences(case.expect, outcome.discrepancies) == []
    assert sorted(outcome.dead_letters) == sorted(case.dead_letters)
    assert outcome.refused == case.refused
    assert case.matches is None or outcome.matches == case.matches


def id_of(case: Case, before: list[dict[str, Any]], kind: str, until: str) -> str:
    """The id of the discrepancy of this type that the events before this time raised."""
    known = run(case.rules, before, until)
    return str(next(one["id"] for one in known.discrepancies if one["type"] == kind))


def test_the_file_is_read_whole() -> None:
    """A loader that skips cases would make every other test of the core worthless."""
    lines = [
        line for path in (MATCH_CASES, EXTRA_MATCH_CASES) for line in path.read_text(encoding="utf-8").splitlines()
    ]
    written = [line for line in lines if line.startswith("- name: ")]

    assert [case.name for case in CASES] == [line.removeprefix("- name: ").strip("\"'") for line in written]


def test_differences_tells_what_is_missing_and_what_is_too_much() -> None:
    """Comparing with a case fails on a wrong field, on a discrepancy too few and on one too many."""
    raised = {"type": "AmountMismatch", "key": "p1", "difference": "1.00"}

    assert differences([{"type": "AmountMismatch", "difference": "1.00"}], [raised]) == []
    assert len(differences([{"type": "AmountMismatch", "difference": "2.00"}], [raised])) == 2
    assert len(differences([raised], [])) == 1
    assert len(differences([], [raised])) == 1

"""The oracle answers every case of `tests/cases/match.yaml`: only then may it judge the product."""

import pytest

from tests.model.match_model import run
from tests.support.cases import MATCH_CASES, Case, differences, load_match_cases, substitute

CASES = load_match_cases()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_model_answers_the_case(case: Case) -> None:
    """The model only asks whether an adjustment names a discrepancy, so any name stands for its id."""
    events = [substitute(event, lambda kind: f"the {kind}") for event in case.events]
    outcome = run(case.rules, events, case.until)

    assert differences(case.expect, outcome.discrepancies) == []
    assert sorted(outcome.dead_letters) == sorted(case.dead_letters)
    assert outcome.refused == case.refused
    assert case.matches is None or outcome.matches == case.matches


def test_the_file_is_read_whole() -> None:
    """A loader that skips cases would make every other test of the core worthless."""
    written = [line for line in MATCH_CASES.read_text(encoding="utf-8").splitlines() if line.startswith("- name: ")]

    assert [case.name for case in CASES] == [line.removeprefix("- name: ").strip("\"'") for line in written]


def test_differences_tells_what_is_missing_and_what_is_too_much() -> None:
    """Comparing with a case fails on a wrong field, on a discrepancy too few and on one too many."""
    raised = {"type": "AmountMismatch", "key": "p1", "difference": "1.00"}

    assert differences([{"type": "AmountMismatch", "difference": "1.00"}], [raised]) == []
    assert len(differences([{"type": "AmountMismatch", "difference": "2.00"}], [raised])) == 2
    assert len(differences([raised], [])) == 1
    assert len(differences([], [raised])) == 1

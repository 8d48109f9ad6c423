"""What is compared of a case of `balance`, `zero_sum` or `invariant`: a comparison that cannot fail tests nothing."""

from dataclasses import replace

import pytest

from tests.support.cases import KindCase, kind_complaints, load_kind_cases

RAISED = {"type": "BalanceMismatch", "key": "w1", "difference": "1.00"}
CHECK = {"key": "w1", "as_of": "2026-11-20T10:00:00Z", "result": "passed"}
USAGE = {"key": "w1", "period": "2026-11", "usage": "1"}
LETTER = {"id": "m1", "reason": "too late"}


@pytest.fixture
def case() -> KindCase:
    return replace(
        load_kind_cases("balance")[0],
        discrepancies=[RAISED],
        checks=[CHECK],
        usage=[USAGE],
        dead_letters=[LETTER],
    )


def test_every_list_is_compared(case: KindCase) -> None:
    """One row too few, too many or otherwise is one complaint or two, in whichever list it is."""
    assert kind_complaints(case, [RAISED], [CHECK], [USAGE], [LETTER]) == []
    assert len(kind_complaints(case, [], [], [], [])) == 4
    assert len(kind_complaints(case, [RAISED] * 2, [CHECK] * 2, [USAGE] * 2, [LETTER] * 2)) == 4
    assert len(kind_complaints(case, [RAISED], [CHECK | {"result": "failed"}], [USAGE], [LETTER])) == 2


def test_verdicts_that_a_case_does_not_write_are_not_looked_at(case: KindCase) -> None:
    silent = replace(case, discrepancies=[], checks=None, usage=None, dead_letters=[])

    assert kind_complaints(silent, [], [CHECK], [USAGE], []) == []
    assert len(kind_complaints(silent, [RAISED], [CHECK], [USAGE], [LETTER])) == 2
    assert len(kind_complaints(replace(silent, checks=[]), [], [CHECK], [], [])) == 1


def test_times_are_compared_as_times(case: KindCase) -> None:
    written_otherwise = CHECK | {"as_of": "2026-11-20T11:00:00.000+01:00"}

    assert kind_complaints(case, [RAISED], [written_otherwise], [USAGE], [LETTER]) == []

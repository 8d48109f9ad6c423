"""Every case of match_without_key.yaml and duplicates.yaml through the product's extraction and core."""

import msgspec
import pytest

from tests.support.cases import MATCH_CASES, Case, differences, load_match_cases
from tests.support.offline import run_case

CASES = [
    case
    for name in ("match_without_key.yaml", "duplicates.yaml")
    for case in load_match_cases(MATCH_CASES.with_name(name))
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(case: Case) -> None:
    engine, refused = run_case(case)
    assert differences(case.expect, msgspec.to_builtins(engine.last_revisions())) == []
    assert sorted(letter.reason for letter in engine.dead_letters) == sorted(case.dead_letters)
    assert refused == case.refused
    if case.matches is not None:
        assert sum(item.status == "matched" for item in engine.items.values()) == case.matches

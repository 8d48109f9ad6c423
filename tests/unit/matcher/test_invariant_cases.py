"""Every case of tests/cases/invariant.yaml and extra_invariant.yaml through the product's extraction and core."""

import pytest

from tests.support.cases import KindCase, load_kind_cases
from tests.support.verdicts import complaints

CASES = load_kind_cases("invariant")


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(case: KindCase) -> None:
    assert complaints(case) == []

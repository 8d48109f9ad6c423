"""Every case of tests/cases/balance.yaml and extra_balance.yaml through the product's extraction and core."""

import pytest

from tests.support.cases import KindCase, load_kind_cases
from tests.support.verdicts import complaints

CASES = load_kind_cases("balance")


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(case: KindCase) -> None:
    assert complaints(case) == []

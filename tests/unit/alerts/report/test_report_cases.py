"""Every case of `tests/cases/report.yaml` gives the figures written there."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
import yaml

from services.alerts.domain.figures import PriorChange
from services.alerts.domain.report import make_report
from tests.unit.alerts.report.report_cases import REPORT_CASES, ReportCase, load_report_cases

CASES = load_report_cases()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_case_gives_its_figures(case: ReportCase) -> None:
    report = make_report("acme", case.period, case.rules, case.reading)

    assert list(case.expect) == list(report.reports)
    for rule, expected in case.expect.items():
        actual = msgspec.to_builtins(report.reports[rule])
        assert expected == {figure: _as_in_cases(actual[figure]) for figure in expected}


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_gaps_and_residual_add_up_to_last_side_minus_first(case: ReportCase) -> None:
    """The bridge from the internal to the provider total holds in every case, whatever it is about."""
    report = make_report("acme", case.period, case.rules, case.reading)

    for rule in case.rules:
        figures = report.reports[rule.name]
        first, last = (figures.totals[side] for side in (rule.sides[0], rule.sides[-1]))
        for currency, residual in figures.residual.items():
            gap = sum((Decimal(amount) for amount in figures.gaps.get(currency, {}).values()), Decimal(residual))
            totals = [Decimal(side[currency].amount) if currency in side else Decimal(0) for side in (first, last)]
            assert totals[1] - totals[0] == gap


def test_the_file_is_read_whole() -> None:
    written = yaml.safe_load(REPORT_CASES.read_text(encoding="utf-8"))["cases"]

    assert len(CASES) == len(written) >= 18


def _as_in_cases(figure: Any) -> Any:
    """The cases name the fields of a prior-period change that carry a figure; its id and period stand beside them."""
    if not isinstance(figure, list):
        return figure
    beside = {"item_id", "period"} & set(PriorChange.__struct_fields__)
    return [{name: value for name, value in row.items() if name not in beside} for row in figure]

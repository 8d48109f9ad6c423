"""The page and its pictures, and the rows of items: what is drawn leads from total to total, whatever the amounts are."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.alerts.domain.correction import CorrectionFigures
from services.alerts.domain.drift import Drift, DriftLine, DriftPoint
from services.alerts.domain.item_rows import safe_cell
from services.alerts.domain.report import make_report
from services.alerts.domain.report_words import type_words
from services.alerts.handlers.reports import pictures
from services.alerts.handlers.reports.page import content_policy, page_of, style_digest
from services.alerts.ports.runs import Run
from tests.unit.alerts.report.report_cases import ReportCase, load_report_cases

CASES = load_report_cases()
AMOUNTS = st.decimals(min_value=-(10**12), max_value=10**12, places=2)
START = datetime(2026, 10, 25, tzinfo=UTC)


def run_of(case: ReportCase) -> Run:
    return Run(
        id="0b5f7f0e-6e0f-4d0a-9a55-0a6d1a1f6f10", org="acme", pack="billing", period=case.period, trigger="manual",
        requested_by="<ann>", status="completed", provisional=False, summary=None, error=None, cut_at=None,
        created_at=START, updated_at=START, completed_at=START, run_type="period", duration_ms=12,
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_every_case_of_a_report_has_a_page_with_its_totals_and_gaps(case: ReportCase) -> None:
    report = make_report("acme", case.period, case.rules, case.reading)

    page = page_of(run_of(case), report, [])

    assert "asked for by &lt;ann&gt;" in page
    for figures in report.reports.values():
        for causes in figures.gaps.values():
            assert all(f"{Decimal(amount):+,f}" in page for amount in causes.values() if Decimal(amount))
        for totals in figures.totals.values():
            assert all(f"{Decimal(total.amount):,f}" in page for total in totals.values())


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_bridge_is_drawn_where_something_lies_between_the_totals_and_no_amount_is_left_out(case: ReportCase) -> None:
    """Equal totals stand in the table of totals; what has no amount has a dash, for an empty cell looks like a fault."""
    report = make_report("acme", case.period, case.rules, case.reading)

    page = page_of(run_of(case), report, [])

    drawn = re.findall(r"<h3>(?:Where the )?([A-Z]+)(?: difference comes from|:.* but these differences)", page)
    assert sorted(drawn) == sorted(
        currency
        for figures in report.reports.values()
        for currency, residual in figures.residual.items()
        if figures.gaps.get(currency) or Decimal(residual)
    )
    assert re.findall(r"<td[^>]*> *[A-Z]{3}</td>(?!<td class=.words)", page) == []


def test_corrections_are_shown_with_how_often_they_helped() -> None:
    report = make_report("acme", CASES[0].period, CASES[0].rules, CASES[0].reading)
    tried = CorrectionFigures(action="refetch", finished=3, succeeded=2, failed=1, success_percent="66.67", outcomes={})

    page = page_of(run_of(CASES[0]), msgspec.structs.replace(report, corrections=[tried]), [])

    assert "Automatic corrections" in page
    assert "66.67 %" in page


def test_the_policy_lets_the_pages_own_style_through_and_nothing_else() -> None:
    page = page_of(run_of(CASES[0]), make_report("acme", CASES[0].period, CASES[0].rules, CASES[0].reading), [])

    assert page.count("<style>") == 1
    assert content_policy().startswith(f"default-src 'none'; style-src {style_digest()}")
    assert re.findall(r"<script| style=|https?://|url[(]|@import", page) == []


@given(AMOUNTS, st.lists(AMOUNTS, max_size=8))
def test_the_steps_of_a_bridge_follow_each_other_and_stay_inside(first: Decimal, amounts: list[Decimal]) -> None:
    rows, _ = pictures.waterfall(first, [(one, True) for one in amounts], first + sum(amounts))

    assert [row.kind for row in rows] == ["total", *("less" if one < 0 else "more" for one in amounts), "total"]
    bars = [tuple(map(float, re.findall(r' (?:x|width)="([-0-9.]+)"', row.drawing))) for row in rows]
    assert all(x >= -1 and x + width <= pictures.WIDTH + pictures.THIN_MIN for x, width in bars)
    ends = [[float(x) for x in re.findall(r'x1="([-0-9.]+)"', row.drawing)] for row in rows]
    places = [end for row in ends for end in row]
    # Each row's connector begins where the one before it ended.
    assert places[0::2] == pytest.approx(places[1::2]) if len(places) % 2 == 0 else True


@given(st.lists(st.tuples(st.integers(0, 24 * 60 - 1), AMOUNTS), min_size=1, max_size=30, unique_by=lambda one: one[0]))
def test_drift_is_drawn_inside_its_frame_and_its_axis_shows_exact_amounts(found: list[tuple[int, Decimal]]) -> None:
    points = [DriftPoint(START + timedelta(minutes=minute), amount, failed=False) for minute, amount in sorted(found)]
    largest = max(abs(amount) for _, amount in found)
    line = DriftLine("stack.cash", "a", None, "EUR", len(points), 0, largest, points)

    drawn = pictures.drift([line], START, START + timedelta(days=1), "Europe/Berlin")

    [path] = re.findall(r'points="([^"]+)"', drawn)
    corners = [tuple(map(float, one.split(","))) for one in path.split()]
    assert all(pictures.DRIFT_LEFT - 1 <= x <= pictures.WIDTH and 0 <= y <= pictures.DRIFT_HEIGHT for x, y in corners)
    assert [x for x, _ in corners] == sorted(x for x, _ in corners)
    assert "0.00</text>" in drawn
    assert Drift("stack.cash", "EUR", 1, [line]).lines[0].last == points[-1].difference


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_a_cell_that_a_spreadsheet_would_run_becomes_text(start: str) -> None:
    assert safe_cell(f"{start}1+1") == f"'{start}1+1"
    assert safe_cell(f"a{start}1") == f"a{start}1"


def test_types_are_read_as_words() -> None:
    assert [type_words(one) for one in ("MissingProviderRecord", "within_tolerance", "adjusted")] == [
        "Missing provider record", "Within tolerance", "Adjusted",
    ]  # fmt: skip

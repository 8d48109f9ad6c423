"""The picture of a budget: it ends where the figures are, whatever happened, and holds nothing that could run."""

import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from services.alerts.domain.budget import TOP_UP, Budget, State, Wish, after, follow, opened, reconcile
from services.alerts.domain.budget_health import Recorded
from services.alerts.domain.budget_picture import HEIGHT, WIDTH, draw, points

AT = datetime(2025, 1, 1, 12, tzinfo=UTC)
SVG = "{http://www.w3.org/2000/svg}"


def made(total: str = "24.96", name: str = "claude") -> State:
    amount = Decimal(total)
    return opened(
        Budget(budget=name, provider="anthropic", currency="USD", total=amount, opening=amount, created_at=AT)
    )


def lived(state: State, days: list[tuple[Decimal, Decimal, Decimal]]) -> tuple[State, list[Recorded]]:
    """Each day: usage, what escaped the tracking, and what the total grows by."""
    rows: list[Recorded] = []
    for number, (usage, escaped, added) in enumerate(days):
        state = follow(state, usage)
        total = state.budget.total + added
        left = min(state.remaining + added - escaped, total)
        wish = Wish(remaining=left, total=total, reason="console & <read>")
        for entry in reconcile(state, wish):
            state = after(state, entry)
            at = AT + timedelta(days=number, seconds=len(rows))
            values = {name: getattr(entry, name) for name in entry.__struct_fields__ if name != "total"}
            rows.append(
                Recorded(
                    id=len(rows) + 1,
                    reconciliation_date=f"{at:%Y-%m-%d}",
                    reconciled_by="me",
                    created_at=at,
                    budget="claude",
                    provider="anthropic",
                    currency="USD",
                    actor="me",
                    **values,
                )
            )
    return state, rows


CENTS = st.decimals(0, 3, places=2)
DAYS = st.lists(
    st.tuples(CENTS, st.decimals(-1, 3, places=2), st.sampled_from([Decimal(0), Decimal(0), Decimal(10)])), max_size=6
)


@settings(max_examples=60, deadline=None)
@given(days=DAYS, extra=CENTS, hours=st.integers(0, 24 * 800))
def test_the_picture_ends_where_the_figures_are(days, extra, hours: int):
    """Tracked, plugged and total of every point add up; places lie in the picture; the sentence is exact."""
    state, rows = lived(made("100.00"), days)
    state = follow(state, extra)
    now = (rows[-1].created_at if rows else AT) + timedelta(hours=hours)
    found = points(state, rows, now)
    assert (found[0].tracked, found[0].plugged, found[0].total) == (0, 0, Decimal("100.00"))
    assert (found[-1].tracked, found[-1].plugged) == (state.tracked_usage, state.plugged)
    assert [point.at for point in found] == sorted(point.at for point in found)
    totals = {point.total for point in found}
    top_ups = sum(row.adjustment_reason == TOP_UP for row in rows)
    assert totals == {Decimal(100) + 10 * number for number in range(top_ups + 1)}
    root = ET.fromstring(draw(state, rows, now))
    assert f"= {state.used:.2f} USD used" in str(root.find(f"{SVG}title").text)  # type: ignore[union-attr]
    for shape in [*root.iter(f"{SVG}polygon"), *root.iter(f"{SVG}polyline")]:
        for point in str(shape.get("points")).split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= WIDTH
            assert 0 <= y <= HEIGHT


def test_a_budget_without_rows_has_a_picture_too():
    """Nothing used, nothing recorded, even nothing to spend."""
    for total in ("24.96", "0"):
        root = ET.fromstring(draw(made(total), [], AT))
        assert "0 reconciliations" in str(root.find(f"{SVG}desc").text)  # type: ignore[union-attr]


def test_names_and_reasons_are_text():
    """They stand escaped, so that no reason becomes a part of the drawing."""
    state, rows = lived(made(name="<script>alert(1)</script>"), [(Decimal(1), Decimal(2), Decimal(0))])
    svg = draw(state, rows, AT + timedelta(days=3))
    assert "<script" not in svg
    assert "console &amp; &lt;read&gt;" in svg

"""Laws of a run's figures over generated items, and an independent recomputation that shares no code with the domain."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.alerts.domain.figures import Report
from services.alerts.domain.gap import causes_of, gap_of
from services.alerts.domain.history import DiscrepancyHistory, ItemState, RaisedType, SideState, SideTotal
from services.alerts.domain.period import Period
from services.alerts.domain.report import Reading, RuleSides, make_report
from tests.unit.alerts.report.scenarios import Scenario, histories, scenarios

NOVEMBER = Period(date(2026, 11, 1), date(2026, 12, 1), "UTC")
AT = datetime(2026, 12, 2, tzinfo=UTC)
BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A machine that others use draws slowly; that says nothing about the law."""
RULE = RuleSides("billing.payments", ("internal", "provider"))


def report_of(items: list[ItemState], discrepancies: list[DiscrepancyHistory] | None = None) -> Report:
    reading = Reading(at=AT, progress=AT, items=[[item] for item in items], discrepancies=discrepancies or [])
    return make_report("acme", NOVEMBER, [RULE], reading)


@BUSY
@given(st.lists(scenarios(), max_size=30))
def test_gaps_of_consistent_items_add_up_with_residual_zero(found: list[Scenario]) -> None:
    figures = report_of([one.item(place) for place, one in enumerate(found)]).reports[RULE.name]

    assert {Fraction(amount) for amount in figures.residual.values()} <= {Fraction(0)}
    assert figures.verdict == ("provisional" if figures.items.pending else "complete")
    for currency in figures.residual:
        bridge = sum((Fraction(amount) for amount in figures.gaps.get(currency, {}).values()), Fraction(0))
        internal, provider = (figures.totals[side].get(currency) for side in RULE.sides)
        last = Fraction(provider.amount) if provider else Fraction(0)
        assert last - (Fraction(internal.amount) if internal else Fraction(0)) == bridge


@BUSY
@given(scenarios())
def test_every_cause_of_an_item_together_is_its_gap(scenario: Scenario) -> None:
    item = scenario.item(1)
    by_currency: dict[str, Fraction] = {}
    for (currency, _), amount in causes_of(item).items():
        by_currency[currency] = by_currency.get(currency, Fraction(0)) + Fraction(amount)

    gap = {currency: Fraction(amount) for currency, amount in gap_of(item).items() if amount}
    assert {currency: amount for currency, amount in by_currency.items() if amount} == gap


@BUSY
@given(st.lists(histories(), max_size=20))
def test_opening_plus_new_minus_cleared_is_closing(found: list[DiscrepancyHistory]) -> None:
    figures = report_of([], found).reports[RULE.name]

    for types in figures.open.values():
        for row in types.values():
            assert row.opening + row.new - row.cleared == row.closing == sum(row.ageing.values())
            assert min(row.opening, row.new, row.cleared, row.closing) >= 0


@BUSY
@given(st.lists(scenarios(), max_size=12), st.lists(histories(), max_size=12), st.randoms())
def test_figures_do_not_depend_on_the_order_of_items(found, raised, random) -> None:
    items = [one.item(place) for place, one in enumerate(found)]
    raised = [replace(one, discrepancy_id=f"{place:04d}") for place, one in enumerate(raised)]
    mixed, mixed_raised = list(items), list(raised)
    random.shuffle(mixed)
    random.shuffle(mixed_raised)

    assert msgspec.json.encode(report_of(items, raised)) == msgspec.json.encode(report_of(mixed, mixed_raised))


@settings(BUSY, max_examples=200)
@given(st.lists(scenarios(), max_size=30))
def test_a_slow_recomputation_gives_the_same_figures(found: list[Scenario]) -> None:
    """The oracle works on the generated amounts, not on items: cents as integers, percentages by long division."""
    figures = msgspec.to_builtins(report_of([one.item(place) for place, one in enumerate(found)]).reports[RULE.name])
    counted = [one for one in found if one.internal or one.provider]

    matched = [one for one in counted if one.status == "matched"]
    assert figures["items"]["total"] == len(counted)
    assert figures["items"]["matched"] == len(matched)
    assert figures["matched_percent"]["count"] == percent_by_long_division(len(matched), len(counted))
    for side in RULE.sides:
        cents: dict[str, list[int]] = {}
        for one in counted:
            cents.setdefault(one.currency_of(side), []).extend(getattr(one, side))
        expected = {
            currency: {"count": len(amounts), "amount": as_text(sum(amounts))}
            for currency, amounts in cents.items()
            if amounts
        }
        assert figures["totals"][side] == expected
    values: dict[str, list[tuple[int, bool]]] = {}
    for one in counted:
        side = "internal" if one.internal else "provider"
        values.setdefault(one.currency_of(side), []).append((sum(getattr(one, side)), one.status == "matched"))
    assert figures["matched_percent"]["value"] == {
        currency: percent_by_long_division(sum(cents for cents, is_match in rows if is_match), sum(c for c, _ in rows))
        for currency, rows in values.items()
    }


def _item(**fields) -> ItemState:
    base = {
        "item_id": "i",
        "rule": RULE.name,
        "key": "p1",
        "status": "matched",
        "at": AT - timedelta(days=5),
        "occurred_at": AT - timedelta(days=6),
        "live": True,
        "sides": {},
    }
    return ItemState(**{**base, **fields})


def _side(amount: str | None, adjusted: str | None = None, currency: str = "EUR") -> SideState:
    return SideState(
        totals={currency: SideTotal(1, Decimal(amount))} if amount else {},
        adjusted={currency: Decimal(adjusted)} if adjusted else {},
    )


def _causes(item: ItemState) -> dict[tuple[str, str], str]:
    return {place: str(amount) for place, amount in causes_of(item).items()}


def test_an_adjustment_is_a_cause_of_its_own_on_either_side() -> None:
    """An entry that makes a pair agree explains the gap that the live records still have."""
    on_first = _item(sides={"internal": _side("100.00", "-2.00"), "provider": _side("98.00")})
    on_last = _item(sides={"internal": _side("100.00"), "provider": _side("98.00", "2.00")})

    assert _causes(on_first) == {("EUR", "adjusted"): "-2.00"}
    assert _causes(on_last) == {("EUR", "adjusted"): "-2.00"}


def test_an_adjustment_that_is_not_enough_leaves_the_difference_to_the_mismatch() -> None:
    item = _item(
        status="discrepant",
        sides={"internal": _side("100.00", "-2.00"), "provider": _side("95.00")},
        raised=(RaisedType("AmountMismatch", Decimal("-3.00"), "EUR", "provider"),),
    )

    assert _causes(item) == {("EUR", "AmountMismatch"): "-3.00", ("EUR", "adjusted"): "-2.00"}


def test_what_is_said_about_a_side_in_the_middle_is_no_cause_of_the_gap() -> None:
    """Of three sides the gap is between the first and the last; the difference of the second is its own figure."""
    item = _item(
        status="discrepant",
        sides={"ledger": _side("10.00"), "broker": _side("9.00"), "bank": _side("7.00")},
        raised=(
            RaisedType("AmountMismatch", Decimal("-1.00"), "EUR", "broker"),
            RaisedType("AmountMismatch", Decimal("-3.00"), "EUR", "bank"),
        ),
    )

    assert _causes(item) == {("EUR", "AmountMismatch"): "-3.00"}


def test_where_no_currency_is_compared_one_currency_explains_the_other_and_nothing_else() -> None:
    """One difference is said of all records; what is left in USD is gone from the records without a currency."""

    def item(without: str) -> ItemState:
        return _item(
            status="discrepant",
            sides={
                "internal": SideState({"USD": SideTotal(1, Decimal("100.00")), "XXX": SideTotal(1, Decimal(without))}),
                "provider": SideState({"EUR": SideTotal(1, Decimal("300.00"))}),
            },
            raised=(RaisedType("AmountMismatch", Decimal("100.00"), "EUR", "provider"),),
        )

    assert _causes(item("100.00"))["USD", "other_currencies"] == "-100.00"
    assert _causes(item("99.00"))["USD", "residual"] == "-100.00"


def test_a_duplicate_whose_pair_still_waits_leaves_the_rest_pending() -> None:
    item = _item(
        status="discrepant",
        sides={
            "internal": SideState(totals={"EUR": SideTotal(2, Decimal("20.00"))}),
            "provider": None,
        },
        raised=(RaisedType("DuplicateChargeSuspected", Decimal("-10.00"), "EUR", "internal"),),
    )

    assert _causes(item) == {("EUR", "DuplicateChargeSuspected"): "-10.00", ("EUR", "pending"): "-10.00"}


def percent_by_long_division(part: int, whole: int) -> str | None:
    if not whole:
        return None
    hundredths, rest = divmod(part * 10_000, whole)
    if rest * 2 > whole or (rest * 2 == whole and hundredths % 2):
        hundredths += 1
    return f"{hundredths // 100}.{hundredths % 100:02d}"


def as_text(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


def test_in_a_period_that_goes_on_nothing_is_older_than_the_report() -> None:
    """What was raised an hour ago is not three weeks old because the month has three weeks to go."""
    raised = datetime(2026, 11, 8, 9, tzinfo=UTC)
    found = DiscrepancyHistory(
        discrepancy_id="d1", rule=RULE.name, type="AmountMismatch", key="k", currency="EUR", difference=Decimal(1),
        raised=(raised,), resolved=(),
    )  # fmt: skip

    def ages(at: datetime) -> dict[str, int]:
        reading = Reading(at=at, progress=at, items=[], discrepancies=[found])
        return make_report("acme", NOVEMBER, [RULE], reading).reports[RULE.name].open["EUR"]["AmountMismatch"].ageing

    assert ages(raised + timedelta(hours=1)) == {"0-1": 1, "2-7": 0, "8-30": 0, "30+": 0}
    assert ages(AT) == {"0-1": 0, "2-7": 0, "8-30": 1, "30+": 0}

"""A budget's rows: the worked examples to the cent, what is refused, and that it ties out on every day of any year."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.alerts.domain.budget import (
    TOP_UP,
    AdjustmentDoesNotFit,
    Budget,
    BudgetRefused,
    State,
    Wish,
    after,
    follow,
    opened,
    reconcile,
)
from services.alerts.domain.budget_events import of_entry

AT = datetime(2025, 9, 10, tzinfo=UTC)


def budget(total: str = "24.96", used: str = "0.11", **more: Decimal) -> State:
    amount = Decimal(total)
    made = Budget(
        budget="claude", provider="anthropic", currency="USD", total=amount, opening=amount, created_at=AT, **more
    )
    return follow(opened(made), Decimal(used))


def wish(remaining: str, adjustment: str | None = None, total: str | None = None, reason: str = "sync") -> Wish:
    return Wish(
        remaining=Decimal(remaining),
        adjustment=None if adjustment is None else Decimal(adjustment),
        total=None if total is None else Decimal(total),
        reason=reason,
    )


@pytest.mark.parametrize(
    ("total", "before", "remaining", "used"),
    [("24.96", "24.85", "19.54", "5.42"), ("19.65", "19.54", "14.23", "5.42")],
)
def test_the_worked_examples_come_out_to_the_cent(total: str, before: str, remaining: str, used: str):
    """0.11 tracked and a plug of 5.31 are the 5.42 that were used."""
    state = budget(total)
    (entry,) = reconcile(state, wish(remaining, "-5.31"))
    assert str(entry.budget_before) == before
    assert str(entry.budget_after) == remaining
    assert (str(entry.api_usage_tracked), str(entry.manual_plug_amount)) == ("0.11", "5.31")
    done = after(state, entry)
    assert (str(done.used), done.ties_out) == (used, True)


def test_the_value_just_recorded_changes_nothing():
    """Asked again, there is no row to write."""
    state = budget()
    (entry,) = reconcile(state, wish("19.54"))
    assert reconcile(after(state, entry), wish("19.54")) == []


def test_an_adjustment_that_does_not_fit_is_refused_with_the_expected_figure():
    """The error carries what it must be, and where that comes from."""
    with pytest.raises(AdjustmentDoesNotFit, match=r"-5\.30 USD does not fit.* is -5\.31 USD") as refused:
        reconcile(budget(), wish("19.54", "-5.30"))
    assert (str(refused.value.expected), str(refused.value.tracked_remaining)) == ("-5.31", "24.85")


def test_a_changed_total_is_a_row_of_its_own():
    """The top-up takes the tracked usage and has no plug; the adjustment follows it."""
    state = budget("20.00")
    top_up, entry = reconcile(state, wish("19.54", total="24.96"))
    assert (top_up.adjustment_reason, top_up.manual_plug_amount, str(top_up.budget_after)) == (TOP_UP, 0, "24.85")
    assert (str(entry.budget_before), str(entry.manual_adjustment), entry.api_usage_tracked) == ("24.85", "-5.31", 0)
    assert after(after(state, top_up), entry).ties_out


def test_what_was_tracked_right_is_recorded_with_plug_zero():
    """A confirmed figure takes the usage into a row."""
    (entry,) = reconcile(budget(), wish("24.85"))
    assert (entry.manual_adjustment, entry.manual_plug_amount, str(entry.api_usage_tracked)) == (0, 0, "0.11")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (wish("-0.01"), "remaining: -0.01 is negative"),
        (wish("1", total="-1"), "total: -1 is negative"),
        (wish("30"), "more than the total of 24.96 USD; if money was added, send the new total"),
        (wish("1", reason=" "), "say why"),
        (wish("1", reason=TOP_UP), "kept for changes of the total"),
    ],
)
def test_what_cannot_be_is_refused(asked: Wish, reason: str):
    """Nothing is written for it, and the message says what to send."""
    with pytest.raises(BudgetRefused, match=reason):
        reconcile(budget(), asked)


def test_usage_is_never_negative():
    """What a provider pays back is a row with a reason."""
    with pytest.raises(BudgetRefused, match="never negative"):
        follow(budget(), Decimal("-0.01"))


def test_a_row_tells_the_engine_its_plug_its_reading_and_its_size():
    """The rules of the pack judge them like events of any producer."""
    state = budget(plug_warn=Decimal(1))
    (entry,) = reconcile(state, wish("19.54"))
    plug, reading, size = of_entry(state.budget, 7, entry, AT)
    assert (plug["type"], plug["amount"], plug["attrs"]["direction"]) == ("movement.plug", "5.31", "debit")
    assert (reading["source"], reading["amount"]) == ("console", "19.54")
    assert (size["type"], size["amount"], size["attrs"]["plug_at_own_threshold"]) == (
        "snapshot.reconciliation",
        "5.31",
        "5.31",
    )


MONEY = st.integers(0, 10_000).map(lambda cents: Decimal(cents) / 100)
DAY = st.tuples(
    st.lists(st.decimals("0", "0.5", places=6), max_size=3),
    st.none() | MONEY,
    st.sampled_from(["0", "0", "0", "25.00"]),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(DAY, min_size=365, max_size=365) | st.lists(DAY, max_size=40))
def test_a_budget_ties_out_on_every_day_of_a_year(days: list[tuple[list[Decimal], Decimal | None, str]]):
    """Usage, plugs in both directions and top-ups in any order: total - remaining = tracked + plugged, and the chain holds."""
    state = budget("100.00", "0")
    tracked = plugged = Decimal(0)
    for usages, console, added in days:
        for usage in usages:
            state = follow(state, usage)
            tracked += usage
        if console is not None:
            recorded, total = state.recorded, state.budget.total
            for entry in reconcile(state, wish(str(console), total=str(total + Decimal(added)))):
                assert entry.budget_before == recorded - entry.api_usage_tracked + entry.total - total
                assert entry.budget_after == entry.budget_before + entry.manual_adjustment
                assert entry.manual_plug_amount == -entry.manual_adjustment
                plugged += entry.manual_plug_amount
                state = after(state, entry)
                recorded, total = state.recorded, state.budget.total
        assert state.ties_out
        assert state.budget.total - state.remaining == tracked + plugged == state.tracked_usage + state.plugged

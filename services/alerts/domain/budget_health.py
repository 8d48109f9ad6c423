"""What people should do about their budgets: health of the tracking, recommended actions, a summary in words."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Literal

import msgspec

from services.alerts.domain.budget import TOP_UP, ZERO, State, plus, reaches
from shared.money import exact_sum, format_amount

SHARE_GOOD_MAX = Decimal(5)
SHARE_FAIR_MAX = Decimal(25)
"""Percent of spend that is plug: up to here the tracking is good, fair, and above poor."""
QUIET_MAX = timedelta(days=2)
"""A daily job that failed once is noticed the day after."""
LOW_PERCENT = Decimal(10)
"""Percent of the total that remains, below which more is needed soon."""

_HUNDRED = Decimal(100)
_CENT = Decimal("0.01")
_PERCENT = Context(prec=80, rounding=ROUND_HALF_EVEN)

Health = Literal["good", "fair", "poor", "unknown"]


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `budget_reconciliation`, with who asked for it."""

    id: int
    reconciliation_date: str
    budget_before: Decimal
    manual_adjustment: Decimal
    budget_after: Decimal
    adjustment_reason: str
    api_usage_tracked: Decimal
    manual_plug_amount: Decimal
    reconciled_by: str
    created_at: datetime
    budget: str
    provider: str
    currency: str
    actor: str


def percent(part: Decimal, whole: Decimal) -> Decimal | None:
    """Return the share of `whole` in percent, half-even to 2 places; None of nothing."""
    if not whole:
        return None
    return _PERCENT.divide(_PERCENT.multiply(part, _HUNDRED), whole).quantize(_CENT, context=_PERCENT)


def plug_share(rows: Sequence[Recorded]) -> Decimal | None:
    """Return how much of the rows' spend no tracking saw, in percent; signs do not cancel."""
    plugs = exact_sum(abs(row.manual_plug_amount) for row in rows)
    return percent(plugs, plus(plugs, exact_sum(row.api_usage_tracked for row in rows)))


def health(rows: Sequence[Recorded]) -> Health:
    """Judge the tracking by the share of plugs in recent rows."""
    if not rows:
        return "unknown"
    share = plug_share(rows) or ZERO
    if share <= SHARE_GOOD_MAX:
        return "good"
    return "fair" if share <= SHARE_FAIR_MAX else "poor"


def trend(rows: Sequence[Recorded]) -> Literal["growing", "shrinking", "steady", "unknown"]:
    """Compare the newer half of the plugs with the older one; `rows` have the newest first."""
    plugs = [abs(row.manual_plug_amount) for row in rows if row.adjustment_reason != TOP_UP]
    if len(plugs) < 2:
        return "unknown"
    half = len(plugs) // 2
    newer, older = exact_sum(plugs[:half]), exact_sum(plugs[-half:])
    if newer == older:
        return "steady"
    return "growing" if newer > older else "shrinking"


def actions(state: State, rows: Sequence[Recorded], last_at: datetime | None, now: datetime) -> list[str]:
    """Return what to do, the most urgent first; `rows` are recent, `last_at` is the last row's time ever."""
    name, currency = state.budget.budget, state.budget.currency
    wanted = []
    if not state.ties_out:
        wanted.append(f"{name}: its rows do not add up to what was used; look at its history before anything else")
    for row in rows:
        for threshold, word in ((state.budget.plug_critical, "critical"), (state.budget.plug_warn, "warning")):
            if reaches(row.manual_plug_amount, threshold):
                wanted.append(
                    f"{name}: find what was spent outside the tracking: the plug of "
                    f"{format_amount(row.manual_plug_amount, currency)} {currency} on {row.reconciliation_date} reaches "
                    f"the {word} threshold"
                )
                break
    if last_at is None:
        wanted.append(f"{name}: reconcile it with the provider's console, which nobody has done yet")
    elif now - last_at > QUIET_MAX:
        wanted.append(f"{name}: reconcile it, the last time was on {last_at:%Y-%m-%d}; look whether the daily job runs")
    if health(rows) == "poor":
        wanted.append(f"{name}: track more of its usage, {plug_share(rows)} % of the spend recorded lately is plug")
    left = percent(state.remaining, state.budget.total)
    if left is not None and left < LOW_PERCENT:
        wanted.append(
            f"{name}: top it up soon, {format_amount(state.remaining, currency)} {currency} are left ({left} %)"
        )
    return wanted


def narrate(state: State, last: Recorded | None) -> str:
    """Return the budget in a sentence or two."""
    budget = state.budget

    def money(value: Decimal) -> str:
        return f"{format_amount(value, budget.currency)} {budget.currency}"

    text = (
        f"{budget.budget} ({budget.provider}): {money(state.remaining)} of {money(budget.total)} remain; "
        f"{money(state.used)} used, {money(state.tracked_usage)} of it tracked and {money(state.plugged)} plugged."
    )
    if last is None:
        return f"{text} It has never been reconciled."
    return (
        f"{text} Last reconciled on {last.reconciliation_date} by {last.reconciled_by} ({last.adjustment_reason}), "
        f"plug {money(last.manual_plug_amount)}."
    )

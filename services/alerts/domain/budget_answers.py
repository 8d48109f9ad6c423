"""What budgets answer on every surface. Amounts are exact decimals with the currency's decimals, shown as JSON numbers."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

import msgspec

from services.alerts.domain.budget import State
from services.alerts.domain.budget_health import Health, Recorded, percent
from services.alerts.domain.odometer import Month
from shared.money import format_amount


class BudgetStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How one budget stands."""

    budget: str
    provider: str
    currency: str
    total_budget: Decimal
    remaining_budget: Decimal
    """What the tracking holds remains now."""
    used_budget: Decimal
    api_usage_tracked: Decimal
    """All usage that was tracked."""
    manual_plug_amount: Decimal
    """All plugs."""
    untaken_usage: Decimal
    """Tracked since the last reconciliation; the next one takes it."""
    plug_share_percent: Decimal | None
    """Of what was used, signs counted."""
    used_percent: Decimal | None
    ties_out: bool
    plug_warn: Decimal | None
    plug_critical: Decimal | None
    last_reconciliation: Recorded | None
    other_budgets: Sequence[str]


class Reconciled(msgspec.Struct, frozen=True, kw_only=True):
    """What a reconciliation came to."""

    reconciliation_id: int | None
    """Its last row; null: nothing differed, so nothing was recorded."""
    recorded: Sequence[Recorded]
    repeated: bool
    """The same call came before: these are its rows, nothing was added."""
    updated_budget_status: BudgetStatus


class ReconciliationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How well budgets were reconciled in the last days."""

    days: int
    budgets: Sequence[str]
    recent_reconciliations: Sequence[Recorded]
    total_manual_adjustments: dict[str, Decimal]
    """By currency."""
    total_plugs: dict[str, Decimal]
    plug_share_percent: Decimal | None
    plug_trend: Literal["growing", "shrinking", "steady", "unknown"]
    tracking_health: Health
    ties_out: bool
    recommended_actions: Sequence[str]


class OdometerReading(msgspec.Struct, frozen=True, kw_only=True):
    at: str
    month: str
    reading: Decimal
    closing: bool
    entered_by: str


class OdometerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An odometer: the month it is in, the months before, and what was read."""

    provider: str
    currency: str
    current_month: str
    current_usage: Decimal
    days_until_reset: int
    historic_months: Sequence[Month]
    total_usage: Decimal
    odometer_readings: Sequence[OdometerReading]
    """The newest first, at most 100."""


class ProviderCost(msgspec.Struct, frozen=True, kw_only=True):
    """Spend of one budget, or of an odometer whose provider has no budget."""

    provider: str
    kind: Literal["budget", "odometer"]
    budget: str | None
    currency: str
    spent: Decimal
    remaining: Decimal | None
    total: Decimal | None


class UnifiedCost(msgspec.Struct, frozen=True, kw_only=True):
    """Spend over all providers; currencies are never added to each other."""

    providers: Sequence[ProviderCost]
    total_spent: dict[str, Decimal]
    total_remaining: dict[str, Decimal]


class ReconciliationResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the daily check of one provider came to."""

    provider: str
    success: bool
    manual_adjustment: Decimal | None = None
    error: str | None = None


def money(value: Decimal, currency: str) -> Decimal:
    """Return `value` with the decimals that amounts of its currency are printed with."""
    return Decimal(format_amount(value, currency))


def row_of(row: Recorded) -> Recorded:
    """Return the row with its amounts as they are printed."""
    amounts = ("budget_before", "manual_adjustment", "budget_after", "api_usage_tracked", "manual_plug_amount")
    return msgspec.structs.replace(row, **{name: money(getattr(row, name), row.currency) for name in amounts})


def status_of(state: State, last: Recorded | None, others: Sequence[str]) -> BudgetStatus:
    """Return how `state` is shown."""
    budget = state.budget
    currency = budget.currency
    return BudgetStatus(
        budget=budget.budget,
        provider=budget.provider,
        currency=currency,
        total_budget=money(budget.total, currency),
        remaining_budget=money(state.remaining, currency),
        used_budget=money(state.used, currency),
        api_usage_tracked=money(state.tracked_usage, currency),
        manual_plug_amount=money(state.plugged, currency),
        untaken_usage=money(state.untaken, currency),
        plug_share_percent=percent(state.plugged, state.used),
        used_percent=percent(state.used, budget.total),
        ties_out=state.ties_out,
        plug_warn=None if budget.plug_warn is None else money(budget.plug_warn, currency),
        plug_critical=None if budget.plug_critical is None else money(budget.plug_critical, currency),
        last_reconciliation=None if last is None else row_of(last),
        other_budgets=others,
    )

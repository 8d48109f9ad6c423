"""What people, scripts and agents do with budgets: the one way behind HTTP, MCP and the command."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import msgspec

from services.alerts.domain import odometer
from services.alerts.domain.budget import (
    ZERO,
    Budget,
    BudgetRefused,
    BudgetUnknown,
    CallConflict,
    State,
    Wish,
    plus,
    reconcile,
)
from services.alerts.domain.budget_answers import (
    BudgetStatus,
    OdometerReading,
    OdometerStatus,
    ProviderCost,
    Reconciled,
    ReconciliationStatus,
    UnifiedCost,
    money,
    row_of,
    status_of,
)
from services.alerts.domain.budget_health import Recorded, actions, health, narrate, plug_share, trend
from services.alerts.domain.budget_picture import draw
from services.alerts.ports.budgets import BudgetStore, Call, Odometer, Usage
from shared.money import exact_sum, format_number

DAYS_MAX = 3_660
ROWS_MAX = 1_000
"""Rows of a status: three years of a daily job."""
READINGS_SHOWN_MAX = 100
PICTURE_ROWS_MAX = 4_000
"""Rows of a picture, the newest: ten years of a daily job; more would be narrower than a pixel."""
USAGES_MAX = 500
"""Of one call: more would hold the budget's lock for long."""


class Asker(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks: the key, and what stands in `reconciled_by`."""

    actor: str
    reconciled_by: str


class Budgets:
    """Every write is one transaction. `now` is the clock."""

    def __init__(self, store: BudgetStore, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now

    async def create(
        self,
        org: str,
        budget: str,
        *,
        provider: str,
        currency: str,
        total: Decimal,
        plug_warn: Decimal | None = None,
        plug_critical: Decimal | None = None,
    ) -> BudgetStatus:
        """Make a budget, or change the thresholds of the one there is.

        Raises:
            BudgetRefused: a negative total or threshold, a warning above the critical one.
            CallConflict: there is one of this name with another provider, currency or total.
        """
        _check_budget(total, plug_warn, plug_critical)
        made = Budget(
            budget=budget,
            provider=provider,
            currency=currency,
            total=total,
            opening=total,
            plug_warn=plug_warn,
            plug_critical=plug_critical,
            created_at=self._now(),
        )
        if not await self._store.create(org, made):
            (state,) = await self._store.states(org, budget)
            known = state.budget
            if (known.provider, known.currency, known.total) != (provider, currency, total):
                raise CallConflict(
                    f"budget: {budget!r} exists, of {known.total:f} {known.currency} at {known.provider}; its total is changed "
                    "by reconciling with a new total, its provider and currency never"
                )
            await self._store.set_thresholds(org, budget, plug_warn, plug_critical)
        return await self.status(org, budget)

    async def reconcile(
        self, org: str, wish: Wish, asker: Asker, *, budget: str | None = None, idempotency_key: str | None = None
    ) -> Reconciled:
        """Record what is known to remain; nothing where nothing differs.

        Raises:
            BudgetUnknown: no such budget.
            BudgetRefused: what is asked does not fit; nothing was written.
        """
        call = Call(
            actor=asker.actor,
            reconciled_by=asker.reconciled_by,
            request=_request(wish),
            idempotency_key=idempotency_key,
            at=self._now(),
        )
        moved = await self._store.move(org, budget, call, lambda state: reconcile(state, wish))
        if moved is None:
            raise _unknown(budget)
        last = moved.rows[-1] if moved.rows else await self._last(org, moved.state.budget.budget)
        return Reconciled(
            reconciliation_id=moved.rows[-1].id if moved.rows else None,
            recorded=[row_of(row) for row in moved.rows],
            repeated=moved.repeated,
            updated_budget_status=status_of(moved.state, last, await self._others(org, moved.state)),
        )

    async def track(self, org: str, usages: Sequence[Usage], budget: str | None = None) -> tuple[BudgetStatus, int]:
        """Add usage that a tracker counted; return the budget and how many were new.

        Raises:
            BudgetUnknown: no such budget.
            BudgetRefused: a negative amount, or an id that is known with other content; none was added.
        """
        tracked = await self._store.track(org, budget, usages, self._now())
        if tracked is None:
            raise _unknown(budget)
        state, new = tracked
        last = await self._last(org, state.budget.budget)
        return status_of(state, last, await self._others(org, state)), new

    async def status(self, org: str, budget: str | None = None) -> BudgetStatus:
        """Return how a budget stands.

        Raises:
            BudgetUnknown: no such budget.
        """
        states = await self._store.states(org)
        state = _named(states, budget)
        last = await self._last(org, state.budget.budget)
        return status_of(state, last, [s.budget.budget for s in states if s is not state])

    async def statuses(self, org: str) -> Sequence[BudgetStatus]:
        """Return how every budget stands, the first made first."""
        states = await self._store.states(org)
        return [status_of(state, await self._last(org, state.budget.budget), _names(states, state)) for state in states]

    async def history(
        self, org: str, *, budget: str | None, since: datetime | None, before_id: int | None, limit: int
    ) -> Sequence[Recorded]:
        """Return rows, the newest first; of all budgets where none is named.

        Raises:
            BudgetUnknown: no such budget.
        """
        if budget is not None:
            _named(await self._store.states(org, budget), budget)
        rows = await self._store.history(org, budget, since, before_id, limit)
        return [row_of(row) for row in rows]

    async def reconciliation_status(self, org: str, days: int = 7, budget: str | None = None) -> ReconciliationStatus:
        """Return what was reconciled in the last `days`, how well the tracking does, and what to do.

        Raises:
            BudgetUnknown: no such budget.
            BudgetRefused: not 1 to 3660 days.
        """
        if not 1 <= days <= DAYS_MAX:
            raise BudgetRefused(f"days: {days} is not between 1 and {DAYS_MAX}")
        now = self._now()
        states = await self._store.states(org)
        chosen = states if budget is None else [_named(states, budget)]
        rows = await self._store.history(org, budget, now - timedelta(days=days), None, ROWS_MAX)
        wanted: list[str] = []
        for state in chosen:
            last = await self._last(org, state.budget.budget)
            own = [row for row in rows if row.budget == state.budget.budget]
            wanted += actions(state, own, None if last is None else last.created_at, now)
        return ReconciliationStatus(
            days=days,
            budgets=[state.budget.budget for state in chosen],
            recent_reconciliations=[row_of(row) for row in rows],
            total_manual_adjustments=_by_currency((row.currency, row.manual_adjustment) for row in rows),
            total_plugs=_by_currency((row.currency, row.manual_plug_amount) for row in rows),
            plug_share_percent=plug_share(rows) if len({row.currency for row in rows}) == 1 else None,
            plug_trend=trend(rows),
            tracking_health=health(rows),
            ties_out=all(state.ties_out for state in chosen),
            recommended_actions=wanted or ["nothing to do"],
        )

    async def unified(self, org: str) -> UnifiedCost:
        """Return the cost over all providers; a provider with a budget is counted by it and not by its odometer too."""
        states = await self._store.states(org)
        costs = [_cost_of_budget(state) for state in states]
        covered = {state.budget.provider for state in states}
        odometers = await self._store.odometers(org)
        costs += [_cost_of_odometer(found) for name, found in odometers.items() if name not in covered]
        return UnifiedCost(
            providers=costs,
            total_spent=_by_currency((cost.currency, cost.spent) for cost in costs),
            total_remaining=_by_currency(
                (cost.currency, cost.remaining) for cost in costs if cost.remaining is not None
            ),
        )

    async def odometer(self, org: str, provider: str) -> OdometerStatus:
        """Return an odometer; one without readings is empty.

        Raises:
            BudgetUnknown: nobody has entered a reading of this provider.
        """
        found = (await self._store.odometers(org)).get(provider)
        if found is None:
            raise BudgetUnknown(
                f"there is no odometer of {provider!r} yet: enter a reading with `tieout budget odometer {provider} --read 0.42` "
                "or POST /budget/odometer"
            )
        return await self._shown(org, found)

    async def read_odometer(
        self, org: str, provider: str, value: Decimal, *, month: str | None, currency: str, actor: str
    ) -> OdometerStatus:
        """Enter what the counter shows now, or the final figure of a `month`.

        Raises:
            BudgetRefused: no month, negative, or it goes back outside its reset.
        """
        if month is not None and not odometer.is_month(month):
            raise BudgetRefused(f"month: {month[:20]!r} is no month; write 2025-08")
        zone, at = await self._store.zone(org), self._now()

        def decide(readings: Sequence[odometer.Reading]) -> odometer.Reading:
            if month is None:
                return odometer.read(readings, value, at, zone, actor)
            return odometer.close(readings, value, month, at, zone, actor)

        return await self._shown(org, await self._store.read_odometer(org, provider, currency, decide))

    async def narrator_context(self, org: str) -> str:
        """Return all budgets and odometers in a few sentences."""
        states = await self._store.states(org)
        lines = [narrate(state, await self._last(org, state.budget.budget)) for state in states]
        for found in (await self._store.odometers(org)).values():
            shown = await self._shown(org, found)
            lines.append(
                f"{shown.provider}: {shown.current_usage:f} {shown.currency} in {shown.current_month}, "
                f"{shown.days_until_reset} days until its reset; {shown.total_usage:f} {shown.currency} over all months."
            )
        return "\n".join(lines) or "There are no budgets yet."

    async def picture(self, org: str, budget: str | None = None) -> str:
        """Draw a budget over time, as SVG: tracked usage and plugs, adding up to what was spent.

        Raises:
            BudgetUnknown: no such budget.
        """
        state = _named(await self._store.states(org), budget)
        rows = await self._store.history(org, state.budget.budget, None, None, PICTURE_ROWS_MAX)
        return draw(state, rows[::-1], self._now())

    async def _shown(self, org: str, found: Odometer) -> OdometerStatus:
        now, zone = self._now(), await self._store.zone(org)
        this_month = odometer.month_of(now, zone)
        months = [_printed(month, found.currency) for month in odometer.months(found.readings)]
        readings = sorted(found.readings, key=lambda reading: (reading.at, reading.id), reverse=True)
        return OdometerStatus(
            provider=found.provider,
            currency=found.currency,
            current_month=this_month,
            current_usage=next((m.usage for m in months if m.month == this_month), money(ZERO, found.currency)),
            days_until_reset=odometer.days_until_reset(now.astimezone(ZoneInfo(zone)).date()),
            historic_months=[month for month in months if month.month != this_month],
            total_usage=money(exact_sum(month.usage for month in months), found.currency),
            odometer_readings=[_shown_reading(reading, found.currency) for reading in readings[:READINGS_SHOWN_MAX]],
        )

    async def _last(self, org: str, budget: str) -> Recorded | None:
        return next(iter(await self._store.history(org, budget, None, None, 1)), None)

    async def _others(self, org: str, state: State) -> Sequence[str]:
        return _names(await self._store.states(org), state)


def _check_budget(total: Decimal, warn: Decimal | None, critical: Decimal | None) -> None:
    if total < 0:
        raise BudgetRefused(f"total: {total:f} is negative; send the whole budget, at least 0")
    for name, threshold in (("plug_warn", warn), ("plug_critical", critical)):
        if threshold is not None and threshold <= 0:
            raise BudgetRefused(f"{name}: {threshold:f} is no threshold; send an amount above 0, or leave it out")
    if warn is not None and critical is not None and warn > critical:
        raise BudgetRefused(f"plug_warn: {warn:f} is above plug_critical {critical:f}")


def _request(wish: Wish) -> str:
    """What is asked, so that 19.540 and 19.54 are the same."""
    amounts = (wish.remaining, wish.total, wish.adjustment)
    values = [None if amount is None else format_number(amount, 0) for amount in amounts]
    return msgspec.json.encode([*values, wish.reason]).decode()


def _unknown(budget: str | None) -> BudgetUnknown:
    if budget is None:
        return BudgetUnknown(
            "there are no budgets yet: make one with `tieout budget create claude --provider anthropic --total 24.96` "
            "or PUT /budget/budgets/claude"
        )
    return BudgetUnknown(
        f"there is no budget {budget[:64]!r} in this organisation; `tieout budget status` lists those there are"
    )


def _named(states: Sequence[State], budget: str | None) -> State:
    for state in states:
        if budget is None or state.budget.budget == budget:
            return state
    raise _unknown(budget)


def _names(states: Sequence[State], but: State) -> Sequence[str]:
    return [state.budget.budget for state in states if state.budget.budget != but.budget.budget]


def _by_currency(amounts: Iterable[tuple[str, Decimal]]) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = {}
    for currency, amount in amounts:
        sums[currency] = plus(sums.get(currency, ZERO), amount)
    return {currency: money(amount, currency) for currency, amount in sorted(sums.items())}


def _cost_of_budget(state: State) -> ProviderCost:
    budget = state.budget
    return ProviderCost(
        provider=budget.provider,
        kind="budget",
        budget=budget.budget,
        currency=budget.currency,
        spent=money(state.used, budget.currency),
        remaining=money(state.remaining, budget.currency),
        total=money(budget.total, budget.currency),
    )


def _cost_of_odometer(found: Odometer) -> ProviderCost:
    spent = exact_sum(month.usage for month in odometer.months(found.readings))
    return ProviderCost(
        provider=found.provider,
        kind="odometer",
        budget=None,
        currency=found.currency,
        spent=money(spent, found.currency),
        remaining=None,
        total=None,
    )


def _printed(month: odometer.Month, currency: str) -> odometer.Month:
    return msgspec.structs.replace(month, usage=money(month.usage, currency))


def _shown_reading(reading: odometer.Reading, currency: str) -> OdometerReading:
    return OdometerReading(
        at=reading.at.isoformat().replace("+00:00", "Z"),
        month=reading.month,
        reading=money(reading.value, currency),
        closing=reading.closing,
        entered_by=reading.entered_by,
    )

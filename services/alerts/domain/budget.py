"""A budget ties out: total - remaining = usage that was tracked + plugs, to the cent, after every row.

A plug is spend that the tracking missed, with a reason. Rows are only ever added; each says what the tracking held
remained (`budget_before`), what was known better (`manual_adjustment`) and what remains (`budget_after`).
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

import msgspec

from shared.money import EXACT, format_amount

TOP_UP = "top-up"
"""Reason of the row that a change of the total makes; no other row has it."""
DAILY_CHECK = "daily-reconciliation-check"
CONSOLE_SYNC = "anthropic-console-sync"
REASON_LENGTH_MAX = 255
ZERO = Decimal(0)


class BudgetRefused(ValueError):
    """What was asked does not fit the budget; the message says what to send instead."""


class BudgetUnknown(LookupError):
    """The organisation has no such budget; the message says how to make one."""


class CallConflict(BudgetRefused):
    """An idempotency key, an id of usage or a name comes again with other content; what was first stays."""


class AdjustmentDoesNotFit(BudgetRefused):
    """The adjustment is not what lies between the console's figure and the tracked one."""

    def __init__(self, message: str, expected: Decimal, tracked_remaining: Decimal) -> None:
        super().__init__(message)
        self.expected = expected
        self.tracked_remaining = tracked_remaining


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """An amount of money at a provider, and from which plug on people want to hear of it."""

    budget: str
    provider: str
    currency: str
    total: Decimal
    opening: Decimal
    """The total it began with."""
    plug_warn: Decimal | None = None
    plug_critical: Decimal | None = None
    created_at: datetime


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A budget as its rows and its tracked usage have it."""

    budget: Budget
    recorded: Decimal
    """What remained after the last row; the opening total before the first."""
    untaken: Decimal
    """Usage tracked since the last row."""
    tracked: Decimal
    """Usage tracked, over all rows."""
    plugged: Decimal
    """Plugs, over all rows."""

    @property
    def remaining(self) -> Decimal:
        """What the tracking holds remains now."""
        return minus(self.recorded, self.untaken)

    @property
    def used(self) -> Decimal:
        return minus(self.budget.total, self.remaining)

    @property
    def tracked_usage(self) -> Decimal:
        """All usage that was tracked, also since the last row."""
        return plus(self.tracked, self.untaken)

    @property
    def ties_out(self) -> bool:
        """The identity; false only where somebody changed rows around the database's guards."""
        return minus(self.budget.total, self.recorded) == plus(self.tracked, self.plugged)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One row to add."""

    budget_before: Decimal
    manual_adjustment: Decimal
    budget_after: Decimal
    adjustment_reason: str
    api_usage_tracked: Decimal
    manual_plug_amount: Decimal
    total: Decimal
    """The budget's total from this row on."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody knows of a budget; `adjustment` is held against what it must be, `total` may change it."""

    remaining: Decimal
    reason: str
    total: Decimal | None = None
    adjustment: Decimal | None = None


def plus(left: Decimal, right: Decimal) -> Decimal:
    """Add exactly."""
    return EXACT.add(left, right)


def minus(left: Decimal, right: Decimal) -> Decimal:
    """Subtract exactly."""
    return EXACT.subtract(left, right)


def opened(budget: Budget) -> State:
    """Return the state of a budget without rows and usage."""
    return State(budget=budget, recorded=budget.opening, untaken=ZERO, tracked=ZERO, plugged=ZERO)


def reconcile(state: State, wish: Wish) -> Sequence[Entry]:
    """Return the rows that bring `state` to what is known; none where nothing differs and nothing was tracked since.

    Raises:
        AdjustmentDoesNotFit: the adjustment given is another one; nothing may be written then.
        BudgetRefused: a negative figure, more remaining than the total, a reason that is none or reserved.
    """
    total = state.budget.total if wish.total is None else wish.total
    _check(wish, total, state.budget)
    entries = []
    if total != state.budget.total:
        entries.append(_top_up(state, total))
        state = after(state, entries[0])
    expected = minus(wish.remaining, state.remaining)
    if wish.adjustment is not None and wish.adjustment != expected:
        raise _misfit(state, wish.remaining, wish.adjustment, expected)
    if not expected and not state.untaken and wish.adjustment is None:
        return entries
    entries.append(
        Entry(
            budget_before=state.remaining,
            manual_adjustment=expected,
            budget_after=wish.remaining,
            adjustment_reason=wish.reason,
            api_usage_tracked=state.untaken,
            manual_plug_amount=minus(ZERO, expected),
            total=total,
        )
    )
    return entries


def after(state: State, entry: Entry) -> State:
    """Return the state once `entry` is recorded."""
    return State(
        budget=msgspec.structs.replace(state.budget, total=entry.total),
        recorded=entry.budget_after,
        untaken=ZERO,
        tracked=plus(state.tracked, entry.api_usage_tracked),
        plugged=plus(state.plugged, entry.manual_plug_amount),
    )


def follow(state: State, usage: Decimal) -> State:
    """Return the state once more usage was tracked.

    Raises:
        BudgetRefused: negative usage; a provider that pays back is a row with its reason.
    """
    if usage < 0:
        raise BudgetRefused(
            f"amount: usage is never negative, and {usage:f} is; record what was paid back by reconciling"
        )
    return msgspec.structs.replace(state, untaken=plus(state.untaken, usage))


def reaches(plug: Decimal, threshold: Decimal | None) -> bool:
    """Tell whether a plug is as large as the threshold; both directions count."""
    return threshold is not None and abs(plug) >= threshold


def _top_up(state: State, total: Decimal) -> Entry:
    before = plus(state.remaining, minus(total, state.budget.total))
    return Entry(
        budget_before=before,
        manual_adjustment=ZERO,
        budget_after=before,
        adjustment_reason=TOP_UP,
        api_usage_tracked=state.untaken,
        manual_plug_amount=ZERO,
        total=total,
    )


def _check(wish: Wish, total: Decimal, budget: Budget) -> None:
    if wish.remaining < 0:
        raise BudgetRefused(
            f"remaining: {wish.remaining:f} is negative; send what the console says is left, at least 0"
        )
    if total < 0:
        raise BudgetRefused(f"total: {total:f} is negative; send the whole budget, at least 0")
    if wish.remaining > total:
        raise BudgetRefused(
            f"remaining: {_money(wish.remaining, budget)} is more than the total of {_money(total, budget)}; "
            "if money was added, send the new total too"
        )
    if not wish.reason.strip() or len(wish.reason) > REASON_LENGTH_MAX:
        raise BudgetRefused(f"adjustment_reason: say why, in 1 to {REASON_LENGTH_MAX} characters")
    if wish.reason == TOP_UP:
        raise BudgetRefused(
            f"adjustment_reason: {TOP_UP!r} is kept for changes of the total; send the new total instead"
        )


def _misfit(state: State, remaining: Decimal, given: Decimal, expected: Decimal) -> AdjustmentDoesNotFit:
    budget = state.budget
    return AdjustmentDoesNotFit(
        f"manual_adjustment: {_money(given, budget)} does not fit: {_money(remaining, budget)} remaining less "
        f"{_money(state.remaining, budget)} tracked as remaining is {_money(expected, budget)}; send that, or leave it out",
        expected,
        state.remaining,
    )


def _money(value: Decimal, budget: Budget) -> str:
    return f"{format_amount(value, budget.currency)} {budget.currency}"

"""Usage that arrives as events (`usage.*`): which budget counts it, or why none can."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

import msgspec

from services.alerts.domain.budget import Budget
from shared.contracts.event import Event

PREFIX = "usage."
CLOCKS_DIFFER_MAX = timedelta(minutes=10)
"""A budget is dated by alerts, an event by the broker."""
BUDGET_ATTR = "budget"
PROVIDER_ATTR = "provider"


class Unplaced(msgspec.Struct, frozen=True, kw_only=True):
    """Why no budget counts an event that is meant for one, and what to do."""

    reason: Literal["refused", "no amount"]
    detail: str
    hint: str


def usage_id(event: Event) -> str:
    """Return the id under which the event is counted: the same event is one usage, however often it arrives."""
    return f"{event.source}:{event.id}"


def budget_of(event: Event, budgets: Sequence[Budget]) -> Budget | Unplaced | None:
    """Return the budget that counts the event; None: it is not meant for budgets.

    It is, where it names a budget (`attrs.budget`, or a budget's name as `account`) or comes from a budget's provider
    (`attrs.provider`, else its source). What arrived before a budget was made is not meant for it.
    """
    budgets = [one for one in budgets if event.received_at >= one.created_at - CLOCKS_DIFFER_MAX]
    found = _named(event, budgets) or _of_provider(event, budgets)
    if not isinstance(found, Budget):
        return found
    if "\x00" in event.id:
        return Unplaced(
            reason="refused",
            detail=f"{_what(event)} has a NUL character in its id, which no database keeps",
            hint="Post it again under an id without it.",
        )
    if event.amount is None or event.currency is None:
        return Unplaced(
            reason="no amount",
            detail=f"{_what(event)} has no amount and currency, so budget {found.budget} cannot count it",
            hint="Post it again under a new id, with amount and currency.",
        )
    if event.currency != found.currency:
        return Unplaced(
            reason="refused",
            detail=f"{_what(event)} is in {event.currency}, and budget {found.budget} is in {found.currency}",
            hint=f"Post what it cost in {found.currency} under a new id, or name a budget of that currency in attrs.budget.",
        )
    return found


def id_reused(event: Event, known: str) -> tuple[str, str]:
    """Return what is wrong with an event whose id was counted with other content, and what to do."""
    return (
        f"{_what(event)} was counted before with another amount or time: {known}",
        "Counted usage is never changed: post a difference under a new id, or reconcile the budget with its reason.",
    )


def _named(event: Event, budgets: Sequence[Budget]) -> Budget | Unplaced | None:
    name = event.attrs.get(BUDGET_ATTR)
    by_name = {one.budget: one for one in budgets}
    if name is None:
        return None if event.account is None else by_name.get(event.account)
    if name in by_name:
        return by_name[name]
    return Unplaced(
        reason="refused",
        detail=f"{_what(event)} names budget {name!r}, which there is not",
        hint=f"Make the budget (tieout budget create {name} …) and send this letter through again.",
    )


def _of_provider(event: Event, budgets: Sequence[Budget]) -> Budget | Unplaced | None:
    provider = event.attrs.get(PROVIDER_ATTR, event.source)
    fitting = [one for one in budgets if one.provider == provider]
    if len(fitting) < 2:
        return fitting[0] if fitting else None
    names = ", ".join(one.budget for one in fitting)
    return Unplaced(
        reason="refused",
        detail=f"{_what(event)} may belong to each of the budgets of {provider}: {names}",
        hint="Post it again under a new id, with the budget's name in attrs.budget.",
    )


def _what(event: Event) -> str:
    return f"{event.type} {event.id} of {event.source}"

"""Counts usage that arrives as events into its budgets, each event once; what no budget can count is set aside."""

from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from services.alerts.domain.budget import Budget, BudgetRefused
from services.alerts.domain.dead_letter import keep
from services.alerts.domain.usage_events import Unplaced, budget_of, id_reused, usage_id
from services.alerts.ports.budgets import BudgetStore, Usage
from services.alerts.ports.dead_letters import DeadLetterStore
from shared.contracts.dead_letter import DeadLetter, Reason
from shared.contracts.event import Event
from shared.ids import dead_letter_id
from shared.money import parse_amount


class Arrived(msgspec.Struct, frozen=True, kw_only=True):
    """An event with the place in `inbox` that it came from; -1 where that is not known."""

    event: Event
    inbox_partition: int
    inbox_offset: int
    raw: bytes


class TrackedEvents:
    """`now` is the clock of counting."""

    def __init__(self, budgets: BudgetStore, letters: DeadLetterStore, now: Callable[[], datetime]) -> None:
        self._budgets = budgets
        self._letters = letters
        self._now = now

    async def wanted(self) -> bool:
        """Tell whether anybody has a budget: without one there is nothing to read for."""
        return await self._budgets.has_budgets()

    async def count(self, arrived: Sequence[Arrived]) -> int:
        """Count what is meant for budgets; return how many were new. Counting the same again changes nothing.

        Raises:
            DependencyAway: PostgreSQL does not answer; some may have been counted, all may be given again.
        """
        by_org: dict[str, list[Arrived]] = {}
        for one in arrived:
            by_org.setdefault(one.event.org, []).append(one)
        return sum([await self._count_in(org, events) for org, events in by_org.items()])

    async def _count_in(self, org: str, arrived: Sequence[Arrived]) -> int:
        budgets = [state.budget for state in await self._budgets.states(org)]
        letters: list[DeadLetter] = []
        counted: dict[str, list[Arrived]] = {}
        for one in arrived:
            match budget_of(one.event, budgets):
                case Budget() as budget:
                    counted.setdefault(budget.budget, []).append(one)
                case Unplaced() as why:
                    letters.append(_letter(one, why.reason, why.detail, why.hint))
                case None:
                    pass
        new = 0
        for name, events in counted.items():
            added, reused = await self._track(org, name, events)
            new += added
            letters += reused
        if letters:
            await self._letters.add([keep(letter, self._now()) for letter in letters])
        return new

    async def _track(self, org: str, budget: str, arrived: Sequence[Arrived]) -> tuple[int, list[DeadLetter]]:
        """All in one transaction; where one is refused, each in its own, so that it costs no other."""
        try:
            return await self._tracked(org, budget, arrived), []
        except BudgetRefused as refused:
            if len(arrived) == 1:
                return 0, [_letter(arrived[0], "id reused", *id_reused(arrived[0].event, str(refused)))]
        new, letters = 0, list[DeadLetter]()
        for one in arrived:
            added, reused = await self._track(org, budget, [one])
            new += added
            letters += reused
        return new, letters

    async def _tracked(self, org: str, budget: str, arrived: Sequence[Arrived]) -> int:
        tracked = await self._budgets.track(org, budget, [_usage(one.event) for one in arrived], self._now())
        assert tracked is not None, "budgets are never deleted"
        return tracked[1]


def _usage(event: Event) -> Usage:
    assert event.amount is not None, "it was looked at before"
    return Usage(id=usage_id(event), amount=parse_amount(event.amount), occurred_at=event.occurred_at)


def _letter(one: Arrived, reason: Reason, detail: str, hint: str) -> DeadLetter:
    event = one.event
    return DeadLetter(
        id=dead_letter_id(reason, one.inbox_partition, one.inbox_offset, f"usage/{event.source}/{event.id}"),
        org=event.org,
        source=event.source,
        reason=reason,
        detail=detail,
        hint=hint,
        rule=None,
        event=event.id,
        inbox_partition=one.inbox_partition,
        inbox_offset=one.inbox_offset,
        received_at=event.received_at,
        raw=one.raw,
    )

"""Budgets, their rows, tracked usage and odometers, as their use case needs them."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Protocol

import msgspec

from services.alerts.domain.budget import Budget, Entry, State
from services.alerts.domain.budget_health import Recorded
from services.alerts.domain.odometer import Reading


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks for what, and when."""

    actor: str
    reconciled_by: str
    request: str
    """What was asked, in canonical JSON: a key that comes again with another one is refused."""
    idempotency_key: str | None
    at: datetime


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """What a call came to: the rows it added (or had added, when it came before) and the budget after it."""

    state: State
    rows: Sequence[Recorded]
    repeated: bool


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Usage as a tracker counted it; `id` is the tracker's own."""

    id: str
    amount: Decimal
    occurred_at: datetime | None = None
    """As the tracker says; None: it does not say."""


class Odometer(msgspec.Struct, frozen=True, kw_only=True):
    provider: str
    currency: str
    readings: Sequence[Reading]


class BudgetStore(Protocol):
    """Always within one organisation; a budget that is not named is the organisation's first.

    What is written here leaves its events for the engine in the same transaction. Raises `DependencyAway` while the
    database cannot be reached.
    """

    async def create(self, org: str, budget: Budget) -> bool:
        """False: there is one of this name; nothing was changed."""
        ...

    async def set_thresholds(self, org: str, budget: str, warn: Decimal | None, critical: Decimal | None) -> bool:
        """False: there is no such budget."""
        ...

    async def has_budgets(self) -> bool:
        """Tell whether any organisation has one."""
        ...

    async def states(self, org: str, budget: str | None = None) -> Sequence[State]:
        """Return the budgets (the one named), the first made first."""
        ...

    async def move(
        self, org: str, budget: str | None, call: Call, decide: Callable[[State], Sequence[Entry]]
    ) -> Moved | None:
        """Lock the budget and add what `decide` returns; it may raise to leave everything as it is. None: no such budget.

        Raises:
            CallConflict: the idempotency key was used for another request.
        """
        ...

    async def track(
        self, org: str, budget: str | None, usages: Sequence[Usage], at: datetime
    ) -> tuple[State, int] | None:
        """Add usage; return the budget after it and how much of it was new. None: no such budget.

        Raises:
            CallConflict: an id is known with another amount or time; nothing was added.
        """
        ...

    async def history(
        self, org: str, budget: str | None, since: datetime | None, before_id: int | None, limit: int
    ) -> Sequence[Recorded]:
        """Return rows, the newest first; of all budgets where none is named."""
        ...

    async def zone(self, org: str) -> str: ...

    async def odometers(self, org: str) -> Mapping[str, Odometer]:
        """Return all readings by provider."""
        ...

    async def read_odometer(
        self, org: str, provider: str, currency: str, decide: Callable[[Sequence[Reading]], Reading]
    ) -> Odometer:
        """Add the reading that `decide` returns; return the odometer with it.

        Raises:
            CallConflict: the odometer counts another currency.
        """
        ...

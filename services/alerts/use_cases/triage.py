"""What people do with a discrepancy: look, acknowledge, assign, note, resolve, post an adjustment entry."""

import uuid
from collections.abc import Callable
from datetime import datetime

from services.alerts.domain.adjustment import Adjustment, Entry, adjust
from services.alerts.domain.triage import Action, Adjust, LogRow, Standing, act
from services.alerts.ports.triage import RuleShapes, Stored, TriageStore


class RuleGone(LookupError):
    """The discrepancy's rule is no longer in force, so nothing says where an adjustment would go."""


class Triage:
    """Every action is one transaction with its line in the log. `now` is the clock of actions."""

    def __init__(self, store: TriageStore, rules: RuleShapes, now: Callable[[], datetime]) -> None:
        self.store = store
        self._rules = rules
        self._now = now

    async def act(self, org: str, id_: str, action: Action, actor: str, pack: str | None = None) -> Stored | None:
        """Do what a person asked; None: the organisation has no such discrepancy, or it is of another pack.

        Raises:
            TransitionRefused: there is no such transition from the present status.
        """
        at = self._now()

        def decide(stored: Stored) -> tuple[Standing, LogRow, None]:
            standing, row = act(stored.standing, action, actor, at)
            return standing, row, None

        return await self.store.change(org, id_, decide, pack)

    async def adjust(self, org: str, id_: str, entry: Entry, actor: str) -> tuple[Stored, Adjustment] | None:
        """Post an adjustment entry: stored here, and on its way to the matcher through `inbox`.

        Raises:
            AdjustmentRefused: the entry does not fit the rule.
            RuleGone: the rule is no longer in force.
        """
        stored = await self.store.find(org, id_)
        if stored is None:
            return None
        shape = await self._rules.shape(org, stored.found.pack, stored.found.rule)
        if shape is None:
            raise RuleGone(stored.found.rule)
        at = self._now()
        adjustment = adjust(stored.found, shape, entry, id_=str(uuid.uuid4()), actor=actor, at=at)

        def decide(stored: Stored) -> tuple[Standing, LogRow, Adjustment]:
            notes = f"{entry.amount} {entry.currency} on {entry.source}" + (f": {entry.notes}" if entry.notes else "")
            standing, row = act(stored.standing, Adjust(entry.reason, notes), actor, at)
            return standing, row, adjustment

        changed = await self.store.change(org, id_, decide)
        return None if changed is None else (changed, adjustment)

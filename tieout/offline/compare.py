"""What a change of rules would do to some events: two replays, compared."""

from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Literal

import msgspec

from shared.contracts.discrepancy import Discrepancy
from shared.money import EXACT, format_amount
from shared.rules.diff import RuleChange, diff_rules
from shared.rules.model import Rule
from tieout.offline.engine import OfflineEngine

Effect = Literal["appears", "disappears", "changes"]
EFFECTS: tuple[Effect, ...] = ("appears", "disappears", "changes")
_COMPARED = ("state", "resolution", "type", "side", "severity", "expected", "actual", "currency", "expired", "shadow")
"""What people see of a discrepancy; evidence and sentences follow from it."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One discrepancy that is another under the new rules; `before` or `after` is its last revision there."""

    effect: Effect
    rule: str
    type: str
    before: Discrepancy | None
    after: Discrepancy | None

    @property
    def one(self) -> Discrepancy:
        """The later of the two that there is."""
        found = self.after or self.before
        assert found is not None
        return found

    @property
    def is_open_anew(self) -> bool:
        """Under the new rules it is open at the end, under the old ones it was not."""
        return _is_open(self.after) and not _is_open(self.before)


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one rule came to over all events."""

    matched: int = 0
    pending: int = 0
    """Items that still wait at the end."""
    open: int = 0
    """Discrepancies raised at the end."""
    healed: int = 0
    """Discrepancies that were raised and resolved again."""
    dead_letters: int = 0
    totals: dict[str, str] = {}
    """Σ|difference| of what is open, per currency."""
    checks: dict[str, int] = {}
    """Verdicts on readings, by result."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer."""

    rules: list[RuleChange]
    changes: list[Change]
    figures: dict[str, tuple[Figures, Figures]]
    """By rule: before and after."""
    not_reconciled: tuple[int, int]
    """Events that no rule selects, before and after."""

    @property
    def effects(self) -> dict[tuple[str, str], dict[Effect, list[Change]]]:
        """Changes by (rule, type) and effect."""
        found: dict[tuple[str, str], dict[Effect, list[Change]]] = {}
        for change in self.changes:
            found.setdefault((change.rule, change.type), {}).setdefault(change.effect, []).append(change)
        return found


def compare(old: Sequence[Rule], new: Sequence[Rule], before: OfflineEngine, after: OfflineEngine) -> Comparison:
    """Compare what two engines made of the same events under `old` and `new` rules.

    A discrepancy is the same in both when its id is: rule, key, the event that opened its group, type and side.
    """
    rules = diff_rules(old, new)
    return Comparison(
        rules=rules,
        changes=_changes(before, after),
        figures={one.rule: (_figures(one.rule, before), _figures(one.rule, after)) for one in rules},
        not_reconciled=(sum(before.not_reconciled.values()), sum(after.not_reconciled.values())),
    )


def _changes(before: OfflineEngine, after: OfflineEngine) -> list[Change]:
    was = {one.id: one for one in before.last_revisions()}
    now = {one.id: one for one in after.last_revisions()}
    changes = []
    for id_ in dict.fromkeys([*was, *now]):
        effect = _effect(was.get(id_), now.get(id_))
        if effect is None:
            continue
        one = now.get(id_) or was[id_]
        changes.append(Change(effect=effect, rule=one.rule, type=one.type, before=was.get(id_), after=now.get(id_)))
    return changes


def _effect(was: Discrepancy | None, now: Discrepancy | None) -> Effect | None:
    if was is None:
        return "appears"
    if now is None:
        return "disappears"
    return "changes" if any(getattr(was, name) != getattr(now, name) for name in _COMPARED) else None


def _is_open(one: Discrepancy | None) -> bool:
    return one is not None and one.state == "raised"


def _figures(rule: str, engine: OfflineEngine) -> Figures:
    last = [one for one in engine.last_revisions() if one.rule == rule]
    items = Counter(item.status for item in engine.items.values() if item.rule == rule)
    checks = {(check.org, str(check.key), check.code, check.currency, check.as_of): check for check in engine.checks}
    is_open = [one for one in last if _is_open(one)]
    return Figures(
        matched=items["matched"],
        pending=items["pending"],
        open=len(is_open),
        healed=len(last) - len(is_open),
        dead_letters=sum(1 for letter in engine.dead_letters if letter.rule == rule),
        totals=_totals(is_open),
        checks=dict(sorted(Counter(check.result for check in checks.values() if check.rule == rule).items())),
    )


def _totals(discrepancies: Iterable[Discrepancy]) -> dict[str, str]:
    totals: dict[str, Decimal] = {}
    for one in discrepancies:
        if one.difference is not None and one.currency is not None:
            so_far = totals.get(one.currency, Decimal(0))
            totals[one.currency] = EXACT.add(so_far, abs(Decimal(one.difference)))
    return {currency: format_amount(total, currency) for currency, total in sorted(totals.items())}

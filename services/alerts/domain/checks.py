"""Checks of a run: one per rule, which held in the period or did not. Nothing that was not looked at passes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Literal

import msgspec

from shared.money import format_amount

CheckOutcome = Literal["passed", "failed", "error"]

NEEDS_READING = frozenset({"balance", "invariant"})
"""Kinds that judge what was read: without a reading in the period nobody knows whether they hold. In the others no
movement means nothing that could disagree."""

JUDGING = frozenset({"match", "zero_sum", "balance", "invariant"})
"""Kinds whose verdicts or items say in each period whether they hold."""


class CheckFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One check of a run."""

    check_type: str
    """The rule's name without its pack."""
    rule: str
    outcome: CheckOutcome
    passed: bool
    readings: int
    """Keys that a verdict was published on: accounts, transactions."""
    failed: int
    """Of these, those whose last verdict failed."""
    errors: int
    """Of these, those that could not be judged."""
    items: int
    discrepant: int
    """Of the period's items."""
    discrepancy: dict[str, str]
    """Sum of |difference| per currency of what failed, or else of what is discrepant."""
    error: str | None
    """Why there is no verdict."""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What a rule's verdicts of a period add up to; of each key, code and currency the last one counts."""

    rule: str
    passed: int = 0
    failed: int = 0
    errors: int = 0
    differences: Mapping[str, Decimal] = field(default_factory=dict)
    """Per currency: sum of |difference| of what failed."""
    why: str | None = None
    """Of those in error, what one of them says."""
    last_before: datetime | None = None
    """Where there is no verdict in the period: when the last one before it was of."""

    @property
    def count(self) -> int:
        return self.passed + self.failed + self.errors


def check_type_of(rule: str) -> str:
    """Return the name of a rule's check: `stack.deposits` is `deposits`."""
    return rule.partition(".")[2] or rule


def check_of(
    rule: str,
    kind: str | None,
    verdicts: Verdicts | None,
    *,
    items: int,
    discrepant: int,
    differences: Mapping[str, Decimal],
    still_open: int,
    fault: str | None,
) -> CheckFigures:
    """Return the check of `rule`: what could not be looked at is an error, never a pass.

    Args:
        rule: its name, with the pack.
        kind: of the rule; None where it is not known to be in force.
        verdicts: what its verdicts of the period add up to; None: there are none.
        items: of the period.
        discrepant: of these.
        differences: sum of |difference| of the period's items, per currency.
        still_open: discrepancies of the rule that were open at the period's end.
        fault: why it cannot be computed.
    """
    found = verdicts or Verdicts(rule)
    why = fault or _why_in_error(kind, found)
    # Rules of other kinds (a silent feed, suspected duplicates) say only what is wrong.
    judged = found.count or items or kind in JUDGING
    failed = bool(found.failed or discrepant or (not judged and still_open))
    outcome: CheckOutcome = "error" if why else "failed" if failed else "passed"
    amounts = found.differences if found.count else differences
    return CheckFigures(
        check_type=check_type_of(rule),
        rule=rule,
        outcome=outcome,
        passed=outcome == "passed",
        readings=found.count,
        failed=found.failed,
        errors=found.errors,
        items=items,
        discrepant=discrepant,
        discrepancy={c: format_amount(amount, c) for c, amount in sorted(amounts.items()) if amount},
        error=why,
    )


def _why_in_error(kind: str | None, found: Verdicts) -> str | None:
    if found.errors:
        many = "1 reading" if found.errors == 1 else f"{found.errors} readings"
        return f"{many} could not be judged: {found.why or 'no reason given'}"
    if found.count or kind not in NEEDS_READING:
        return None
    if found.last_before is None:
        return "there is no reading yet"
    return f"there is no reading in the period; the last one is of {found.last_before.isoformat()}"

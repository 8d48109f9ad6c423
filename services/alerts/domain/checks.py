"""Checks of a run, each of one or more rules, which held in the period or did not. Nothing that was not looked at passes."""

from collections.abc import Iterable, Mapping
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
    """The second word of its rules' names."""
    rules: list[str]
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
    unreadable: bool = False
    """What is stored cannot be read or computed: a fault, where other errors are an answer."""


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
    """Return the name of a rule's check: that of `stack.circle_balance.users` is `circle_balance`."""
    return [*rule.split("."), rule][1]


def merged(checks: Iterable[CheckFigures]) -> list[CheckFigures]:
    """Return one check per type, in the order of the first of its rules; it passes when all of its rules do.

    The rules of one check look at the same money (a total, and what its users hold), so that their discrepancies are not
    added: the largest counts.
    """
    order: dict[str, list[CheckFigures]] = {}
    for one in checks:
        order.setdefault(one.check_type, []).append(one)
    return [_merge(found) for found in order.values()]


def _merge(found: list[CheckFigures]) -> CheckFigures:
    largest: dict[str, str] = {}
    for one in found:
        for currency, amount in one.discrepancy.items():
            largest[currency] = max(largest.get(currency, amount), amount, key=Decimal)
    outcomes = {one.outcome for one in found}
    outcome: CheckOutcome = "error" if "error" in outcomes else "failed" if "failed" in outcomes else "passed"
    many = len(found) > 1
    return CheckFigures(
        check_type=found[0].check_type,
        rules=[rule for one in found for rule in one.rules],
        outcome=outcome,
        passed=outcome == "passed",
        readings=sum(one.readings for one in found),
        failed=sum(one.failed for one in found),
        errors=sum(one.errors for one in found),
        items=sum(one.items for one in found),
        discrepant=sum(one.discrepant for one in found),
        discrepancy=largest,
        error="; ".join(f"{one.rules[0]}: {one.error}" if many else one.error for one in found if one.error) or None,
        unreadable=any(one.unreadable for one in found),
    )


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
    unexplained: str | None = None,
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
        unexplained: money of the period that no cause explains.
    """
    found = verdicts or Verdicts(rule)
    why = fault or unexplained or _why_in_error(rule, kind, found)
    # Rules of other kinds (a silent feed, suspected duplicates) say only what is wrong.
    judged = found.count or items or kind in JUDGING
    failed = bool(found.failed or discrepant or (not judged and still_open))
    outcome: CheckOutcome = "error" if why else "failed" if failed else "passed"
    amounts = found.differences if found.count else differences
    return CheckFigures(
        check_type=check_type_of(rule),
        rules=[rule],
        outcome=outcome,
        passed=outcome == "passed",
        readings=found.count,
        failed=found.failed,
        errors=found.errors,
        items=items,
        discrepant=discrepant,
        discrepancy={c: format_amount(amount, c) for c, amount in sorted(amounts.items()) if amount},
        error=why,
        unreadable=fault is not None,
    )


def _why_in_error(rule: str, kind: str | None, found: Verdicts) -> str | None:
    if found.errors:
        many = "1 reading" if found.errors == 1 else f"{found.errors} readings"
        return f"{many} could not be judged: {found.why or 'no reason given'}"
    if found.count or kind not in NEEDS_READING:
        return None
    if found.last_before is None and rule.count(".") > 1:
        # A further rule of a check (what users hold, what the ledger states itself) that nobody feeds.
        return None
    if found.last_before is None:
        return "there is no reading yet"
    return f"there is no reading in the period; the last one is of {found.last_before.isoformat()}"

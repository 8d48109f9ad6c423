"""One sentence for every finding of an `invariant` rule: which field says what, and what was to hold."""

from decimal import Decimal

from services.matcher.domain.finding import Finding
from shared.money import format_amount
from shared.rules.invariant_rule import CheckRule

_WITHIN = {"never": "", "daily": " within a day", "monthly": " within a month"}


def explain_check(who: str, check: CheckRule, finding: Finding) -> str:
    """Say in one sentence what is wrong about the account `who`."""
    return f"{who}: {_words(check, finding)}{_threshold(check, finding)}."


def _words(check: CheckRule, finding: Finding) -> str:
    field, unit = _short(check.field), f" {finding.currency}" if finding.currency else ""
    expected, actual = finding.expected, finding.actual
    if check.never_decreases:
        return f"{field} fell from {expected} to {actual}{unit}, though it never decreases{_WITHIN[check.reset]}"
    if check.grows_without is not None:
        return f"{field} grew from {expected} to {actual}{unit} since {_short(check.grows_without)} last grew"
    if check.min is None and check.max is None and check.above is None:
        return _apart(check, finding, f"{field} is {actual}{unit}")
    held = field if check.minus is None else f"{field} less {_short(check.minus)}"
    return f"{held} is {actual}{unit}, but it must be {_bound(check, finding)}"


def _apart(check: CheckRule, finding: Finding, said: str) -> str:
    if check.minus is None:
        return said
    difference = finding.difference or Decimal(0)
    by = format_amount(abs(difference), finding.currency)
    more = "more" if difference > 0 else "less"
    return f"{said}, {_short(check.minus)} is {finding.expected}: {by} {more}"


def _bound(check: CheckRule, finding: Finding) -> str:
    if (finding.difference or 0) > 0:
        return f"at most {finding.expected}"
    return f"{'more than' if check.above is not None else 'at least'} {finding.expected}"


def _threshold(check: CheckRule, finding: Finding) -> str:
    if check.critical is not None and finding.severity == "critical":
        return f", which reaches the critical threshold of {check.critical:f}"
    if check.warn is not None and finding.severity == "medium":
        return f", which reaches the warning threshold of {check.warn:f}"
    return ""


def _short(field: str) -> str:
    return field.removeprefix("attrs.")

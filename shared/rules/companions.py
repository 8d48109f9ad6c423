"""Rules that other rules bring with them: what one rule says in passing, another kind does."""

from collections.abc import Sequence

from shared.rules.alike import AlikeOnSides
from shared.rules.duplicates_rule import SUSPECTED, DuplicatesRuleModel
from shared.rules.match_rule import MatchRuleModel
from shared.rules.parts import RuleModel, SeverityMap

DUPLICATES = ".duplicates"
"""What the name of a rule's companion ends in."""


def with_companions(rules: Sequence[RuleModel]) -> list[RuleModel]:
    """Return the rules, each followed by what it brings with it; one that already stands there is not brought again."""
    names = {rule.name for rule in rules}
    found: list[RuleModel] = []
    for rule in rules:
        found.append(rule)
        companion = _duplicates_of(rule)
        if companion is not None and companion.name not in names:
            found.append(companion)
    return found


def _duplicates_of(rule: RuleModel) -> DuplicatesRuleModel | None:
    if not isinstance(rule, MatchRuleModel) or not isinstance(rule.duplicates, AlikeOnSides):
        return None
    severities = {type_: how for type_, how in rule.severity.types.items() if type_ == SUSPECTED}
    return DuplicatesRuleModel(
        name=rule.name + DUPLICATES,
        kind="duplicates",
        severity=SeverityMap(default=rule.severity.default, types=severities),
        shadow=rule.shadow,
        sides=rule.sides,
        watch=rule.duplicate_sides,
        same=rule.duplicates.same,
        within=rule.duplicates.within,
        apart=rule.key,
        keep=rule.keep,
        expire=rule.expire,
    )

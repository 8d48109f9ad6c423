"""The rules format, version 1: what may stand in a rules file (DESIGN section 3). Each kind of rule has a module."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, StrictStr, StringConstraints, Tag, model_validator

from shared.rules.balance_rule import BalanceRuleModel
from shared.rules.candidate_rule import TAG as WITHOUT_KEY
from shared.rules.candidate_rule import CandidateRuleModel
from shared.rules.duplicates_rule import DuplicatesRuleModel
from shared.rules.feed_rule import FeedRuleModel
from shared.rules.invariant_rule import InvariantRuleModel
from shared.rules.match_rule import MatchRuleModel
from shared.rules.parts import Strict
from shared.rules.zero_sum_rule import ZeroSumRuleModel

FORMAT_VERSION = 1
RULES_MAX = 200
"""Rules in one pack."""


KINDS = ("match", "zero_sum", "balance", "invariant", "duplicates", "feed")
"""What `kind` may be."""
KIND_TAGS = (*KINDS, WITHOUT_KEY)
"""Names of the models below, as pydantic puts them into the places of errors."""


def _kind(rule: Any) -> str | None:
    """Return which model reads a rule; a kind that does not exist is told with those that do."""
    kind = rule.get("kind") if isinstance(rule, dict) else getattr(rule, "kind", None)
    if kind == "match" and _is_without_key(rule):
        return WITHOUT_KEY
    return str(kind) if kind is not None else None


def _is_without_key(rule: Any) -> bool:
    if isinstance(rule, dict):
        return "key" not in rule and bool({"partition_by", "score"} & set(rule))
    return isinstance(rule, CandidateRuleModel)


Rule = Annotated[
    Annotated[MatchRuleModel, Tag("match")]
    | Annotated[CandidateRuleModel, Tag(WITHOUT_KEY)]
    | Annotated[ZeroSumRuleModel, Tag("zero_sum")]
    | Annotated[BalanceRuleModel, Tag("balance")]
    | Annotated[InvariantRuleModel, Tag("invariant")]
    | Annotated[DuplicatesRuleModel, Tag("duplicates")]
    | Annotated[FeedRuleModel, Tag("feed")],
    Discriminator(_kind),
]


class RuleFile(Strict):
    """A rules file: one pack."""

    version: Literal[1]
    pack: Annotated[StrictStr, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=32)]
    rules: list[Rule] = Field(max_length=RULES_MAX)

    @model_validator(mode="after")
    def _names_unique(self) -> Self:
        seen: set[str] = set()
        for rule in self.rules:
            if rule.name in seen:
                msg = f"rule name {rule.name!r} is given twice"
                raise ValueError(msg)
            seen.add(rule.name)
        return self

    @model_validator(mode="after")
    def _feeds_once(self) -> Self:
        seen: dict[str, str] = {}
        for rule in self.rules:
            for source in rule.source if isinstance(rule, FeedRuleModel) else ():
                if source in seen:
                    msg = f"rules {seen[source]} and {rule.name} both say when {source!r} is silent; leave it in one of them"
                    raise ValueError(msg)
                seen[source] = rule.name
        return self

"""Rules as the matcher judges by them, built from the specification that travels in the log."""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import msgspec
from pydantic import TypeAdapter

from shared.contracts.leg import RuleRecord
from shared.rules.balance_rule import BalanceRuleModel, compile_balance
from shared.rules.candidate_rule import TAG as WITHOUT_KEY
from shared.rules.candidate_rule import CandidateRuleModel, compile_candidates
from shared.rules.duplicates_rule import DuplicatesRuleModel, compile_duplicates
from shared.rules.feed_rule import FeedRuleModel, compile_feed
from shared.rules.generation import encode, generation_of, specification
from shared.rules.invariant_rule import InvariantRuleModel, compile_invariant
from shared.rules.match_rule import MatchRuleModel, compile_match
from shared.rules.model import Rule
from shared.rules.parts import RuleModel
from shared.rules.severity import SeverityOf
from shared.rules.zero_sum_rule import ZeroSumRuleModel, compile_zero_sum


class CompiledRule(Protocol):
    """What a compiled rule of every kind has."""

    kind: ClassVar[str]
    """Which of the matcher's kinds judges by it."""

    @property
    def org(self) -> str: ...
    @property
    def pack(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def generation(self) -> str: ...
    @property
    def severity_of(self) -> SeverityOf: ...
    @property
    def shadow(self) -> bool: ...


COMPILERS: dict[type[RuleModel], Callable[[str, str, Any], CompiledRule]] = {
    MatchRuleModel: compile_match,
    CandidateRuleModel: compile_candidates,
    DuplicatesRuleModel: compile_duplicates,
    ZeroSumRuleModel: compile_zero_sum,
    BalanceRuleModel: compile_balance,
    InvariantRuleModel: compile_invariant,
    FeedRuleModel: compile_feed,
}
"""By the model a rule is written in: its compiler, which takes org, pack and the model."""

_validate: Callable[[Any], RuleModel] = TypeAdapter(Rule).validate_python


def compile_rule(org: str, pack: str, rule: RuleModel) -> CompiledRule:
    """Compile a validated rule of any kind."""
    return COMPILERS[type(rule)](org, pack, rule)


def read_rule(specification: Any) -> RuleModel:
    """Read one rule from plain data, as `specification` gave it."""
    return _validate(specification)


def rule_record(
    org: str, pack: str, rule: RuleModel, version: int, derivation: int = 0, *, deriving: bool = False
) -> RuleRecord:
    """Return the control record that puts `rule` in force; `version` is the offset of its rule set in topic `rules`.

    `derivation`, `deriving`: see `RuleRecord`.
    """
    text = encode({"pack": pack, "rule": specification(rule)}).decode()
    return RuleRecord(org, rule.name, generation_of(org, pack, rule), version, text, derivation, deriving)


def record_model(record: RuleRecord) -> RuleModel:
    """Return the rule, as written, of a control record that does not withdraw it."""
    return read_rule(msgspec.json.decode(record.specification)["rule"])


def compile_record(record: RuleRecord) -> CompiledRule:
    """Compile the rule of a control record that does not withdraw it."""
    given = msgspec.json.decode(record.specification)
    return compile_rule(record.org, given["pack"], read_rule(given["rule"]))


def shape_of(record: RuleRecord) -> str:
    """Return what gives the sides and cells of a rule's legs their meaning: its kind, its selectors' names, its key.

    Where its legs were derived anew, also how often: what was there before is closed, whatever has changed.
    """
    rule = read_rule(msgspec.json.decode(record.specification)["rule"])
    kind = WITHOUT_KEY if isinstance(rule, CandidateRuleModel) else rule.kind
    again = [{"derivation": record.derivation}] if record.derivation else []
    return encode([kind, *rule.shape, *again]).decode()

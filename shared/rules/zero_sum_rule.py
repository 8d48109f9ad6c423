"""Kind `zero_sum`: the entries of one transaction add up to nothing, per currency."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from pydantic import model_validator

from shared.rules.duration import parse_duration
from shared.rules.generation import generation_of
from shared.rules.match_rule import SideRule
from shared.rules.parts import DurationText, FieldPath, KeyFields, RuleModel, Selector, Strict, check_durations
from shared.rules.severity import SeverityOf, severity_of

IMBALANCE = "LedgerImbalance"
ENTRIES = "entries"


class Complete(Strict):
    """When a transaction is complete."""

    count: FieldPath | None = None
    """Where an entry states how many entries its transaction has; without it only the deadline tells."""


class ZeroSumRuleModel(RuleModel):
    """A rule of kind `zero_sum`: one group is one transaction."""

    kind: Literal["zero_sum"]
    entries: Selector
    key: KeyFields
    complete: Complete = Complete()
    deadline: DurationText = "24h"
    keep: DurationText = "24h"
    expire: DurationText = "90d"

    @property
    def discrepancy_types(self) -> tuple[str, ...]:
        """The one type that the rule can raise."""
        return (IMBALANCE,)

    @property
    def selectors(self) -> dict[str, Selector]:
        """Its entries."""
        return {ENTRIES: self.entries}

    @property
    def grouped_by(self) -> list[str]:
        """What names a transaction."""
        return self.key

    @property
    def fixed(self) -> dict[str, Any]:
        """What may not change under one name: entries that are held carry the number they stated."""
        return {**super().fixed, "count": self.complete.count}

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        check_durations(self, "keep", "expire")
        count = self.complete.count
        if count is not None and not count.startswith(("attrs.", "refs.")):
            msg = (
                f"complete.count: {count!r} never states a number of entries; name a field of attrs, e.g. attrs.entries"
            )
            raise ValueError(msg)
        if count in self.key:
            msg = f"complete.count: {count!r} is part of the key, so entries that state different numbers never meet"
            raise ValueError(msg)
        if self.entries.live == []:
            msg = "entries.live: names no status, so no entry would ever count; name those that do or leave it out"
            raise ValueError(msg)
        return self


@dataclass(frozen=True, slots=True)
class ZeroSumRule:
    """A compiled `zero_sum` rule of one org."""

    org: str
    pack: str
    name: str
    generation: str
    sides: tuple[SideRule, ...]
    """One: its entries."""
    keep_ms: int
    expire_ms: int
    severity_of: SeverityOf
    shadow: bool = False
    kind: ClassVar[str] = "zero_sum"

    @property
    def entries(self) -> SideRule:
        """Which entries count, and how long the others may take."""
        return self.sides[0]


def compile_zero_sum(org: str, pack: str, model: ZeroSumRuleModel) -> ZeroSumRule:
    """Compile a validated rule."""
    live = model.entries.live
    entries = SideRule(
        name=ENTRIES,
        live=None if live is None else frozenset(live),
        deadline=parse_duration(model.deadline),
        raises_duplicates=False,
        status_map={},
    )
    return ZeroSumRule(
        org=org,
        pack=pack,
        name=model.name,
        generation=generation_of(org, pack, model),
        sides=(entries,),
        keep_ms=parse_duration(model.keep).milliseconds,
        expire_ms=parse_duration(model.expire).milliseconds,
        severity_of=severity_of(model.severity),
        shadow=model.shadow,
    )

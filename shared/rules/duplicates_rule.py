"""Kind `duplicates`: two records that agree where one payment booked twice would, though no key says they are one.

A `match` rule that says `duplicates: {same: …, within: …}` brings one of these with it; it may also stand alone.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from shared.rules.alike import AMOUNT, Alike
from shared.rules.duration import Duration, parse_duration
from shared.rules.generation import generation_of
from shared.rules.match_rule import SideRule
from shared.rules.parts import DurationText, KeyFields, RuleModel, Selector, SideName, check_durations
from shared.rules.severity import SeverityOf, severity_of

SUSPECTED = "DuplicateChargeSuspected"


class DuplicatesRuleModel(RuleModel, Alike):
    """A rule of kind `duplicates`."""

    kind: Literal["duplicates"]
    sides: dict[SideName, Selector] = Field(min_length=1)
    watch: list[SideName] | None = None
    """Sides that are looked at; all where it is left out. The first side of all is what is expected, as everywhere."""
    apart: KeyFields | None = None
    """Records that agree in these fields are one group of a `match` rule, which looks after its own duplicates."""
    keep: DurationText = "24h"
    expire: DurationText = "90d"

    @property
    def discrepancy_types(self) -> tuple[str, ...]:
        """The one type that the rule can raise."""
        return (SUSPECTED,)

    @property
    def selectors(self) -> dict[str, Selector]:
        """Its sides, each looked at for itself."""
        return self.sides

    @property
    def watched(self) -> list[str]:
        """Sides that are looked at."""
        return list(self.sides) if self.watch is None else list(self.watch)

    @property
    def grouped_by(self) -> list[str]:
        """What has to agree but for the amount: a corrected amount must meet what it was before."""
        return [field for field in self.same if field != AMOUNT]

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        check_durations(self, "keep", "expire")
        for side in self.watched:
            if side not in self.sides:
                msg = f"watch: {side!r} is no side of this rule (sides: {', '.join(self.sides)})"
                raise ValueError(msg)
        if parse_duration(self.keep).milliseconds < parse_duration(self.within).milliseconds:
            msg = f"keep: {self.keep} is shorter than within ({self.within}): the earlier record would be forgotten"
            raise ValueError(msg)
        return self


@dataclass(frozen=True, slots=True)
class DuplicatesRule:
    """A compiled `duplicates` rule of one org."""

    org: str
    pack: str
    name: str
    generation: str
    sides: tuple[SideRule, ...]
    same: tuple[str, ...]
    within_us: int
    keep_ms: int
    expire_ms: int
    severity_of: SeverityOf
    shadow: bool = False
    kind: ClassVar[str] = "duplicates"

    @property
    def compares_amount(self) -> bool:
        """Only equal amounts are suspicious."""
        return AMOUNT in self.same


def compile_duplicates(org: str, pack: str, model: DuplicatesRuleModel) -> DuplicatesRule:
    """Compile a validated rule."""
    sides = tuple(
        SideRule(
            name=name,
            live=None if selector.live is None else frozenset(selector.live),
            deadline=Duration(0),
            raises_duplicates=True,
            status_map={},
        )
        for name, selector in model.sides.items()
    )
    return DuplicatesRule(
        org=org,
        pack=pack,
        name=model.name,
        generation=generation_of(org, pack, model),
        sides=sides,
        same=tuple(model.same),
        within_us=parse_duration(model.within).milliseconds * 1000,
        keep_ms=parse_duration(model.keep).milliseconds,
        expire_ms=parse_duration(model.expire).milliseconds,
        severity_of=severity_of(model.severity),
        shadow=model.shadow,
    )

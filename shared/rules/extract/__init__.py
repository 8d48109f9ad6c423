"""From an event to the legs of the rules that select it: the normaliser's last step, and `replay`'s first."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from shared.contracts.event import Event
from shared.rules.candidate_rule import TAG as WITHOUT_KEY
from shared.rules.companions import with_companions
from shared.rules.compiled import CompiledRule, compile_rule
from shared.rules.extract.balance import balance_takers
from shared.rules.extract.candidate import candidate_takers
from shared.rules.extract.common import KeyedLeg, Place, Problem, Taker, type_matches
from shared.rules.extract.duplicates import duplicates_takers
from shared.rules.extract.invariant import invariant_takers
from shared.rules.extract.match import match_takers
from shared.rules.extract.zero_sum import zero_sum_takers
from shared.rules.feed_rule import sources_watched
from shared.rules.parts import RuleModel

__all__ = ["ADJUSTMENT", "Extracted", "Extractor", "KeyedLeg", "Problem"]

ADJUSTMENT = "adjustment."
CHOSEN_MAX = 10_000
"""Pairs of source and type whose rules are remembered; a bound, since producers choose the types."""

TAKERS: dict[str, Callable[[Any, Any], Sequence[Taker]]] = {
    "match": match_takers,
    WITHOUT_KEY: candidate_takers,
    "duplicates": duplicates_takers,
    "zero_sum": zero_sum_takers,
    "balance": balance_takers,
    "invariant": invariant_takers,
    "feed": lambda _rule, _model: (),
}
"""By the kind of a compiled rule: what makes its takers from the rule and its model."""


class Extracted(msgspec.Struct, gc=False):
    """What the rules of an org make of an event; `selected` is False when no rule wants it ("not reconciled")."""

    legs: list[KeyedLeg]
    problems: list[Problem]
    selected: bool


class Extractor:
    """The selectors of one org's rules."""

    def __init__(self, org: str, packs: Mapping[str, Sequence[RuleModel]]) -> None:
        self.org = org
        self.rules: dict[str, CompiledRule] = {}
        """Compiled rules by generation."""
        self.models: dict[str, tuple[str, RuleModel]] = {}
        """(pack, rule as written) by generation; `rule_record` makes the control record of it."""
        self.sources = sources_watched(packs)
        """What is counted: sources that a rule selects, or names as a feed."""
        self._takers: dict[str, list[Taker]] = {}
        self._chosen: dict[tuple[str, str], tuple[Taker, ...]] = {}
        for pack, models in packs.items():
            for model in with_companions(models):
                rule = compile_rule(org, pack, model)
                self.rules[rule.generation] = rule
                self.models[rule.generation] = (pack, model)
                for taker in TAKERS[rule.kind](rule, model):
                    self._takers.setdefault(taker.source, []).append(taker)

    def extract(self, event: Event, inbox_partition: int, inbox_offset: int, received_ms: int) -> Extracted:
        """Return the legs of `event`, which was read at this place of the inbox."""
        legs: list[KeyedLeg] = []
        problems: list[Problem] = []
        selected = self.add(event, (inbox_partition, inbox_offset, received_ms), legs, problems)
        return Extracted(legs, problems, selected)

    def add(self, event: Event, place: Place, legs: list[KeyedLeg], problems: list[Problem]) -> bool:
        """Add the legs of `event`, and what its rules cannot take; tell whether any rule wants it."""
        if event.type.startswith(ADJUSTMENT) and event.refs.get("discrepancy"):
            return self._adjust(event, place, legs, problems)
        takers = self.takers_of(event.source, event.type)
        for taker in takers:
            taker.take(event, place, legs, problems)
        return bool(takers)

    def takers_of(self, source: str, type_: str) -> tuple[Taker, ...]:
        """Return what takes events of this source and type."""
        takers = self._chosen.get((source, type_))
        return takers if takers is not None else self._choose(source, type_)

    def takers_of_source(self, source: str) -> Sequence[Taker]:
        """Return what takes events of this source, each of some types."""
        return self._takers.get(source, ())

    def _choose(self, source: str, type_: str) -> tuple[Taker, ...]:
        takers = tuple(
            taker
            for taker in self._takers.get(source, ())
            if any(type_matches(pattern, type_) for pattern in taker.types)
        )
        if len(self._chosen) < CHOSEN_MAX:
            self._chosen[source, type_] = takers
        return takers

    def _adjust(self, event: Event, place: Place, legs: list[KeyedLeg], problems: list[Problem]) -> bool:
        """Add the legs of an adjustment: it goes to the side of its source in every rule whose key it carries."""
        taken: set[str] = set()
        for taker in self._takers.get(event.source, ()):
            if taker.generation not in taken and taker.adjust(event, place, legs, problems):
                taken.add(taker.generation)
        if not taken and event.source in self._takers:
            problems.append(
                Problem(
                    self._takers[event.source][0].rule_name,
                    "no match key",
                    f"adjustment {event.id} names discrepancy {event.refs['discrepancy']}, but no rule's match key",
                    "Post it again under a new id with the match key of the discrepancy in refs.",
                )
            )
        return bool(taken)

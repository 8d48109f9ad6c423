"""Legs of `duplicates` rules: keyed by what suspicious records agree in."""

from shared.contracts.event import Event
from shared.contracts.leg import group_key
from shared.ids import canonical
from shared.rules.duplicates_rule import DuplicatesRule, DuplicatesRuleModel
from shared.rules.extract.common import KeyedLeg, Place, Problem, SignOf, filled, getter, leg_of, signed
from shared.rules.parts import Selector

GROUP = "group"
"""In a leg's `values`: the match key it has elsewhere; records of one key are no suspicion here."""


class AlikeTaker:
    """One side of a rule. What lacks a field agrees with nobody: the rule it is matched by says what is wrong with it."""

    def __init__(self, rule: DuplicatesRule, index: int, selector: Selector, model: DuplicatesRuleModel) -> None:
        self.rule = rule
        self.rule_name = rule.name
        self.generation = rule.generation
        self.index = index
        self.source = selector.source
        self.types = tuple(selector.type)
        self._key = tuple(getter(field) for field in model.grouped_by)
        self._apart = tuple(getter(field) for field in model.apart or ())
        self._sign = SignOf(selector)

    def take(self, event: Event, place: Place, legs: list[KeyedLeg], problems: list[Problem]) -> None:  # noqa: ARG002 - a Taker
        """Add the leg of an event that has every field."""
        rule, amount = self.rule, event.amount
        key = [get(event) for get in self._key]
        if not filled(key):
            return
        sign = self._sign.of(event)
        if amount is None or sign is None:
            if rule.compares_amount and rule.sides[self.index].is_live(event.status):
                return
            amount = None
        else:
            amount = signed(amount, sign)
        apart = [get(event) for get in self._apart]
        values = {GROUP: canonical(apart).decode()} if self._apart and filled(apart) else None
        group = group_key(rule.org, rule.name, tuple(key))  # type: ignore[arg-type]  # filled: all text
        legs.append((group, leg_of(rule.generation, self.index, event, place, amount, values=values)))

    def adjust(self, event: Event, place: Place, legs: list[KeyedLeg], problems: list[Problem]) -> bool:  # noqa: ARG002
        """Adjustments settle amounts; a suspicion is settled by a person, or by voiding a record."""
        return False


def duplicates_takers(rule: DuplicatesRule, model: DuplicatesRuleModel) -> list[AlikeTaker]:
    """Return the takers of a rule, one per side."""
    return [
        AlikeTaker(rule, index, selector, model)
        for index, (side, selector) in enumerate(model.sides.items())
        if side in model.watched
    ]

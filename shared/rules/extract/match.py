"""Legs of `match` rules with a key."""

from shared.contracts.event import Event
from shared.contracts.leg import group_key, keyless_group_key
from shared.rules.extract.common import (
    KeyedLeg,
    Place,
    Problem,
    SignOf,
    filled,
    getter,
    leg_of,
    no_amount,
    no_key,
    signed,
)
from shared.rules.match_rule import MatchRule, MatchRuleModel
from shared.rules.parts import Selector


class SideTaker:
    """One side of a rule."""

    def __init__(self, rule: MatchRule, index: int, selector: Selector, model: MatchRuleModel) -> None:
        self.rule = rule
        self.rule_name = rule.name
        self.generation = rule.generation
        self.index = index
        self.source = selector.source
        self.types = tuple(selector.type)
        self._fields = tuple(model.key)
        self._key = tuple(getter(field) for field in model.key)
        self._is_live = rule.sides[index].is_live
        self._sign = SignOf(selector)
        self._is_plus = self._sign.is_plus

    @property
    def adds_as_it_is(self) -> bool:
        """Amounts of this side have no sign to be changed."""
        return self._is_plus

    def take(self, event: Event, place: Place, legs: list[KeyedLeg], problems: list[Problem]) -> None:
        """Add the leg of an event; without a key it goes to a group of its own."""
        rule, amount = self.rule, event.amount
        may_lack = amount is None or event.currency is None
        if may_lack and (missing := self._absent(event)) and self._is_live(event.status):
            problems.append(no_amount(rule.name, event, missing))
            return
        if amount is not None and not self._is_plus:
            sign = self._sign.of(event)
            if sign is None and self._is_live(event.status):
                problems.append(self._sign.problem(rule.name, event))
                return
            # A record that does not count needs no sign: without its amount it still stops what counted before.
            amount = None if sign is None else signed(amount, sign)
        key = [get(event) for get in self._key]
        if filled(key):
            group = group_key(rule.org, rule.name, tuple(key))  # type: ignore[arg-type]  # filled: all text
        else:
            group = keyless_group_key(rule.org, rule.name, event.source, event.record)
            problems.append(no_key(rule.name, self._fields, event))
        legs.append((group, leg_of(self.generation, self.index, event, place, amount)))

    def adjust(self, event: Event, place: Place, legs: list[KeyedLeg], problems: list[Problem]) -> bool:
        """Add an adjustment to this side, where it carries the rule's key."""
        key = [get(event) for get in self._key]
        if not filled(key):
            return False
        if event.amount is None or event.currency is None:
            problems.append(no_amount(self.rule.name, event, self._absent(event) or "currency"))
            return True
        group = group_key(self.rule.org, self.rule.name, tuple(key))  # type: ignore[arg-type]  # filled: all text
        leg = leg_of(self.generation, self.index, event, place, event.amount, event.refs["discrepancy"])
        legs.append((group, leg))
        return True

    def _absent(self, event: Event) -> str | None:
        if event.amount is None and self.rule.compares_amount:
            return "amount"
        return "currency" if event.currency is None and self.rule.compares_currency else None


def match_takers(rule: MatchRule, model: MatchRuleModel) -> list[SideTaker]:
    """Return the takers of a rule, one per side."""
    return [SideTaker(rule, index, selector, model) for index, selector in enumerate(model.sides.values())]

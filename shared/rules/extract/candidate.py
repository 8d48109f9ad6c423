"""Legs of `match` rules without a shared key: keyed by what partitions them, with the text that they are known by."""

from shared.contracts.event import Event
from shared.contracts.leg import group_key, keyless_group_key
from shared.rules.candidate_rule import CandidateRule, CandidateRuleModel
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
from shared.rules.parts import Selector

REFERENCE = "reference"
"""In a leg's `values`: the texts of the side's reference fields, a line each."""
REFERENCE_CHARS_MAX = 400
"""Remittance texts are shorter (ISO 20022: 4 lines of 140, SEPA: 140 in all); what follows is not looked at."""


class CandidateTaker:
    """One side of a rule."""

    def __init__(self, rule: CandidateRule, index: int, selector: Selector, model: CandidateRuleModel) -> None:
        self.rule = rule
        self.rule_name = rule.name
        self.generation = rule.generation
        self.index = index
        self.source = selector.source
        self.types = tuple(selector.type)
        self._fields = tuple(model.partition_by)
        self._partition = tuple(getter(field) for field in model.partition_by)
        side = rule.sides[index]
        self._texts = tuple(getter(field) for field in model.reference_fields[side.name])
        self._is_live = side.is_live
        self._sign = SignOf(selector)

    def take(self, event: Event, place: Place, legs: list[KeyedLeg], problems: list[Problem]) -> None:
        """Add the leg of an event; without a partition it goes to a group of its own."""
        rule, amount = self.rule, event.amount
        live = self._is_live(event.status)
        missing = "amount" if amount is None else "currency" if event.currency is None else None
        if live and missing:
            problems.append(no_amount(rule.name, event, missing))
            return
        if amount is not None and not self._sign.is_plus:
            sign = self._sign.of(event)
            if sign is None and live:
                problems.append(self._sign.problem(rule.name, event))
                return
            amount = None if sign is None else signed(amount, sign)
        partition = [get(event) for get in self._partition]
        if filled(partition):
            group = group_key(rule.org, rule.name, tuple(partition))  # type: ignore[arg-type]  # filled: all text
        else:
            group = keyless_group_key(rule.org, rule.name, event.source, event.record)
            problems.append(no_key(rule.name, self._fields, event))
        text = "\n".join(filter(None, (get(event) for get in self._texts)))[:REFERENCE_CHARS_MAX]
        values = {REFERENCE: text} if text else None
        legs.append((group, leg_of(rule.generation, self.index, event, place, amount, values=values)))

    def adjust(self, event: Event, place: Place, legs: list[KeyedLeg], problems: list[Problem]) -> bool:
        """Add an adjustment to this side where it carries the partition; it finds its record by the discrepancy it names."""
        partition = [get(event) for get in self._partition]
        if not filled(partition):
            return False
        missing = "amount" if event.amount is None else "currency" if event.currency is None else None
        if missing:
            problems.append(no_amount(self.rule.name, event, missing))
            return True
        group = group_key(self.rule.org, self.rule.name, tuple(partition))  # type: ignore[arg-type]  # filled: all text
        leg = leg_of(self.generation, self.index, event, place, event.amount, adjusts=event.refs["discrepancy"])
        legs.append((group, leg))
        return True


def candidate_takers(rule: CandidateRule, model: CandidateRuleModel) -> list[CandidateTaker]:
    """Return the takers of a rule, one per side."""
    return [CandidateTaker(rule, index, selector, model) for index, selector in enumerate(model.sides.values())]

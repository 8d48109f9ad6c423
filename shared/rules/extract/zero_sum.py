"""Legs of `zero_sum` rules: one per entry, with its sign, and the number of entries that it states."""

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
from shared.rules.zero_sum_rule import ZeroSumRule, ZeroSumRuleModel

STATED = "entries"
"""In a leg's `values`: how many entries the transaction has."""
LEAVES = "leaves"
"""In the `values` of a leg to a group without a transaction: its record is known under one now and counts there only."""
STATED_DIGITS_MAX = 9
"""A number of entries with more digits is no number of entries."""


class EntryTaker:
    """The entries of a rule."""

    def __init__(self, rule: ZeroSumRule, model: ZeroSumRuleModel) -> None:
        self.rule = rule
        self.rule_name = rule.name
        self.generation = rule.generation
        self.source = model.entries.source
        self.types = tuple(model.entries.type)
        self._fields = tuple(model.key)
        self._key = tuple(getter(field) for field in model.key)
        self._sign = SignOf(model.entries)
        self._stated = getter(model.complete.count) if model.complete.count else None

    def take(self, event: Event, place: Place, legs: list[KeyedLeg], problems: list[Problem]) -> None:
        """Add the leg of an entry; without a transaction it goes to a group of its own."""
        rule = self.rule
        problem, amount = self._amount(event)
        if problem is not None:
            problems.append(problem)
            return
        key = [get(event) for get in self._key]
        if filled(key):
            group = group_key(rule.org, rule.name, tuple(key))  # type: ignore[arg-type]  # filled: all text
        else:
            group = keyless_group_key(rule.org, rule.name, event.source, event.record)
            problems.append(no_key(rule.name, self._fields, event))
        stated = _whole_number(self._stated(event)) if self._stated else None
        values = None if stated is None else {STATED: stated}
        legs.append((group, leg_of(rule.generation, 0, event, place, amount, values=values)))
        if filled(key) and event.record != event.id:
            # Only an entry that names its record can be a newer event of one that came without its transaction.
            alone = keyless_group_key(rule.org, rule.name, event.source, event.record)
            legs.append((alone, leg_of(rule.generation, 0, event, place, None, values={LEAVES: "1"})))

    def adjust(self, event: Event, place: Place, legs: list[KeyedLeg], problems: list[Problem]) -> bool:
        """Add an adjustment where it carries the transaction; it takes the sign of the rule, for it is booked like an entry."""
        rule = self.rule
        key = [get(event) for get in self._key]
        if not filled(key):
            return False
        problem, amount = self._amount(event)
        if problem is not None:
            problems.append(problem)
            return True
        group = group_key(rule.org, rule.name, tuple(key))  # type: ignore[arg-type]  # filled: all text
        leg = leg_of(rule.generation, 0, event, place, amount, adjusts=event.refs["discrepancy"])
        legs.append((group, leg))
        return True

    def _amount(self, event: Event) -> tuple[Problem | None, str | None]:
        """Return the signed amount, or why an entry that counts has none. One that does not count needs none."""
        live = self.rule.entries.is_live(event.status)
        missing = "amount" if event.amount is None else "currency" if event.currency is None else None
        if live and missing:
            return no_amount(self.rule.name, event, missing), None
        sign = self._sign.of(event)
        if sign is None and live:
            return self._sign.problem(self.rule.name, event), None
        if event.amount is None or sign is None:
            return None, None
        return None, signed(event.amount, sign)


def _whole_number(text: str | None) -> str | None:
    """Return what is a number of entries as it is written without leading zeros."""
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= STATED_DIGITS_MAX):
        return None
    return str(int(text))


def zero_sum_takers(rule: ZeroSumRule, model: ZeroSumRuleModel) -> list[EntryTaker]:
    """Return the taker of a rule's entries."""
    return [EntryTaker(rule, model)]

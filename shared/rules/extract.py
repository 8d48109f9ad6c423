"""From an event to the legs of the rules that select it: the normaliser's last step, and `replay`'s first."""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from shared.contracts.dead_letter import Reason
from shared.contracts.event import Event, microseconds
from shared.contracts.leg import Leg, group_key, keyless_group_key
from shared.rules.match_rule import MatchRule, compile_match
from shared.rules.model import MatchRuleModel, Selector, SignBy

ADJUSTMENT = "adjustment."

Getter = Callable[[Event], str | None]
Place = tuple[int, int, int]
"""Inbox partition, offset there, and receipt in milliseconds."""


class KeyedLeg(NamedTuple):
    """A leg with its group key."""

    group: bytes
    leg: Leg


class Problem(NamedTuple):
    """Why a rule could not take an event: becomes a dead letter."""

    rule: str
    reason: Reason
    detail: str
    hint: str


class Extracted(NamedTuple):
    """What the rules of an org make of an event; `selected` is False when no rule wants it ("not reconciled")."""

    legs: list[KeyedLeg]
    problems: list[Problem]
    selected: bool


class _SideSelector:
    """One side of one rule, compiled to closures."""

    def __init__(self, rule: MatchRule, index: int, selector: Selector, key: Sequence[str]) -> None:
        self.rule = rule
        self.index = index
        self.source = selector.source
        self.types = tuple(selector.type)
        self.key_fields = tuple(key)
        self.key = tuple(_getter(field) for field in key)
        self.is_live = rule.sides[index].is_live
        self.sign = selector.sign
        self.sign_of = _getter(selector.sign.by) if isinstance(selector.sign, SignBy) else None

    def selects(self, type_: str) -> bool:
        return any(_type_matches(pattern, type_) for pattern in self.types)


class Extractor:
    """The selectors of one org's rules."""

    def __init__(self, org: str, packs: Mapping[str, Sequence[MatchRuleModel]]) -> None:
        self.org = org
        self.rules: dict[str, MatchRule] = {}
        """Compiled rules by generation."""
        self.models: dict[str, tuple[str, MatchRuleModel]] = {}
        """(pack, rule as written) by generation; `rule_record` makes the control record of it."""
        self._sides: dict[str, list[_SideSelector]] = {}
        self._chosen: dict[tuple[str, str], tuple[_SideSelector, ...]] = {}
        for pack, models in packs.items():
            for model in models:
                rule = compile_match(org, pack, model)
                self.rules[rule.generation] = rule
                self.models[rule.generation] = (pack, model)
                for index, selector in enumerate(model.sides.values()):
                    side = _SideSelector(rule, index, selector, model.key)
                    self._sides.setdefault(selector.source, []).append(side)

    def extract(self, event: Event, inbox_partition: int, inbox_offset: int, received_ms: int) -> Extracted:
        """Return the legs of `event`, which was read at this place of the inbox."""
        legs: list[KeyedLeg] = []
        problems: list[Problem] = []
        place = (inbox_partition, inbox_offset, received_ms)
        if event.type.startswith(ADJUSTMENT) and event.refs.get("discrepancy"):
            selected = self._adjust(event, place, legs, problems)
            return Extracted(legs, problems, selected)
        sides = self._chosen.get((event.source, event.type))
        if sides is None:
            sides = self._choose(event.source, event.type)
        for side in sides:
            live = side.is_live(event.status)
            amount = event.amount
            rule = side.rule
            if live and (
                (amount is None and rule.compares_amount) or (event.currency is None and rule.compares_currency)
            ):
                problems.append(_no_amount(rule, event))
                continue
            if amount is not None and side.sign != 1:
                sign = _sign(side, event)
                if sign is None and live:
                    problems.append(_no_sign(side, event))
                    continue
                # A record that does not count needs no sign: without its amount it still stops what counted before.
                amount = None if sign is None else _negated(amount) if sign < 0 else amount
            key = [get(event) for get in side.key]
            if all(part and not part.isspace() for part in key):
                group = group_key(self.org, rule.name, tuple(key))  # type: ignore[arg-type]  # checked to be text above
            else:
                group = keyless_group_key(self.org, rule.name, event.source, event.record)
                problems.append(_no_key(side, event))
            legs.append(KeyedLeg(group, _leg(side, event, place, amount)))
        return Extracted(legs, problems, bool(sides))

    def _choose(self, source: str, type_: str) -> tuple[_SideSelector, ...]:
        sides = tuple(side for side in self._sides.get(source, ()) if side.selects(type_))
        if len(self._chosen) < CHOSEN_MAX:
            self._chosen[source, type_] = sides
        return sides

    def _adjust(self, event: Event, place: Place, legs: list[KeyedLeg], problems: list[Problem]) -> bool:
        """Add the legs of an adjustment: it goes to the side of its source in every rule whose key it carries."""
        taken: set[str] = set()
        for side in self._sides.get(event.source, ()):
            rule = side.rule
            key = [get(event) for get in side.key]
            if rule.generation in taken or not all(part and not part.isspace() for part in key):
                continue
            taken.add(rule.generation)
            if event.amount is None or event.currency is None:
                problems.append(_no_amount(rule, event))
                continue
            group = group_key(self.org, rule.name, tuple(key))  # type: ignore[arg-type]  # checked to be text above
            legs.append(KeyedLeg(group, _leg(side, event, place, event.amount, event.refs["discrepancy"])))
        if not taken and event.source in self._sides:
            problems.append(
                Problem(
                    self._sides[event.source][0].rule.name,
                    "no match key",
                    f"adjustment {event.id} names discrepancy {event.refs['discrepancy']}, but no rule's match key",
                    "Post it again under a new id with the match key of the discrepancy in refs.",
                )
            )
        return bool(taken)


def _leg(side: _SideSelector, event: Event, place: Place, amount: str | None, adjusts: str | None = None) -> Leg:
    return Leg(
        side.rule.generation,
        side.index,
        event.source,
        event.record,
        event.id,
        microseconds(event.occurred_at),
        *place,
        event.sequence,
        event.supersedes,
        amount,
        event.currency,
        event.status,
        adjusts,
    )


CHOSEN_MAX = 10_000
"""Pairs of source and type whose rules are remembered; a bound, since producers choose the types."""


def _type_matches(pattern: str, type_: str) -> bool:
    if pattern == "*":
        return True
    if pattern.endswith(".*"):
        return type_.startswith(pattern[:-1])
    return pattern == type_


def _getter(field: str) -> Getter:
    place, _, name = field.partition(".")
    if place == "refs":
        return lambda event: event.refs.get(name)
    if place == "attrs":
        return lambda event: event.attrs.get(name)
    return attrgetter(field)


def _sign(side: _SideSelector, event: Event) -> int | None:
    if side.sign_of is None:
        assert isinstance(side.sign, int)
        return side.sign
    assert isinstance(side.sign, SignBy)
    value = side.sign_of(event)
    return None if value is None else side.sign.values.get(value)


def _negated(amount: str) -> str:
    return amount[1:] if amount.startswith("-") else f"-{amount}"


def _no_amount(rule: MatchRule, event: Event) -> Problem:
    what = "amount" if event.amount is None and rule.compares_amount else "currency"
    return Problem(
        rule.name,
        "no amount",
        f"{event.source} event {event.id} ({event.type}, status {event.status or 'none'}) has no {what}, which {rule.name} compares",
        "Fix the producer or its mapping and send the event again under a new id; what the record said before still counts.",
    )


def _no_sign(side: _SideSelector, event: Event) -> Problem:
    assert isinstance(side.sign, SignBy)
    allowed = ", ".join(side.sign.values)
    return Problem(
        side.rule.name,
        "no sign",
        f"{event.source} event {event.id}: the sign is told by {side.sign.by}, which is none of {allowed}",
        "Add the value to the rule's sign or fix the producer, then replay this dead letter.",
    )


def _no_key(side: _SideSelector, event: Event) -> Problem:
    return Problem(
        side.rule.name,
        "no match key",
        f"{event.source} event {event.id}: {' or '.join(side.key_fields)} is empty, so nothing can be matched with it",
        "Send a newer event of the same record with the key; until then live money is raised as missing at its deadline.",
    )

"""What the extraction of every kind of rule uses: keyed legs, problems, fields, signs."""

from collections.abc import Callable
from operator import attrgetter
from typing import NamedTuple, Protocol

from shared.contracts.dead_letter import Reason
from shared.contracts.event import Event, microseconds
from shared.contracts.leg import Leg
from shared.rules.parts import Selector, SignBy

Getter = Callable[[Event], str | None]
Place = tuple[int, int, int]
"""Inbox partition, offset there, and receipt in milliseconds."""
KeyedLeg = tuple[bytes, Leg]
"""Group key and leg. A plain tuple: there is one for every event."""


class Problem(NamedTuple):
    """Why a rule could not take an event: becomes a dead letter."""

    rule: str
    reason: Reason
    detail: str
    hint: str


class Taker(Protocol):
    """One selector of one rule, compiled to closures: makes the legs of the events that it selects."""

    rule_name: str
    generation: str
    source: str
    types: tuple[str, ...]

    def take(self, event: Event, place: Place, legs: list[KeyedLeg], problems: list[Problem]) -> None:
        """Add the legs, or the problems, of an event of this source and one of these types."""

    def adjust(self, event: Event, place: Place, legs: list[KeyedLeg], problems: list[Problem]) -> bool:
        """Do the same for an adjustment entry (`adjustment.*` with `refs.discrepancy`) of this source, whatever its type.

        False: it is not about this rule, for instance since it does not carry the rule's key.
        """


def leg_of(
    generation: str,
    side: int,
    event: Event,
    place: Place,
    amount: str | None,
    adjusts: str | None = None,
    values: dict[str, str] | None = None,
) -> Leg:
    """Return the leg of an event; `amount` has its sign applied."""
    partition, offset, received_ms = place
    return Leg(
        generation,
        side,
        event.source,
        event.record,
        event.id,
        microseconds(event.occurred_at),
        partition,
        offset,
        received_ms,
        event.sequence,
        event.supersedes,
        amount,
        event.currency,
        event.status,
        adjusts,
        values,
    )


def type_matches(pattern: str, type_: str) -> bool:
    """Tell whether an event's type is one that the pattern of a rule means."""
    if pattern == "*":
        return True
    if pattern.endswith(".*"):
        return type_.startswith(pattern[:-1])
    return pattern == type_


def getter(field: str) -> Getter:
    """Compile a field path to what reads it."""
    place, _, name = field.partition(".")
    if place == "refs":
        return lambda event: event.refs.get(name)
    if place == "attrs":
        return lambda event: event.attrs.get(name)
    return attrgetter(field)


class SignOf:
    """The sign of a selector, fixed or read from a field."""

    def __init__(self, selector: Selector) -> None:
        self.fixed = selector.sign if not isinstance(selector.sign, SignBy) else None
        self.by = selector.sign if isinstance(selector.sign, SignBy) else None
        self._read = getter(self.by.by) if self.by else None

    @property
    def is_plus(self) -> bool:
        """Amounts stay as they are."""
        return self.fixed == 1

    def of(self, event: Event) -> int | None:
        """Return 1 or -1; None: it cannot be told."""
        if self._read is None or self.by is None:
            return self.fixed
        value = self._read(event)
        return None if value is None else self.by.values.get(value)

    def problem(self, rule: str, event: Event) -> Problem:
        """Say that the sign cannot be told."""
        assert self.by is not None
        allowed = ", ".join(self.by.values)
        return Problem(
            rule,
            "no sign",
            f"{event.source} event {event.id}: the sign is told by {self.by.by}, which is none of {allowed}",
            "Add the value to the rule's sign or fix the producer, then replay this dead letter.",
        )


def signed(amount: str, sign: int) -> str:
    """Return an exact decimal with a sign applied."""
    if sign > 0:
        return amount
    return amount[1:] if amount.startswith("-") else f"-{amount}"


def filled(key: list[str | None]) -> bool:
    """Tell whether every part of a key says something: empty parts never match."""
    for part in key:  # noqa: SIM110 - a generator would take three times as long, and every leg asks
        if not part or part.isspace():
            return False
    return True


def no_key(rule: str, fields: tuple[str, ...], event: Event) -> Problem:
    """Say that a part of the key is empty."""
    return Problem(
        rule,
        "no match key",
        f"{event.source} event {event.id}: {' or '.join(fields)} is empty, so nothing can be matched with it",
        "Send a newer event of the same record with the key; until then live money is raised as missing at its deadline.",
    )


def no_amount(rule: str, event: Event, what: str) -> Problem:
    """Say that an amount or a currency is absent."""
    return Problem(
        rule,
        "no amount",
        f"{event.source} event {event.id} ({event.type}, status {event.status or 'none'}) has no {what}, which {rule} compares",
        "Fix the producer or its mapping and send the event again under a new id; what the record said before still counts.",
    )

"""Legs of `invariant` rules: one per snapshot, with the text of every field that a check reads."""

from hashlib import blake2b

from shared.contracts.event import Event
from shared.contracts.leg import group_key
from shared.ids import canonical
from shared.rules.extract.common import KeyedLeg, Place, Problem, filled, getter, leg_of
from shared.rules.invariant_rule import AMOUNT, InvariantRule, InvariantRuleModel

CLOSING = "attrs.closing"
"""In a leg's `values`, as all fields are: the period that the reading is the last of, e.g. `2026-11`."""
CONTENT = "content"
"""In a leg's `values`: digest of what the event says, so that an id that comes again with other content is known."""


class SnapshotTaker:
    """The snapshots of a rule."""

    def __init__(self, rule: InvariantRule, model: InvariantRuleModel) -> None:
        self.rule = rule
        self.rule_name = rule.name
        self.generation = rule.generation
        self.source = model.snapshots.source
        self.types = tuple(model.snapshots.type)
        self._fields = tuple(model.key)
        self._key = tuple(getter(field) for field in model.key)
        read = {field for check in rule.checks for field in check.fields if field != AMOUNT}
        self._read = tuple((field, getter(field)) for field in sorted({*read, CLOSING}))

    def take(self, event: Event, place: Place, legs: list[KeyedLeg], problems: list[Problem]) -> None:
        """Add the leg of a snapshot; what its values are worth is for the matcher, which knows what was read before."""
        rule = self.rule
        key = [get(event) for get in self._key]
        if not filled(key):
            problems.append(_no_account(rule.name, self._fields, event))
            return
        values = {field: text for field, get in self._read if (text := get(event))}
        values[CONTENT] = _content(event)
        group = group_key(rule.org, rule.name, tuple(key))  # type: ignore[arg-type]  # filled: all text
        legs.append((group, leg_of(rule.generation, 0, event, place, event.amount, None, values)))

    def adjust(self, *_: object) -> bool:
        """Take no adjustments: what a snapshot says is so."""
        return False


def _content(event: Event) -> str:
    said: list[str | None] = [
        event.type,
        event.record,
        event.supersedes,
        event.occurred_at.isoformat(),
        str(event.sequence),
        event.amount,
        event.currency,
        event.status,
        event.account,
    ]
    for entries in (event.refs, event.attrs):
        said += [str(len(entries)), *(part for pair in sorted(entries.items()) for part in pair)]
    return blake2b(canonical(said), digest_size=8).hexdigest()


def _no_account(rule: str, fields: tuple[str, ...], event: Event) -> Problem:
    return Problem(
        rule,
        "no match key",
        f"{event.source} event {event.id}: {' or '.join(fields)} is empty, so it is not known whose snapshot it is",
        "Fix the producer and send the snapshot again under a new id; it has been checked against nothing.",
    )


def invariant_takers(rule: InvariantRule, model: InvariantRuleModel) -> list[SnapshotTaker]:
    """Return the taker of a rule's snapshots."""
    return [SnapshotTaker(rule, model)]

"""A record live under two keys of one rule has moved: money would count twice. Only the sink sees both groups.

Money without a key waits in a group of its own (`record:<source>/<record>`); once its record comes with a key, the
matcher is asked to take it out there. Between real keys a person has to say which one is right: `RecordMoved`, one for
each record, however many keys it stands under.
"""

from collections import OrderedDict
from collections.abc import Iterable
from datetime import datetime
from itertools import islice

import msgspec

from services.alerts.domain.settled import Placed, RecordName
from shared.contracts.discrepancy import Discrepancy, Key, LogPosition, RecordEvidence, Severity, SideEvidence
from shared.ids import discrepancy_id

KEYLESS_PREFIX = "record:"
SEVERITY: Severity = "high"
"""The money counts in two places until somebody decides."""


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A group that holds a live record."""

    group_id: str
    org: str
    rule: str
    pack: str
    key: Key
    log: LogPosition
    shadow: bool = False


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """A group that holds a record, live or not."""

    holder: Holder
    live: bool


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """A step after which, or before which, a record is live under several keys."""

    came: Placed | None
    """The record as it came to `here` live; None when it is no longer live there."""
    here: Holder
    others: tuple[Holder, ...]
    """Up to two other groups where it is live; two at the least are named, however many there are."""


class Whereabouts:
    """The groups of one rule that hold one record, as far as it has to be known: each step costs the same.

    Args:
        name: the record.
        known: of the groups that steps will speak of, those that hold it; and of all others any two where it is live,
            and any one where it is not.
    """

    __slots__ = ("_keyless", "_live", "_quiet", "keyless_key")

    def __init__(self, name: RecordName, known: Iterable[Holding] = ()) -> None:
        self.keyless_key = keyless_key(name)
        self._keyless = False
        # Its first entry is found at once also when thousands before it were taken out, which a dict does not promise.
        self._live: OrderedDict[str, Holder] = OrderedDict()
        self._quiet: set[str] = set()
        for holding in known:
            self._put(holding.holder, live=holding.live)

    def step(self, here: Holder, placed: Placed | None) -> Turn | None:
        """Note that `here` holds the record as `placed`, or (None) no longer; return what may have moved by it."""
        group, was_live = here.group_id, here.group_id in self._live
        if here.key == self.keyless_key:
            self._keyless = placed is not None
            return None
        self._quiet.discard(group)
        self._live.pop(group, None)
        # A shadow only watches: what it and the rule in force hold of one record is no move.
        others = tuple(islice((held for held in self._live.values() if held.shadow == here.shadow), 2))
        if placed is not None:
            self._put(here, live=placed.live)
        is_live = placed is not None and placed.live
        if was_live == is_live or not others:
            return None
        return Turn(came=placed if is_live else None, here=here, others=others)

    def _put(self, holder: Holder, *, live: bool) -> None:
        if holder.key == self.keyless_key:
            self._keyless = True
        elif live:
            self._live[holder.group_id] = holder
        else:
            self._quiet.add(holder.group_id)

    @property
    def is_twice(self) -> bool:
        """It stands without a key and under one: in whatever order and state it came, the key is right."""
        return self._keyless and bool(self._live or self._quiet)


def keyless_key(name: RecordName) -> str:
    """Return how the group of a record without a match key shows its key."""
    source, record = name
    return f"{KEYLESS_PREFIX}{source}/{record}"


def moved_id(org: str, rule: str, name: RecordName) -> str:
    """Return the id of the discrepancy: one for each record and rule, however many keys it is live under."""
    source, record = name
    return discrepancy_id(org, rule, [], "", "RecordMoved", None, source, record)


def after(turn: Turn, known: Discrepancy | None, revision: int, log_offset: int, now: datetime) -> Discrepancy | None:
    """Return the revision that `turn` makes of the record's discrepancy, None when it says nothing new.

    Args:
        turn: what happened.
        known: the discrepancy as it is stored.
        revision: what its next revision is called.
        log_offset: place of its last revision in the log, which the next may not precede.
        now: when it resolves, if it does.
    """
    raised = known if known is not None and known.state == "raised" else None
    if turn.came is not None:
        return None if raised else raise_moved(turn.came, turn.here, turn.others[0], revision, log_offset)
    if raised is None:
        return None
    if len(turn.others) < 2:
        return resolve_moved(raised, turn.here, revision, log_offset, now)
    if _text(turn.here.key) not in (raised.expected, raised.actual):
        return None
    return _rename(raised, turn.others[1], turn.others[0], revision, log_offset)


def raise_moved(placed: Placed, here: Holder, other: Holder, revision: int, log_offset: int) -> Discrepancy:
    """Return the discrepancy of a record that is live under the keys of `here` and `other`."""
    source, record = placed.record.source, placed.record.record
    return Discrepancy(
        id=moved_id(here.org, here.rule, (source, record)),
        revision=revision,
        state="raised",
        org=here.org,
        rule=here.rule,
        pack=here.pack,
        type="RecordMoved",
        severity=SEVERITY,
        key=here.key,
        side=placed.side,
        account=None,
        sides={placed.side: _evidence(placed.record)},
        duplicate=record,
        expected=_text(other.key),
        actual=_text(here.key),
        difference=None,
        currency=None,
        raised_at=here.log.time,
        resolved_at=None,
        resolution=None,
        expired=False,
        explanation=_explanation(source, record, here, other),
        log=_at(here, log_offset),
        shadow=here.shadow,
    )


def _rename(raised: Discrepancy, here: Holder, other: Holder, revision: int, log_offset: int) -> Discrepancy:
    """Name two keys under which the record is still live, after it left one of those that were named."""
    (evidence,) = [side for side in raised.sides.values() if side is not None]
    assert evidence.source is not None
    assert raised.duplicate is not None
    return msgspec.structs.replace(
        raised,
        revision=revision,
        key=here.key,
        expected=_text(other.key),
        actual=_text(here.key),
        explanation=_explanation(evidence.source, raised.duplicate, here, other),
        log=_at(here, log_offset),
        shadow=here.shadow,
    )


def _explanation(source: str, record: str, here: Holder, other: Holder) -> str:
    return (
        f"Record {record} of {source} is live under {_text(other.key)} and under {_text(here.key)} of {here.rule}; "
        "void it under the wrong one."
    )


def resolve_moved(raised: Discrepancy, left: Holder, revision: int, log_offset: int, at: datetime) -> Discrepancy:
    """Return the revision that ends `raised`, since the record is no longer live under the key of `left`."""
    return msgspec.structs.replace(
        raised,
        revision=revision,
        state="resolved",
        resolved_at=at,
        resolution="corrected",
        explanation=f"Record {raised.duplicate} is no longer live under {_text(left.key)} of {left.rule}.",
        log=_at(left, log_offset),
    )


def _at(holder: Holder, log_offset: int) -> LogPosition:
    # The two groups may lie in different partitions, whose offsets do not compare: this never goes back.
    return msgspec.structs.replace(holder.log, offset=max(holder.log.offset, log_offset))


def _evidence(record: RecordEvidence) -> SideEvidence:
    return SideEvidence(
        id=record.id,
        source=record.source,
        record=record.record,
        amount=record.amount,
        currency=record.currency,
        status=record.status,
        occurred_at=record.occurred_at,
    )


def _text(key: Key) -> str:
    return key if isinstance(key, str) else " / ".join(key)

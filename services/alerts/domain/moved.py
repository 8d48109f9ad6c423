"""A record live under two keys of one rule has moved: money would count twice. Only the sink sees both groups.

Money without a key waits in a group of its own (`record:<source>/<record>`); once its record comes with a key, the
matcher is asked to take it out there. Between two real keys a person has to say which one is right: `RecordMoved`.
"""

from datetime import datetime

import msgspec

from services.alerts.domain.settled import RecordName
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


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """A live record of an item: on which side, as what."""

    name: RecordName
    side: str
    record: RecordEvidence


def is_keyless(key: Key) -> bool:
    """Tell whether `key` stands for a record without a match key."""
    return isinstance(key, str) and key.startswith(KEYLESS_PREFIX)


def moved_id(name: RecordName, one: Holder, other: Holder) -> str:
    """Return the id of the discrepancy: the same from whichever of the two keys it is seen."""
    first, second = sorted((_parts(one.key), _parts(other.key)))
    source, record = name
    key = [*first, *second]
    return discrepancy_id(one.org, one.rule, key, "", "RecordMoved", None, source, record)


def raise_moved(placed: Placed, here: Holder, other: Holder, revision: int, log_offset: int) -> Discrepancy:
    """Return the discrepancy of a record that is live under the keys of `here` and `other`."""
    source, record = placed.name
    return Discrepancy(
        id=moved_id(placed.name, here, other),
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
        explanation=(
            f"Record {record} of {source} is live under {_text(other.key)} and under {_text(here.key)} of {here.rule}; "
            "void it under the wrong one."
        ),
        log=_at(here, log_offset),
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


def _parts(key: Key) -> list[str]:
    return [key] if isinstance(key, str) else list(key)


def _text(key: Key) -> str:
    return key if isinstance(key, str) else " / ".join(key)

"""Topic `legs`: the part of an event that one side of one rule needs, and the control records between them.

Written by ingest only. Kafka key of a leg: the canonical JSON array [org, rule, key values…], or
[org, rule, null, source, record] for money without a match key. Value: one version byte, then msgpack arrays with the
record's tag first, so that a field can be added at the end without a new version.
"""

from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta

from shared.ids import canonical

VERSION = 1

Milliseconds = Annotated[int, Meta(description="Milliseconds since 1970-01-01 UTC")]
Microseconds = Annotated[int, Meta(description="Microseconds since 1970-01-01 UTC")]


class Leg(msgspec.Struct, array_like=True, tag=0, gc=False):
    """What one side of a rule needs of an event. Not live or adjusting is told by the rule and by `adjusts`."""

    generation: str
    """Generation of the rule that selected it."""
    side: int
    """Place of the side in the rule, from 0."""
    source: str
    record: str
    id: str
    occurred_at: Microseconds
    inbox_partition: int
    inbox_offset: int
    received_at: Milliseconds
    """Broker time of the inbox record."""
    sequence: int = 0
    supersedes: str | None = None
    amount: str | None = None
    """Exact decimal in the major unit, with the side's sign applied."""
    currency: str | None = None
    status: str | None = None
    adjusts: str | None = None
    """For an adjustment: the id of the discrepancy it refers to."""
    values: dict[str, str] | None = None
    """What else the rule's kind reads of the event, by the rule's own names; exact decimals as text."""


class FeedCount(msgspec.Struct, array_like=True, gc=False):
    """How many events of a source one inbox partition had between two ticks, and when: receipts by the broker's clock."""

    org: str
    source: str
    events: int
    first_at: Milliseconds
    last_at: Milliseconds
    longest_ms: int
    """The longest time between two of them."""
    owner: int
    """The partition of `legs` that speaks for the feed."""


class Tick(msgspec.Struct, array_like=True, tag=1, gc=False):
    """Inbox partition `inbox_partition` of `partitions` has been read up to `time`; every earlier leg of it is before this."""

    inbox_partition: int
    partitions: int
    time: Milliseconds
    feeds: list[FeedCount] | None = None
    """What came of the sources that rules know, since the last tick that told it; None: nobody counted."""


class RuleRecord(msgspec.Struct, array_like=True, tag=2, gc=False):
    """A rule generation of one org, written to every partition before its first leg there."""

    org: str
    rule: str
    generation: str
    version: int
    """Offset of its rule set in the topic `rules`: the highest one is in force."""
    specification: str
    """JSON `{"pack", "rule"}` (see `shared.rules.match_rule.rule_record`); empty when the rule was withdrawn."""
    derivation: int = 0
    """How often the rule's legs have been derived anew; what an earlier derivation left is closed."""
    deriving: bool = False
    """Its legs are still being derived: it judges as a shadow, and nothing that falls due is done, until they are all there."""


class Cut(msgspec.Struct, array_like=True, tag=3, gc=False):
    """At a period's end: publish every group of `org` that is still pending."""

    org: str
    id: str
    inbox_partition: int
    received_at: Milliseconds


class Withdraw(msgspec.Struct, array_like=True, tag=4, gc=False):
    """Take a record out of the group this is keyed to: it was seen later under a key of its own."""

    source: str
    record: str
    inbox_partition: int
    received_at: Milliseconds


LegRecord = Leg | Tick | RuleRecord | Cut | Withdraw

_PREFIX = bytes([VERSION])
_encode = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], LegRecord] = msgspec.msgpack.Decoder(LegRecord).decode


class UnknownVersion(ValueError):
    """A record of a version that this build cannot read: deploy the newer build first."""


def encode_leg_record(record: LegRecord) -> bytes:
    """Return the Kafka value of `record`."""
    return _PREFIX + _encode(record)


def decode_leg_record(value: bytes) -> LegRecord:
    """Read a Kafka value of the topic `legs`.

    Raises:
        UnknownVersion: written by a build with another version byte.
        msgspec.MsgspecError: not a leg record.
    """
    if value[0] != VERSION:
        msg = f"legs record has version {value[0]}, this build reads version {VERSION}"
        raise UnknownVersion(msg)
    return _decode(value[1:])


def group_key(org: str, rule: str, key: tuple[str, ...]) -> bytes:
    """Return the Kafka key, and the matcher's group key, for the match key `key`."""
    return canonical([org, rule, *key])


def keyless_group_key(org: str, rule: str, source: str, record: str) -> bytes:
    """Return the group key of a record without a match key; the null keeps it apart from every real key."""
    return canonical([org, rule, None, source, record])


def feed_key(org: str, source: str) -> bytes:
    """Return the key whose partition speaks for the feed of a source; no rule is called `feed`, for names have a dot."""
    return canonical([org, "feed", source])


class GroupName(msgspec.Struct, frozen=True):
    """A group key, read."""

    org: str
    rule: str
    key: tuple[str, ...]
    keyless: bool = False


_key_decode = msgspec.json.Decoder(list[str | None]).decode


def read_group_key(group: bytes) -> GroupName:
    """Read what `group_key` or `keyless_group_key` wrote."""
    org, rule, *key = _key_decode(group)
    assert org is not None
    assert rule is not None
    if key and key[0] is None:
        return GroupName(org, rule, (f"record:{key[1]}/{key[2]}",), keyless=True)
    return GroupName(org, rule, tuple(key))  # type: ignore[arg-type]  # only the first part may be null

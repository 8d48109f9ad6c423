"""Topic `rules` (compacted): the rule sets in force, one per org and pack, written only by `tieout rules apply`. JSON.

Kafka key: JSON array [org, pack]. A set without rules withdraws the pack.

Beside the sets stand notes of ingest, with the key [org, pack, rule]: the rule's legs have been derived anew.
"""

from datetime import datetime
from typing import Any

import msgspec


class Derivation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A rule's events are to be derived anew from the topic `events`, as they were before the rule changed its shape."""

    number: int
    """1 for the first time, and so on."""
    since: datetime | None = None
    """Only events received at or after it; None: all that the topic has."""


class RuleDerived(msgspec.Struct, frozen=True, kw_only=True, tag_field="note", tag="derived"):
    """Every leg of derivation `number` is in the topic `legs`; written by ingest."""

    org: str
    pack: str
    rule: str
    number: int
    at: datetime


class RuleSetRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A pack's rules for one org, validated before they were written."""

    version: int
    """Of the rules format."""
    org: str
    pack: str
    rules: list[dict[str, Any]]
    """Each rule as in the YAML, checked and with defaults left out."""
    applied_at: datetime
    applied_by: str
    withdrawn: list[str] = []
    """Rules that the pack once had: compaction forgets older sets, and the matcher must still hear of what went."""
    derivations: dict[str, Derivation] = {}
    """The last derivation of every rule that ever had one, done or not; `RuleDerived` tells which are done."""


_decode = msgspec.json.Decoder(RuleSetRecord).decode
_encode = msgspec.json.Encoder().encode


def rule_set_key(org: str, pack: str) -> bytes:
    """Return the Kafka key."""
    return _encode([org, pack])


_decode_name = msgspec.json.Decoder(list[str]).decode
_decode_note = msgspec.json.Decoder(RuleDerived).decode


def read_key(key: bytes) -> tuple[str, str, str | None]:
    """Return org, pack and, of a note, the rule.

    Raises:
        msgspec.MsgspecError: no key of this topic.
    """
    name = _decode_name(key)
    if len(name) not in (2, 3):
        msg = f"a key of {len(name)} parts"
        raise msgspec.ValidationError(msg)
    return name[0], name[1], name[2] if len(name) == 3 else None


def rule_derived_key(org: str, pack: str, rule: str) -> bytes:
    """Return the Kafka key of a note."""
    return _encode([org, pack, rule])


def encode_rule_derived(note: RuleDerived) -> bytes:
    """Return the Kafka value of a note."""
    return _encode(note)


def decode_rule_derived(value: bytes) -> RuleDerived:
    """Read the Kafka value of a note."""
    return _decode_note(value)


def encode_rule_set(record: RuleSetRecord) -> bytes:
    """Return the Kafka value."""
    return _encode(record)


def decode_rule_set(value: bytes) -> RuleSetRecord:
    """Read a Kafka value of the topic `rules`."""
    return _decode(value)

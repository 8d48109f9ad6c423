"""Topic `rules` (compacted): the rule sets in force, one per org and pack, written only by `tieout rules apply`. JSON.

Kafka key: JSON array [org, pack]. A set without rules withdraws the pack.
"""

from datetime import datetime
from typing import Any

import msgspec


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


_decode = msgspec.json.Decoder(RuleSetRecord).decode
_encode = msgspec.json.Encoder().encode


def rule_set_key(org: str, pack: str) -> bytes:
    """Return the Kafka key."""
    return _encode([org, pack])


def encode_rule_set(record: RuleSetRecord) -> bytes:
    """Return the Kafka value."""
    return _encode(record)


def decode_rule_set(value: bytes) -> RuleSetRecord:
    """Read a Kafka value of the topic `rules`."""
    return _decode(value)

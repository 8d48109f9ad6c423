"""Topic `dead-letters`: what could not be understood, with its place in `inbox` and how to replay it. JSON."""

from datetime import datetime
from typing import Literal, get_args

import msgspec

Reason = Literal[
    "refused",
    "unknown mapping",
    "no match key",
    "no amount",
    "no sign",
    "id reused",
    "unreadable",
    "unknown source",
    "too late",
    "empty read",
    "not a number",
]
REASONS: tuple[Reason, ...] = get_args(Reason)


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One record that tieout kept aside. It can be replayed after a fix: `tieout dead-letters replay ID`."""

    id: str
    """uuid5 of reason, inbox place and rule: the same record set aside twice is one dead letter."""
    org: str | None
    source: str | None
    reason: Reason
    detail: str
    """What is wrong with which field, in one sentence."""
    hint: str
    """What to do."""
    rule: str | None
    event: str | None
    """The source's id of the event."""
    inbox_partition: int
    inbox_offset: int
    received_at: datetime
    raw: bytes
    """The request or row as it came (base64 in JSON); empty where the matcher set it aside: `inbox` has it."""

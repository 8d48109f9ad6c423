"""Topic `inbox`: everything that came in, as it came, in broker time; the source of every replay.

Value: one version byte, then msgpack. Keys: JSON array [org, source, delivery id] for a webhook,
[org, source, record] for an event row.
"""

from collections.abc import Callable

import msgspec

VERSION = 1


class WebhookReceived(msgspec.Struct, tag="webhook", frozen=True, kw_only=True, gc=False):
    """A provider's request whose signature was verified."""

    org: str
    source: str
    provider: str
    """Which mapping reads it: `stripe`, `standard`."""
    delivery_id: str
    body: bytes
    """The raw bytes that were signed."""
    verdict: str
    """Result of the signature check: `verified <scheme>`."""


class RowReceived(msgspec.Struct, tag="row", frozen=True, kw_only=True, gc=False):
    """One event row, as posted (JSON bytes)."""

    org: str
    row: bytes


class TickRequested(msgspec.Struct, tag="tick", frozen=True):
    """An idle inbox partition's clock: the broker's time of this record is what counts."""


class CutRequested(msgspec.Struct, tag="cut", frozen=True, kw_only=True):
    """Asks the matcher to publish every group of `org` that is still pending."""

    org: str
    id: str


class WithdrawRequested(msgspec.Struct, tag="withdraw", frozen=True, kw_only=True):
    """Asks the matcher to take a record out of its keyless group, since it came later with a key."""

    org: str
    rule: str
    source: str
    record: str


class RulesAwaited(msgspec.Struct, tag="rules", frozen=True):
    """What stands behind this record in its partition is derived by rules at least as new as `version`."""

    version: int
    """Offset in the topic `rules`."""


InboxRecord = WebhookReceived | RowReceived | TickRequested | CutRequested | WithdrawRequested | RulesAwaited

_PREFIX = bytes([VERSION])
_encode = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], InboxRecord] = msgspec.msgpack.Decoder(InboxRecord).decode


def encode_inbox(record: InboxRecord) -> bytes:
    """Return the Kafka value."""
    return _PREFIX + _encode(record)


def decode_inbox(value: bytes) -> InboxRecord:
    """Read a Kafka value.

    Raises:
        ValueError: another version.
        msgspec.MsgspecError: not an inbox record.
    """
    if not value or value[0] != VERSION:
        msg = f"inbox record has version {value[:1].hex() or 'none'}, this build reads version {VERSION}"
        raise ValueError(msg)
    return _decode(value[1:])

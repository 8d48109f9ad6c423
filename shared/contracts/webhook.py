"""What tieout sends to a webhook endpoint: the body of one message. JSON, signed as Standard Webhooks says.

The header `webhook-id` is the same in every attempt of one message, so a receiver can drop repeats by it.
"""

from datetime import datetime
from typing import Literal

import msgspec

from shared.contracts.anomaly import Anomaly
from shared.contracts.discrepancy import Discrepancy

DiscrepancyEvent = Literal["discrepancy.raised", "discrepancy.updated", "discrepancy.resolved"]
STORM_EVENT = "discrepancy.storm"
TEST_EVENT = "endpoint.test"


class DiscrepancyMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One revision of a discrepancy. A lower revision is never sent after a higher one was delivered."""

    type: DiscrepancyEvent
    timestamp: datetime
    """When alerts stored the revision; the same in every attempt."""
    data: Discrepancy


class Storm(msgspec.Struct, frozen=True, kw_only=True):
    """How many messages one summary stands for. Every record is kept and can be listed and replayed."""

    org: str
    minute: datetime
    """Begin of the minute (UTC) in which the cap was passed."""
    cap: int
    """Messages an organisation's endpoint gets in one minute before the summary takes over."""


class StormMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Sent once per minute and endpoint instead of single messages above the cap."""

    type: Literal["discrepancy.storm"]
    timestamp: datetime
    data: Storm


class TestData(msgspec.Struct, frozen=True, kw_only=True):
    """What a test message carries."""

    __test__ = False

    org: str
    endpoint: str
    text: str


class TestMessage(msgspec.Struct, frozen=True, kw_only=True):
    """Sent when somebody asks for a test of an endpoint."""

    __test__ = False

    type: Literal["endpoint.test"]
    timestamp: datetime
    data: TestData


class AnomalyMessage(msgspec.Struct, frozen=True, kw_only=True):
    """An anomaly was raised, has become another kind or worse, or is over."""

    type: Literal["anomaly.raised", "anomaly.closed"]
    timestamp: datetime
    data: Anomaly


WebhookMessage = DiscrepancyMessage | StormMessage | TestMessage | AnomalyMessage

_encode = msgspec.json.Encoder().encode


def encode_webhook(message: WebhookMessage) -> bytes:
    """Return the body: the bytes that are signed."""
    return _encode(message)

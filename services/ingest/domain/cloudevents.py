"""CloudEvents 1.0, structured and batched: `data` is our event, the envelope fills what `data` leaves out."""

import base64
import binascii
from typing import Any

import msgspec

from shared.contracts.event import EventRefused

STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"

_FILLED = {"id": "id", "source": "source", "type": "type", "occurred_at": "time"}
"""Our field <- the envelope's attribute."""

_decode = msgspec.json.Decoder(strict=True).decode
_encode = msgspec.json.Encoder().encode


def row_of(envelope: Any) -> bytes:
    """Return the posted event in `envelope` as one JSON row.

    Raises:
        EventRefused: not CloudEvents 1.0, or its data is no JSON object.
    """
    if not isinstance(envelope, dict):
        raise EventRefused("a CloudEvent must be a JSON object")
    if envelope.get("specversion") != "1.0":
        raise EventRefused(
            f'specversion: must be "1.0", the envelope says {envelope.get("specversion")!r}', "specversion"
        )
    data = _data(envelope)
    for field, attribute in _FILLED.items():
        if data.get(field) is None and envelope.get(attribute) is not None:
            data[field] = envelope[attribute]
    return _encode(data)


def _data(envelope: dict[str, Any]) -> dict[str, Any]:
    data = envelope.get("data")
    if "data_base64" in envelope:
        try:
            data = _decode(base64.b64decode(envelope["data_base64"], validate=True))
        except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError, TypeError, ValueError, RecursionError):
            raise EventRefused("data_base64: must be the base64 of one event in JSON", "data_base64") from None
    if not isinstance(data, dict):
        raise EventRefused("data: must be one event as a JSON object", "data")
    return dict(data)

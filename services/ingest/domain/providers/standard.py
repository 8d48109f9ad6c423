"""The generic signed webhook: the body is one posted event, or an array of them, in tieout's own format."""

from typing import Any

import msgspec

from services.ingest.domain.providers.mapping import Mapped, MappingOptions, Unmapped
from shared.contracts.event import EventRefused, PostedEvent, convert_posted

_decode = msgspec.json.Decoder(strict=True).decode


def read(body: bytes, source: str, options: MappingOptions) -> Mapped:  # noqa: ARG001 - the signature of every mapping
    """Return the events of `body`; `source` fills theirs where it is missing.

    Raises:
        Unmapped: the body is not JSON.
    """
    try:
        document = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unmapped(f"the body is not valid JSON: {error}", "Fix the sender, then let it deliver again.") from None
    rows = document if isinstance(document, list) else [document]
    mapped = Mapped("events", [], [])
    for row in rows:
        try:
            mapped.events.append(_event(row, source))
        except EventRefused as refusal:
            mapped.refused.append(refusal)
    return mapped


def _event(row: Any, source: str) -> PostedEvent:
    if isinstance(row, dict):
        row.setdefault("source", source)
    posted = convert_posted(row)
    if posted.source != source:
        raise EventRefused(
            f"source: the event names {posted.source!r}, but the webhook belongs to {source!r}", "source"
        )
    if posted.received_at is not None:
        raise EventRefused("received_at: the receipt is set by tieout; leave the field out", "received_at")
    return posted

"""Event rows as producers post them: one object, an array, NDJSON or CloudEvents; each row stands for itself."""

from datetime import datetime
from typing import NamedTuple

import msgspec

from services.ingest.domain import cloudevents
from shared.contracts.event import EventRefused, PostedEvent, accept, decode_posted
from shared.ids import canonical

JSON = "application/json"
NDJSON = "application/x-ndjson"
CONTENT_TYPES = (JSON, NDJSON, cloudevents.STRUCTURED, cloudevents.BATCHED)

ROW_BYTES_MAX = 1_000_000
"""Of one row: with its envelope it must fit into one record of `inbox`. A full event has some hundred bytes."""

_WHITESPACE = b" \t\r\n"

_decode_rows = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_any = msgspec.json.Decoder(strict=True).decode


class BodyUnreadable(ValueError):
    """The body as a whole is not what its content type says, so that no row can be told from another."""


class Row(NamedTuple):
    """One row of a request: its JSON, or why it is none."""

    raw: bytes
    problem: EventRefused | None = None


class ValidRow(NamedTuple):
    """A row that ingest may accept."""

    key: bytes
    """Kafka key in `inbox`: org, source, record."""
    id: str
    raw: bytes


def split(body: bytes, content_type: str) -> list[Row]:
    """Return the rows of `body`, whose media type is one of `CONTENT_TYPES`.

    Raises:
        BodyUnreadable: broken JSON, or empty.
    """
    if not body.strip(_WHITESPACE):
        raise BodyUnreadable("the body is empty")
    match content_type:
        case "application/x-ndjson":
            return [Row(line) for line in body.split(b"\n") if line.strip(_WHITESPACE)]
        case cloudevents.STRUCTURED:
            return [_unwrapped(_json(body))]
        case cloudevents.BATCHED:
            envelopes = _json(body)
            if not isinstance(envelopes, list):
                raise BodyUnreadable("a batch of CloudEvents must be a JSON array")
            return [_unwrapped(envelope) for envelope in envelopes]
        case _:
            return _json_rows(body)


def _json_rows(body: bytes) -> list[Row]:
    if body.lstrip(_WHITESPACE)[:1] == b"[":
        try:
            return [Row(bytes(raw)) for raw in _decode_rows(body)]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BodyUnreadable(f"not valid JSON: {error}") from None
    # A single object is read as its row; only what is no JSON at all is the body's fault.
    _json(body)
    return [Row(body)]


def _json(body: bytes) -> object:
    try:
        document: object = _decode_any(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BodyUnreadable(f"not valid JSON: {error}") from None
    return document


def _unwrapped(envelope: object) -> Row:
    try:
        return Row(cloudevents.row_of(envelope))
    except EventRefused as problem:
        return Row(b"", problem)


def read_row(raw: bytes) -> PostedEvent:
    """Read one row as a producer may post it.

    Raises:
        EventRefused: it breaks the contract, or sets its own receipt.
    """
    posted = decode_posted(raw)
    if posted.received_at is not None:
        raise EventRefused("received_at: the receipt is set by tieout; leave the field out", "received_at")
    return posted


def check(row: Row, *, org: str, received_at: datetime) -> ValidRow:
    """Return what goes into the inbox for `row`.

    Raises:
        EventRefused: with the field and what to write instead.
    """
    if row.problem is not None:
        raise row.problem
    if len(row.raw) > ROW_BYTES_MAX:
        raise EventRefused(f"the row has {len(row.raw)} bytes; {ROW_BYTES_MAX} are allowed")
    event = accept(read_row(row.raw), org=org, received_at=received_at)
    return ValidRow(row_key(org, event.source, event.record), event.id, row.raw)


def row_key(org: str, source: str, record: str) -> bytes:
    """Return the Kafka key of a row: the events of one record stay in one partition, in their order."""
    return canonical([org, source, record])

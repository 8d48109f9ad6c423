"""What the OpenAPI page of ingest shows: descriptions and examples, apart from the routes."""

from typing import Any

from services.ingest.domain import cloudevents, rows

DESCRIPTION = """\
Where money's records come in. `POST /v1/events` takes events with an API key; `POST /webhooks/{org}/{source}` takes
providers' signed webhooks. A 2xx means that Kafka has acknowledged what came in. Errors are problem documents
(RFC 9457). Repeating a request is always safe: the same event id is one event.\
"""

EVENT = {
    "source": "ledger",
    "type": "payment.succeeded",
    "id": "evt_123",
    "record": "pay_9",
    "occurred_at": "2026-11-20T10:00:00.123456Z",
    "amount": "120.50",
    "currency": "EUR",
    "status": "succeeded",
    "account": "customer:42",
    "refs": {"payment_id": "pay_9", "invoice": "INV-7"},
}
CLOUD_EVENT = {
    "specversion": "1.0",
    "id": "evt_123",
    "source": "ledger",
    "type": "payment.succeeded",
    "time": "2026-11-20T10:00:00Z",
    "data": {"amount": "120.50", "currency": "EUR", "status": "succeeded", "refs": {"payment_id": "pay_9"}},
}
_NDJSON = '{"source":"ledger","type":"payment.succeeded","id":"evt_1","occurred_at":"2026-11-20T10:00:00Z"}\n'

_ACCEPTED = {"accepted": 1, "refused": 0, "results": [{"index": 0, "status": "accepted", "id": "evt_123"}]}
_REFUSED_ROW = {
    "index": 1,
    "status": "refused",
    "field": "amount",
    "error": 'amount: Expected `str`, got `float`; write the amount as a decimal string in the major unit, e.g. "120.50"',
}
_PARTIAL = {"accepted": 1, "refused": 1, "results": [*_ACCEPTED["results"], _REFUSED_ROW]}  # type: ignore[misc]  # an example is plain JSON


def _problem(status: int, slug: str, title: str, detail: str) -> dict[str, Any]:
    document = {"type": f"urn:tieout:problem:{slug}", "title": title, "status": status, "detail": detail}
    return {"description": title, "content": {"application/problem+json": {"example": document}}}


def _json(description: str, example: Any) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"example": example}}}


_AWAY = _problem(503, "kafka-away", "Not available", "Kafka has not acknowledged within 5 s. Nothing is accepted.")

EVENTS: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            rows.JSON: {"examples": {"one": {"value": EVENT}, "several": {"value": [EVENT]}}},
            rows.NDJSON: {"example": _NDJSON},
            cloudevents.STRUCTURED: {"example": CLOUD_EVENT},
            cloudevents.BATCHED: {"example": [CLOUD_EVENT]},
        },
    },
}
EVENTS_RESPONSES: dict[int | str, dict[str, Any]] = {
    202: _json("Every row is accepted", _ACCEPTED),
    207: _json("Some rows are accepted, some refused", _PARTIAL),
    400: _problem(400, "body-unreadable", "Bad request", "not valid JSON. Nothing was accepted."),
    401: _problem(401, "not-authenticated", "Not authenticated", "The API key is unknown or revoked."),
    403: _problem(403, "role", "Not allowed", "The role 'viewer' may not post events."),
    413: _problem(413, "body-too-large", "Body too large", "The body is larger than 4194304 bytes."),
    415: _problem(415, "content-type", "Unsupported media type", "Content-Type 'text/csv' is not read here."),
    422: _problem(422, "nothing-accepted", "Nothing accepted", "No row was accepted; row 0: amount: ..."),
    503: _AWAY,
}

WEBHOOK: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"example": {"id": "evt_1", "type": "payment_intent.succeeded"}}},
    },
    "parameters": [
        {"in": "path", "name": "org", "required": True, "schema": {"type": "string"}, "example": "acme"},
        {"in": "path", "name": "source", "required": True, "schema": {"type": "string"}, "example": "stripe"},
        {
            "in": "header",
            "name": "Stripe-Signature",
            "schema": {"type": "string"},
            "example": "t=1700000000,v1=5257a8…",
        },
        {
            "in": "header",
            "name": "webhook-id",
            "schema": {"type": "string"},
            "example": "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W",
        },
        {"in": "header", "name": "webhook-timestamp", "schema": {"type": "string"}, "example": "1700000000"},
        {
            "in": "header",
            "name": "webhook-signature",
            "schema": {"type": "string"},
            "example": "v1,K5oZfzN95Z9UVu1Ess…",
        },
    ],
}
WEBHOOK_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: _json("Kept, and acknowledged by Kafka", {"status": "accepted", "delivery": "evt_1"}),
    401: _problem(401, "signature-stale", "Not authenticated", "the signature is 900 s old, 300 s are allowed."),
    404: _problem(404, "unknown-source", "Not found", "There is no source 'stripe' of an org 'acme'."),
    413: _problem(413, "body-too-large", "Body too large", "The body is larger than 1048576 bytes."),
    503: _AWAY,
}

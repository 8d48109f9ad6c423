"""Ingest over HTTP: posted events and providers' webhooks.

Rows are read by msgspec and not by the framework's models: a request may hold thousands of them, and a broken one
must not take the others down.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

import msgspec
import structlog
from fastapi import Depends, FastAPI, Request, Response
from fastapi.security import HTTPBearer

from services.ingest.domain import rows
from services.ingest.domain.directory import Directory
from services.ingest.domain.sns import unconfirmed
from services.ingest.handlers import examples
from services.ingest.handlers.door import Door
from services.ingest.handlers.problems import Problem, install
from services.ingest.ports import CertificateAway, Certificates, Inbox, InboxAway, Secrets
from services.ingest.settings import IngestSettings
from services.ingest.use_cases.accept_events import RowsAnswer, accept_events
from services.ingest.use_cases.accept_webhook import NotConfigured, SignatureRefused, accept_webhook
from shared.contracts.directory import KeyEntry
from shared.errors import TieoutError
from shared.telemetry.health import Health
from shared.telemetry.metrics import bounded, counter
from shared.telemetry.ops import AsgiApp, OpsEndpoints
from shared.telemetry.traces import span

POSTING_ROLES = frozenset({"ingest", "manager", "owner"})

_encode = msgspec.json.Encoder().encode

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ingest:
    """What the routes need."""

    settings: IngestSettings
    inbox: Inbox
    directory: Directory
    secrets: Secrets
    health: Health
    clock: Callable[[], float] = time.time
    """Seconds since 1970."""
    certificates: Certificates | None = None
    """For sources whose webhooks are signed by a certificate."""


def http_app(ingest: Ingest) -> AsgiApp:
    """Return the HTTP application."""

    async def post_events(request: Request) -> Response:
        with span("POST /v1/events"):
            return await _counted("/v1/events", _post_events(ingest, request))

    async def post_webhook(org: str, source: str, request: Request) -> Response:
        with span("POST /webhooks"):
            return await _counted("/webhooks", _post_webhook(ingest, org, source, request))

    return OpsEndpoints(Door(_described(), post_events, post_webhook), ingest.health)


def _described() -> FastAPI:
    """Return the pages that describe the API, and the answers to what it does not take."""
    app = FastAPI(
        title="tieout ingest",
        version="1",
        description=examples.DESCRIPTION,
        openapi_url="/openapi.json",
    )
    install(app)

    # Only for the OpenAPI page: `_key` reads the header itself, since a problem document is the answer.
    api_key = Depends(HTTPBearer(auto_error=False, scheme_name="apiKey", description="tk_<id>_<secret>"))

    @app.post(
        "/v1/events",
        status_code=202,
        openapi_extra=examples.EVENTS,
        responses=examples.EVENTS_RESPONSES,
        dependencies=[api_key],
        tags=["events"],
    )
    async def events() -> None:
        """Post events: one object, a JSON array, NDJSON, or CloudEvents 1.0 (structured or batched).

        Each row is answered for itself. Accepted means that Kafka has acknowledged it; the same id again is the same
        event, so a request may always be repeated.
        """
        _not_at_the_door()

    @app.post(
        "/webhooks/{org}/{source}",  # noqa: FAST003 - the door reads them
        openapi_extra=examples.WEBHOOK,
        responses=examples.WEBHOOK_RESPONSES,
        tags=["webhooks"],
    )
    async def webhook() -> None:
        """Take a provider's webhook: its signature is checked on the raw bytes, which are then kept as they are."""
        _not_at_the_door()

    @app.head("/webhooks/{org}/{source}", include_in_schema=False)  # noqa: FAST003 - whoever asks, it is there
    async def head_webhook() -> Response:
        """Circle looks whether the address answers before it delivers."""
        return Response(status_code=200)

    return app


def _not_at_the_door() -> NoReturn:
    """Refuse a post whose path only looks like one of ours to the framework: nothing would keep it."""
    raise Problem(404, "no-such-page", "There is no such page: see /docs.")


async def _counted(route: str, answer: Any) -> Response:
    requests = counter("tieout_ingest_requests_total")
    try:
        response: Response = await answer
    except Problem as problem:
        requests.labels(route, "unavailable" if problem.status == 503 else "refused").inc()
        raise
    outcome = {207: "partial", 422: "refused"}.get(response.status_code, "accepted")
    requests.labels(route, outcome).inc()
    return response


async def _post_events(ingest: Ingest, request: Request) -> Response:
    _check_started(ingest)
    key = _key(ingest, request)
    content_type = _content_type(request)
    body = await _body(request, ingest.settings.ingest_body_bytes_max, "TIEOUT_INGEST_BODY_BYTES_MAX")
    try:
        split = rows.split(body, content_type)
    except rows.BodyUnreadable as error:
        raise Problem(400, "body-unreadable", f"{error}. Nothing was accepted.") from None
    if len(split) > ingest.settings.ingest_rows_max:
        raise Problem(
            413,
            "too-many-rows",
            f"{len(split)} rows in one request; {ingest.settings.ingest_rows_max} are allowed. Send it in parts.",
        )
    received_at = datetime.fromtimestamp(ingest.clock(), UTC)
    try:
        answer = await accept_events(split, org=key.org, received_at=received_at, inbox=ingest.inbox)
    except InboxAway as away:
        raise _away(ingest, away) from away
    counter("tieout_ingest_rows_total").labels("accepted").inc(answer.accepted)
    counter("tieout_ingest_rows_total").labels("refused").inc(answer.refused)
    return _rows_response(answer)


def _rows_response(answer: RowsAnswer) -> Response:
    if not answer.refused:
        return Response(_encode(answer), 202, media_type=rows.JSON)
    if answer.accepted:
        return Response(_encode(answer), 207, media_type=rows.JSON)
    if all(result.field == "org" for result in answer.results):
        raise Problem(403, "other-org", answer.results[0].error or "", extra=msgspec.to_builtins(answer))
    first = answer.results[0]
    detail = f"No row was accepted; row {first.index}: {first.error}" if answer.results else "The body holds no event."
    raise Problem(422, "nothing-accepted", detail, extra=msgspec.to_builtins(answer))


async def _post_webhook(ingest: Ingest, org: str, source: str, request: Request) -> Response:
    _check_started(ingest)
    webhooks = counter("tieout_ingest_webhooks_total")
    entry = ingest.directory.source(org, source)
    if entry is None:
        webhooks.labels("unknown", "unknown_source").inc()
        raise Problem(404, "unknown-source", f"There is no source {source!r} of an org {org!r}: check the address.")
    label = bounded("source", source)
    body = await _body(request, ingest.settings.ingest_webhook_bytes_max, "TIEOUT_INGEST_WEBHOOK_BYTES_MAX")
    try:
        config = ingest.secrets.of(org, source)
        delivery = await accept_webhook(
            entry,
            config,
            request.headers,
            body,
            now_s=ingest.clock(),
            inbox=ingest.inbox,
            certificates=ingest.certificates,
        )
    except SignatureRefused as refused:
        webhooks.labels(label, "stale" if refused.reason == "stale" else "invalid").inc()
        raise Problem(401, f"signature-{refused.reason}", f"{refused}. Nothing of the request was kept.") from None
    except (NotConfigured, TieoutError) as error:
        raise Problem(
            503,
            "not-configured",
            f"{error}: set it in TIEOUT_WEBHOOK_SECRETS_FILE or TIEOUT_WEBHOOK_SECRET__<ORG>__<SOURCE>.",
            headers=_retry_after(ingest),
        ) from None
    except CertificateAway as away:
        raise Problem(503, "certificate-away", f"{away}. Send it again.", headers=_retry_after(ingest)) from None
    except InboxAway as away:
        raise _away(ingest, away) from away
    webhooks.labels(label, "valid").inc()
    confirm = unconfirmed(body) if "circle" in (entry.provider, config.provider if config else None) else None
    if confirm is not None:
        log.warning("a subscription waits until somebody opens its address", org=org, source=source, address=confirm)
    return Response(_encode({"status": "accepted", "delivery": delivery}), 200, media_type=rows.JSON)


def _check_started(ingest: Ingest) -> None:
    if not ingest.directory.complete:
        raise Problem(503, "starting", "Ingest is still reading its directory.", headers=_retry_after(ingest))


def _key(ingest: Ingest, request: Request) -> KeyEntry:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _not_authenticated("Send an API key: `Authorization: Bearer tk_...`.")
    key = ingest.directory.key(token.strip())
    if key is None:
        raise _not_authenticated("The API key is unknown or revoked: create one with `tieout keys create`.")
    if key.role not in POSTING_ROLES:
        raise Problem(
            403, "role", f"The role {key.role!r} may not post events; {', '.join(sorted(POSTING_ROLES))} may."
        )
    return key


def _not_authenticated(detail: str) -> Problem:
    return Problem(401, "not-authenticated", detail, headers={"WWW-Authenticate": 'Bearer realm="tieout"'})


def _content_type(request: Request) -> str:
    given = request.headers.get("content-type", rows.JSON).partition(";")[0].strip().lower()
    if given not in rows.CONTENT_TYPES:
        raise Problem(
            415, "content-type", f"Content-Type {given!r} is not read here; use {', '.join(rows.CONTENT_TYPES)}."
        )
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise Problem(415, "content-encoding", f"Content-Encoding {encoding!r} is not read here; send it plain.")
    return given


async def _body(request: Request, bytes_max: int, setting: str) -> bytes:
    """Return the body; one that is too large is turned down without being read whole."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > bytes_max:
        raise _too_large(bytes_max, setting)
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > bytes_max:
            raise _too_large(bytes_max, setting)
        parts.append(part)
    return b"".join(parts)


def _too_large(bytes_max: int, setting: str) -> Problem:
    return Problem(
        413,
        "body-too-large",
        f"The body is larger than {bytes_max} bytes. Send it in parts, or raise {setting}.",
        headers={"Connection": "close"},
    )


def _away(ingest: Ingest, away: InboxAway) -> Problem:
    return Problem(
        503,
        "kafka-away",
        f"{away}. Nothing is reported as accepted; send the same request again later, repeats are harmless.",
        headers=_retry_after(ingest),
    )


def _retry_after(ingest: Ingest) -> dict[str, str]:
    return {"Retry-After": str(ingest.settings.ingest_retry_after_s)}

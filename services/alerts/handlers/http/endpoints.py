"""Webhook endpoints and their deliveries: `/v1/webhooks/…`, for owners and managers."""

from collections.abc import Awaitable
from datetime import datetime, timedelta
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from services.alerts.domain.address import URL_LENGTH_MAX, UrlRefused
from services.alerts.domain.endpoint import (
    DESCRIPTION_LENGTH_MAX,
    ROTATION_OVERLAP,
    ROTATION_OVERLAP_MAX,
    TYPES_MAX,
    Delivery,
    DeliveryFilter,
    DeliveryState,
    Endpoint,
    EndpointChange,
    Tried,
)
from services.alerts.handlers.http.auth import Manager
from services.alerts.handlers.http.pagination import Page, PageWish, Paging, bad_cursor, page
from services.alerts.handlers.http.problem import Problem, not_found, problem_responses
from services.alerts.use_cases.endpoints import (
    DeliveryUnknown,
    Endpoints,
    EndpointUnknown,
    NotNow,
    TooManyEndpoints,
)
from shared.contracts.discrepancy import Severity

_T = TypeVar("_T")

_EXAMPLE_ENDPOINT: dict[str, Any] = {
    "id": "6c0e1f0a-6a5b-4c56-9c39-5f1f9f0f2f11",
    "url": "https://hooks.example.com/tieout",
    "types": ["AmountMismatch", "MissingProviderRecord"],
    "severity_min": "medium",
    "description": "finance channel",
    "enabled": True,
    "disabled_at": None,
    "disabled_reason": None,
    "previous_secret_until": None,
    "created_at": "2026-11-20T10:00:00Z",
}
_EXAMPLE_DELIVERY: dict[str, Any] = {
    "id": 42,
    "endpoint_id": _EXAMPLE_ENDPOINT["id"],
    "webhook_id": "msg_5f0c7c3c8d6e5d0bb7a3c0a0c8a9a111",
    "kind": "discrepancy",
    "type": "discrepancy.raised",
    "severity": "high",
    "discrepancy_id": "7b7a3f4e-55a6-5c0c-8a3e-7f7c2d6f6a22",
    "revision": 1,
    "state": "pending",
    "reason": "HTTP 503",
    "attempts": 1,
    "next_attempt_at": "2026-11-20T10:05:05Z",
    "created_at": "2026-11-20T10:00:00Z",
    "finished_at": None,
    "replayed_at": None,
}
_EXAMPLE_ATTEMPT: dict[str, Any] = {
    "at": "2026-11-20T10:00:00.120Z",
    "attempt": 1,
    "status_code": 503,
    "error": "HTTP 503",
    "duration_ms": 88,
}
_EXAMPLE_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw…"  # noqa: S105 - shows the form; it is no secret

Url = Annotated[
    str, StringConstraints(min_length=1, max_length=URL_LENGTH_MAX), Field(description="https; a public address.")
]
TypeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
Types = Annotated[
    list[TypeName], Field(max_length=TYPES_MAX, description="Discrepancy types, and `Anomaly`; empty: all.")
]
Description = Annotated[str, StringConstraints(max_length=DESCRIPTION_LENGTH_MAX)]


class EndpointWish(BaseModel):
    """Where to tell whom about what."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"url": "https://hooks.example.com/tieout", "severity_min": "medium"}]},
    )

    url: Url
    types: Types = []
    severity_min: Severity = "low"
    description: Description = ""


class EndpointChangeBody(BaseModel):
    """What is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"enabled": False}]})

    url: Url | None = None
    types: Types | None = None
    severity_min: Severity | None = None
    description: Description | None = None
    enabled: bool | None = Field(default=None, description="false drops what waits; it can be replayed later.")


class EndpointBody(BaseModel):
    """An endpoint, without its secret."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE_ENDPOINT]})

    id: str
    url: str
    types: list[str]
    severity_min: Severity
    description: str
    enabled: bool
    disabled_at: datetime | None
    disabled_reason: str | None
    previous_secret_until: datetime | None
    created_at: datetime


class EndpointWithSecret(EndpointBody):
    """An endpoint with the secret that its messages are signed with."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**_EXAMPLE_ENDPOINT, "secret": _EXAMPLE_SECRET}]})

    secret: str = Field(description="Shown now and never again: keep it where the receiver reads it.")


class RotationWish(BaseModel):
    """How long the former secret also signs."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"overlap_hours": 24}]})

    overlap_hours: int = Field(
        default=int(ROTATION_OVERLAP / timedelta(hours=1)), ge=0, le=int(ROTATION_OVERLAP_MAX / timedelta(hours=1))
    )


class Queued(BaseModel):
    """The message is on its way."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"delivery_id": 42}]})

    delivery_id: int = Field(description="See `GET /v1/webhooks/deliveries/{id}`.")


class RangeWish(BaseModel):
    """Which messages of an endpoint to send again, by the time they were stored: [since, until)."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"since": "2026-11-20T00:00:00Z", "until": "2026-11-21T00:00:00Z"}]},
    )

    since: AwareDatetime
    until: AwareDatetime
    states: list[DeliveryState] = Field(
        default=["failed", "dropped"], min_length=1, max_length=4, description="Only messages in one of these states."
    )


class RangeAnswer(BaseModel):
    """How many messages are due again."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"replayed": 17, "more": False}]})

    replayed: int
    more: bool = Field(description="true: the limit of one call was reached; call again for the rest.")


class DeliveryBody(BaseModel):
    """One message to one endpoint, and where it stands."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE_DELIVERY]})

    id: int
    endpoint_id: str
    webhook_id: str = Field(description="Header `webhook-id`: the same in every attempt.")
    kind: str
    type: str
    severity: Severity
    discrepancy_id: str | None
    revision: int | None
    state: DeliveryState = Field(
        description="`pending`: waits for its first or next try. `failed`: the plan is used up. `dropped`: not sent, see "
        "`reason` (`superseded`, `storm`, `endpoint disabled`, `endpoint deleted`)."
    )
    reason: str | None
    attempts: int
    next_attempt_at: datetime | None
    created_at: datetime
    finished_at: datetime | None
    replayed_at: datetime | None


class AttemptBody(BaseModel):
    """One try."""

    at: datetime
    attempt: int
    status_code: int | None
    error: str | None
    duration_ms: int


class DeliveryWithAttempts(DeliveryBody):
    """A delivery with every try, the first first; a replay counts from 1 again."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{**_EXAMPLE_DELIVERY, "attempts_made": [_EXAMPLE_ATTEMPT]}]}
    )

    attempts_made: list[AttemptBody]


DeliveryId = Annotated[int, Path(ge=1, le=2**63 - 1)]
_COMMON = (401, 403, 422, 503)


def router(endpoints: Endpoints) -> APIRouter:
    """Return the routes under `/v1/webhooks`."""
    routes = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])
    _add_endpoints(routes, endpoints)
    _add_actions(routes, endpoints)
    _add_deliveries(routes, endpoints)
    return routes


def _add_endpoints(routes: APIRouter, endpoints: Endpoints) -> None:
    @routes.post(
        "/endpoints",
        status_code=201,
        summary="Register an endpoint; shows its secret once",
        responses=problem_responses(*_COMMON, 409),
    )
    async def create(body: EndpointWish, caller: Manager) -> EndpointWithSecret:
        endpoint, secret = await _answered(
            endpoints.create(caller.org, body.url, body.types, body.severity_min, body.description)
        )
        return _with_secret(endpoint, secret)

    @routes.get("/endpoints", summary="Endpoints", responses=problem_responses(*_COMMON))
    async def list_endpoints(caller: Manager, paging: Paging) -> Page[EndpointBody]:
        rows = await endpoints.list(caller.org, _endpoint_place(paging), paging.limit + 1)
        return page(rows, paging.limit, lambda endpoint: (endpoint.id,), _shown)

    @routes.get("/endpoints/{endpoint_id}", summary="One endpoint", responses=problem_responses(*_COMMON, 404))
    async def get(endpoint_id: UUID, caller: Manager) -> EndpointBody:
        return _shown(await _answered(endpoints.get(caller.org, str(endpoint_id)), endpoint_id))

    @routes.patch(
        "/endpoints/{endpoint_id}", summary="Change, disable or enable", responses=problem_responses(*_COMMON, 404)
    )
    async def change(endpoint_id: UUID, body: EndpointChangeBody, caller: Manager) -> EndpointBody:
        wish = EndpointChange(
            url=body.url,
            types=None if body.types is None else tuple(body.types),
            severity_min=body.severity_min,
            description=body.description,
            enabled=body.enabled,
            disabled_reason=f"disabled by {caller.actor}",
        )
        return _shown(await _answered(endpoints.change(caller.org, str(endpoint_id), wish), endpoint_id))

    @routes.delete(
        "/endpoints/{endpoint_id}",
        status_code=204,
        summary="Delete; its deliveries stay visible",
        responses=problem_responses(*_COMMON, 404),
    )
    async def remove(endpoint_id: UUID, caller: Manager) -> None:
        await _answered(endpoints.remove(caller.org, str(endpoint_id)), endpoint_id)


def _add_actions(routes: APIRouter, endpoints: Endpoints) -> None:
    @routes.post(
        "/endpoints/{endpoint_id}/rotate-secret",
        summary="New secret, shown once; the former one signs too for a while",
        responses=problem_responses(*_COMMON, 404),
    )
    async def rotate(endpoint_id: UUID, caller: Manager, body: RotationWish | None = None) -> EndpointWithSecret:
        overlap = timedelta(hours=(body or RotationWish()).overlap_hours)
        rotated = endpoints.rotate(caller.org, str(endpoint_id), overlap)
        return _with_secret(*await _answered(rotated, endpoint_id))

    @routes.post(
        "/endpoints/{endpoint_id}/test",
        status_code=202,
        summary="Send a test message",
        responses=problem_responses(*_COMMON, 404, 409),
    )
    async def test(endpoint_id: UUID, caller: Manager) -> Queued:
        return Queued(delivery_id=await _answered(endpoints.test(caller.org, str(endpoint_id)), endpoint_id))

    @routes.post(
        "/endpoints/{endpoint_id}/replay",
        status_code=202,
        summary="Send the messages of a time range again",
        description="Oldest first, under the same webhook-ids. Left out: a revision whose newer one was delivered and "
        "is not replayed with it.",
        responses=problem_responses(*_COMMON, 404, 409),
    )
    async def replay_range(endpoint_id: UUID, body: RangeWish, caller: Manager) -> RangeAnswer:
        if body.since >= body.until:
            raise Problem(422, "bad-range", "since: must be before until")
        replayed = await _answered(
            endpoints.replay_range(caller.org, str(endpoint_id), body.since, body.until, body.states), endpoint_id
        )
        return RangeAnswer(replayed=replayed.count, more=replayed.more)


def _add_deliveries(routes: APIRouter, endpoints: Endpoints) -> None:
    @routes.get("/deliveries", summary="Deliveries, newest first", responses=problem_responses(*_COMMON))
    async def list_deliveries(
        caller: Manager,
        paging: Paging,
        endpoint_id: Annotated[UUID | None, Query()] = None,
        state: Annotated[DeliveryState | None, Query()] = None,
        discrepancy_id: Annotated[UUID | None, Query()] = None,
    ) -> Page[DeliveryBody]:
        chosen = DeliveryFilter(
            endpoint_id=str(endpoint_id) if endpoint_id else None,
            state=state,
            discrepancy_id=str(discrepancy_id) if discrepancy_id else None,
        )
        rows = await endpoints.deliveries(caller.org, chosen, _delivery_place(paging), paging.limit + 1)
        return page(rows, paging.limit, lambda delivery: (str(delivery.id),), _shown_delivery)

    @routes.get(
        "/deliveries/{delivery_id}",
        summary="One delivery with its attempts",
        responses=problem_responses(*_COMMON, 404),
    )
    async def get_delivery(delivery_id: DeliveryId, caller: Manager) -> DeliveryWithAttempts:
        found, tried = await _answered(endpoints.delivery(caller.org, delivery_id), delivery_id)
        return DeliveryWithAttempts(
            **_shown_delivery(found).model_dump(), attempts_made=[_shown_attempt(one) for one in tried]
        )

    @routes.post(
        "/deliveries/{delivery_id}/replay",
        status_code=202,
        summary="Send one message again, under the same webhook-id",
        responses=problem_responses(*_COMMON, 404, 409),
    )
    async def replay(delivery_id: DeliveryId, caller: Manager) -> DeliveryBody:
        return _shown_delivery(await _answered(endpoints.replay(caller.org, delivery_id), delivery_id))


async def _answered(work: Awaitable[_T], name: object = "") -> _T:
    """Wait for a use case and turn its refusals into problems."""
    try:
        return await work
    except UrlRefused as error:
        raise Problem(422, "url-refused", str(error)) from None
    except EndpointUnknown:
        raise not_found("webhook endpoint", str(name)) from None
    except DeliveryUnknown:
        raise not_found("delivery", str(name)) from None
    except TooManyEndpoints as error:
        raise Problem(409, "too-many-endpoints", str(error)) from None
    except NotNow as error:
        raise Problem(409, "not-now", str(error)) from None


def _endpoint_place(paging: PageWish) -> str | None:
    match paging.after:
        case None:
            return None
        case (endpoint_id,):
            try:
                return str(UUID(endpoint_id))
            except ValueError:
                raise bad_cursor() from None
        case _:
            raise bad_cursor()


def _delivery_place(paging: PageWish) -> int | None:
    match paging.after:
        case None:
            return None
        case (number,) if number.isascii() and number.isdigit() and int(number[:20]) < 2**63:
            return int(number[:20])
        case _:
            raise bad_cursor()


def _shown(endpoint: Endpoint) -> EndpointBody:
    return EndpointBody(
        id=endpoint.id,
        url=endpoint.url,
        types=list(endpoint.types),
        severity_min=endpoint.severity_min,
        description=endpoint.description,
        enabled=endpoint.disabled_at is None,
        disabled_at=endpoint.disabled_at,
        disabled_reason=endpoint.disabled_reason,
        previous_secret_until=endpoint.previous_secret_until,
        created_at=endpoint.created_at,
    )


def _with_secret(endpoint: Endpoint, secret: str) -> EndpointWithSecret:
    return EndpointWithSecret(**_shown(endpoint).model_dump(), secret=secret)


def _shown_delivery(delivery: Delivery) -> DeliveryBody:
    return DeliveryBody(
        id=delivery.id,
        endpoint_id=delivery.endpoint_id,
        webhook_id=delivery.message_id,
        kind=delivery.kind,
        type=delivery.type,
        severity=delivery.severity,
        discrepancy_id=delivery.discrepancy_id,
        revision=delivery.revision,
        state=delivery.state,
        reason=delivery.reason,
        attempts=delivery.attempts,
        next_attempt_at=delivery.next_attempt_at,
        created_at=delivery.created_at,
        finished_at=delivery.finished_at,
        replayed_at=delivery.replayed_at,
    )


def _shown_attempt(tried: Tried) -> AttemptBody:
    return AttemptBody(
        at=tried.at,
        attempt=tried.attempt,
        status_code=tried.status_code,
        error=tried.error,
        duration_ms=tried.duration_ms,
    )

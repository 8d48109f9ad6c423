"""Endpoints that people register for webhooks, and what they see of the deliveries."""

from datetime import datetime, timedelta
from typing import Literal

import msgspec

from services.alerts.domain.delivery import Kind
from shared.contracts.discrepancy import Severity

ENDPOINTS_MAX = 50
"""Endpoints per organisation: every discrepancy is written to the outbox once for each."""
TYPES_MAX = 50
DESCRIPTION_LENGTH_MAX = 255
REPLAY_MAX = 10_000
"""Messages that one range replay makes due: what an endpoint takes in minutes, not a day's worth by a slip."""
ROTATION_OVERLAP = timedelta(hours=24)
"""How long the former secret also signs unless asked otherwise: a day to deploy the new one."""
ROTATION_OVERLAP_MAX = timedelta(days=7)

DeliveryState = Literal["pending", "delivered", "failed", "dropped"]


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where an organisation wants to be told. The signing secret is not part of it: it is shown once."""

    id: str
    org: str
    url: str
    types: tuple[str, ...] = ()
    """Discrepancy types; empty: all."""
    severity_min: Severity = "low"
    description: str = ""
    created_at: datetime
    disabled_at: datetime | None = None
    disabled_reason: str | None = None
    previous_secret_until: datetime | None = None


class EndpointChange(msgspec.Struct, frozen=True, kw_only=True):
    """What a person changes; None leaves a field as it is."""

    url: str | None = None
    types: tuple[str, ...] | None = None
    severity_min: Severity | None = None
    description: str | None = None
    enabled: bool | None = None
    disabled_reason: str = ""
    """Why, where `enabled` is False."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One message and where it stands."""

    id: int
    endpoint_id: str
    message_id: str
    kind: Kind
    type: str
    severity: Severity
    discrepancy_id: str | None
    revision: int | None
    state: DeliveryState
    reason: str | None
    attempts: int
    next_attempt_at: datetime | None
    created_at: datetime
    finished_at: datetime | None
    replayed_at: datetime | None


class DeliveryFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which deliveries to list; None: any."""

    endpoint_id: str | None = None
    state: DeliveryState | None = None
    discrepancy_id: str | None = None


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay of a range did; with `more`, ask again for the rest."""

    count: int
    more: bool


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt."""

    at: datetime
    attempt: int
    status_code: int | None
    error: str | None
    duration_ms: int

"""What delivering webhooks needs from outside."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from services.alerts.domain.delivery import Answer, Attempt, Claim, Message
from services.alerts.domain.endpoint import (
    Delivery,
    DeliveryFilter,
    DeliveryState,
    Endpoint,
    EndpointChange,
    Replayed,
    Tried,
)


class Exchanged(msgspec.Struct, frozen=True):
    """What became of attempts, and what is to be sent next."""

    stored: list[bool]
    """For each attempt whether it changed its message; see `Outbox.exchange`."""
    claims: list[Claim]


class Outbox(Protocol):
    """Messages that wait, shared by every dispatcher process. Raises `DependencyAway` while it cannot be reached."""

    async def due_endpoints(self) -> list[str]:
        """Return the enabled endpoints that have something due."""
        ...

    async def exchange(
        self, endpoint_id: str, made: Sequence[Attempt], unsent: Sequence[Claim], room: int
    ) -> Exchanged:
        """Store attempts at an endpoint with what follows from them, and take up to `room` of its due messages, at once.

        `unsent` are claims that are given back: nothing was begun for them, so they count as no try. An attempt is stored in any case and changes nothing where its claim had lapsed, or its message was dropped
        meanwhile. What is taken is this process's until its claim lapses; nothing is taken while another process takes
        for the same endpoint.
        """
        ...

    async def waiting(self) -> int:
        """Return how many messages wait for their first or next attempt."""
        ...


class Sender(Protocol):
    """Sends one request and never raises for what the other side does."""

    async def send(self, claim: Claim, headers: Mapping[str, str]) -> Answer:
        """Post the claim's payload to its URL; every failure is an `Answer` with an error."""
        ...


class EndpointStore(Protocol):
    """Endpoints and their deliveries, always within one organisation."""

    async def add(self, endpoint: Endpoint, secret: str, limit: int) -> bool:
        """Store a new endpoint; False when the organisation already has `limit` of them."""
        ...

    async def list(self, org: str, after: str | None, limit: int) -> Sequence[Endpoint]:
        """Return endpoints by id, after the id `after`."""
        ...

    async def get(self, org: str, endpoint_id: str) -> Endpoint | None: ...

    async def change(self, org: str, endpoint_id: str, change: EndpointChange) -> Endpoint | None:
        """Change what `change` names; disabling drops what waits. None when there is no such endpoint."""
        ...

    async def remove(self, org: str, endpoint_id: str) -> bool:
        """Delete an endpoint and drop what waits for it; deliveries stay visible."""
        ...

    async def rotate(self, org: str, endpoint_id: str, secret: str, previous_until: datetime) -> Endpoint | None:
        """Set a new secret; the present one also signs until `previous_until`."""
        ...

    async def enqueue(self, org: str, endpoint_id: str, message: Message) -> int:
        """Put a message into the outbox and return its delivery id."""
        ...

    async def deliveries(self, org: str, chosen: DeliveryFilter, after: int | None, limit: int) -> Sequence[Delivery]:
        """Return deliveries, the newest first, before the id `after`."""
        ...

    async def delivery(self, org: str, delivery_id: int) -> Delivery | None: ...

    async def attempts(self, org: str, delivery_id: int) -> Sequence[Tried]:
        """Return the attempts of a delivery, the first first."""
        ...

    async def replay(self, org: str, delivery_id: int) -> bool:
        """Make a message due again from its first try; False when it is under way or its endpoint takes nothing."""
        ...

    async def replay_range(
        self, org: str, endpoint_id: str, since: datetime, until: datetime, states: Sequence[DeliveryState], limit: int
    ) -> Replayed:
        """Make an endpoint's messages that were stored in [since, until) and are in one of `states` due again.

        Left out is what was overtaken: a revision whose newer one was delivered and is not replayed as well.
        """
        ...

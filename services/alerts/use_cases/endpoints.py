"""Endpoints for webhooks: register, change, rotate, test, replay."""

import uuid
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from services.alerts.domain.address import check_url
from services.alerts.domain.delivery import compose_test
from services.alerts.domain.endpoint import (
    ENDPOINTS_MAX,
    REPLAY_MAX,
    ROTATION_OVERLAP_MAX,
    Delivery,
    DeliveryFilter,
    DeliveryState,
    Endpoint,
    EndpointChange,
    Replayed,
    Tried,
)
from services.alerts.domain.signature import SECRET_BYTES, secret_text
from services.alerts.ports.delivery import EndpointStore
from shared.contracts.discrepancy import Severity


class EndpointUnknown(LookupError):
    """The organisation has no such endpoint."""


class DeliveryUnknown(LookupError):
    """The organisation has no such delivery."""


class TooManyEndpoints(Exception):
    """The organisation has as many endpoints as it may have."""


class NotNow(Exception):
    """The wish does not fit the state that the thing is in; the message says what to do."""


class Endpoints:
    """What people do with endpoints.

    Args:
        clock: the present time with zone.
        random_bytes: as `secrets.token_bytes`.
        allow_private: take http and addresses inside this network.
    """

    def __init__(
        self,
        store: EndpointStore,
        *,
        clock: Callable[[], datetime],
        random_bytes: Callable[[int], bytes],
        allow_private: bool,
    ) -> None:
        self._store = store
        self._clock = clock
        self._random_bytes = random_bytes
        self._allow_private = allow_private

    async def create(
        self, org: str, url: str, types: Sequence[str], severity_min: Severity, description: str
    ) -> tuple[Endpoint, str]:
        """Register an endpoint; the secret is returned here and never again.

        Raises:
            UrlRefused: see `check_url`.
            TooManyEndpoints: one has to go first.
        """
        check_url(url, allow_private=self._allow_private)
        endpoint = Endpoint(
            id=str(self._uuid()),
            org=org,
            url=url,
            types=tuple(types),
            severity_min=severity_min,
            description=description,
            created_at=self._clock(),
        )
        secret = self._secret()
        if not await self._store.add(endpoint, secret, ENDPOINTS_MAX):
            raise TooManyEndpoints(f"an organisation has at most {ENDPOINTS_MAX} endpoints; delete one first")
        return endpoint, secret

    async def list(self, org: str, after: str | None, limit: int) -> Sequence[Endpoint]:
        """Return endpoints by id, after the id `after`."""
        return await self._store.list(org, after, limit)

    async def get(self, org: str, endpoint_id: str) -> Endpoint:
        """Raises `EndpointUnknown`."""
        return _known(await self._store.get(org, endpoint_id))

    async def change(self, org: str, endpoint_id: str, change: EndpointChange) -> Endpoint:
        """Raises `EndpointUnknown`, and `UrlRefused` for a URL that cannot be one."""
        if change.url is not None:
            check_url(change.url, allow_private=self._allow_private)
        return _known(await self._store.change(org, endpoint_id, change))

    async def remove(self, org: str, endpoint_id: str) -> None:
        """Raises `EndpointUnknown`."""
        if not await self._store.remove(org, endpoint_id):
            raise EndpointUnknown

    async def rotate(self, org: str, endpoint_id: str, overlap: timedelta) -> tuple[Endpoint, str]:
        """Give an endpoint a new secret; for `overlap` the former one signs as well. Raises `EndpointUnknown`."""
        assert timedelta(0) <= overlap <= ROTATION_OVERLAP_MAX
        secret = self._secret()
        return _known(await self._store.rotate(org, endpoint_id, secret, self._clock() + overlap)), secret

    async def test(self, org: str, endpoint_id: str) -> int:
        """Send a test message as every other message is sent; return its delivery id.

        Raises:
            EndpointUnknown: there is no such endpoint.
            NotNow: it is disabled.
        """
        await self._require_enabled(org, endpoint_id)
        return await self._store.enqueue(org, endpoint_id, compose_test(org, endpoint_id, self._uuid(), self._clock()))

    async def deliveries(self, org: str, chosen: DeliveryFilter, after: int | None, limit: int) -> Sequence[Delivery]:
        """Return deliveries, the newest first, before the id `after`."""
        return await self._store.deliveries(org, chosen, after, limit)

    async def delivery(self, org: str, delivery_id: int) -> tuple[Delivery, Sequence[Tried]]:
        """Return a delivery with its attempts. Raises `DeliveryUnknown`."""
        found = await self._store.delivery(org, delivery_id)
        if found is None:
            raise DeliveryUnknown
        return found, await self._store.attempts(org, delivery_id)

    async def replay(self, org: str, delivery_id: int) -> Delivery:
        """Send one message again, from its first try, under the same webhook-id.

        Raises:
            DeliveryUnknown: there is no such delivery.
            NotNow: it is under way, or its endpoint is disabled or deleted.
        """
        found, _ = await self.delivery(org, delivery_id)
        if not await self._store.replay(org, delivery_id):
            endpoint = await self._store.get(org, found.endpoint_id)
            if endpoint is None:
                raise NotNow("its endpoint was deleted")
            if endpoint.disabled_at is not None:
                raise NotNow(_disabled(endpoint))
            raise NotNow("an attempt is under way; ask again when it has ended")
        return (await self.delivery(org, delivery_id))[0]

    async def replay_range(
        self, org: str, endpoint_id: str, since: datetime, until: datetime, states: Sequence[DeliveryState]
    ) -> Replayed:
        """Send an endpoint's messages stored in [since, until) again, the oldest first.

        Raises:
            EndpointUnknown: there is no such endpoint.
            NotNow: it is disabled.
        """
        await self._require_enabled(org, endpoint_id)
        return await self._store.replay_range(org, endpoint_id, since, until, states, REPLAY_MAX)

    async def _require_enabled(self, org: str, endpoint_id: str) -> None:
        endpoint = await self.get(org, endpoint_id)
        if endpoint.disabled_at is not None:
            raise NotNow(_disabled(endpoint))

    def _secret(self) -> str:
        return secret_text(self._random_bytes(SECRET_BYTES))

    def _uuid(self) -> uuid.UUID:
        return uuid.UUID(bytes=self._random_bytes(16), version=4)


def _known(endpoint: Endpoint | None) -> Endpoint:
    if endpoint is None:
        raise EndpointUnknown
    return endpoint


def _disabled(endpoint: Endpoint) -> str:
    return f"the endpoint is disabled ({endpoint.disabled_reason}); enable it first"

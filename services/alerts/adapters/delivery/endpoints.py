"""Endpoints, deliveries and attempts in PostgreSQL, always within one organisation."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, ScalarSelect, and_, delete, func, insert, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.adapters.database import Database
from services.alerts.adapters.delivery.outbox import CHANNEL, drop_waiting
from services.alerts.adapters.tables import delivery_attempts, outbox, progress, webhook_endpoints
from services.alerts.domain.delivery import Message
from services.alerts.domain.endpoint import (
    Delivery,
    DeliveryFilter,
    DeliveryState,
    Endpoint,
    EndpointChange,
    Replayed,
    Tried,
)
from shared.contracts.event import EPOCH

_now = func.now()
_SHOWN = [column for column in webhook_endpoints.c if column.name not in {"secret", "previous_secret"}]
_NOT_UNDER_WAY = or_(outbox.c.claimed_until.is_(None), outbox.c.claimed_until <= _now)
_AGAIN = {
    "state": "pending",
    "reason": None,
    "attempts": 0,
    "next_attempt_at": _now,
    "claimed_until": None,
    "finished_at": None,
    "replayed_at": _now,
}


def _stored_up_to() -> ScalarSelect[datetime]:
    """Log time up to which results are stored; null before the first."""
    return select(func.max(progress.c.log_time)).scalar_subquery()


class PostgresEndpoints:
    """See `ports.delivery.EndpointStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, endpoint: Endpoint, secret: str, limit: int) -> bool:
        """Store a new endpoint; False when the organisation already has `limit` of them."""
        async with self._database.transaction(endpoint.org) as connection:
            # Two at once must not both find the last place free.
            lock = text("SELECT pg_advisory_xact_lock(hashtextextended('webhook endpoints of ' || :org, 0))")
            await connection.execute(lock, {"org": endpoint.org})
            count = (await connection.execute(select(func.count()).select_from(webhook_endpoints))).scalar_one()
            if count >= limit:
                return False
            await connection.execute(
                upsert(webhook_endpoints)
                .values(
                    id=endpoint.id,
                    org=endpoint.org,
                    url=endpoint.url,
                    secret=secret,
                    types=list(endpoint.types),
                    severity_min=endpoint.severity_min,
                    description=endpoint.description,
                    created_at=endpoint.created_at,
                    # Where the clock here is ahead of the broker's, what is stored tells what time it is there.
                    hears_from=func.least(endpoint.created_at, func.coalesce(_stored_up_to(), EPOCH)),
                )
                # Endpoints of a setting have the same id in every process that makes them.
                .on_conflict_do_nothing(index_elements=["id"])
            )
        return True

    async def list(self, org: str, after: str | None, limit: int) -> Sequence[Endpoint]:
        """Return endpoints by id, after the id `after`."""
        query = select(*_SHOWN).order_by(webhook_endpoints.c.id).limit(limit)
        if after is not None:
            query = query.where(webhook_endpoints.c.id > after)
        async with self._database.transaction(org) as connection:
            return [_endpoint(row) for row in await connection.execute(query)]

    async def get(self, org: str, endpoint_id: str) -> Endpoint | None:
        """None: the organisation has no such endpoint."""
        async with self._database.transaction(org) as connection:
            row = (await connection.execute(select(*_SHOWN).where(webhook_endpoints.c.id == endpoint_id))).first()
        return None if row is None else _endpoint(row)

    async def change(self, org: str, endpoint_id: str, change: EndpointChange) -> Endpoint | None:
        """Change what `change` names; disabling drops what waits. None when there is no such endpoint."""
        async with self._database.transaction(org) as connection:
            row = await _update(connection, endpoint_id, _changed(change))
            if row is not None and change.enabled is False:
                await drop_waiting(connection, endpoint_id, "endpoint disabled")
        return None if row is None else _endpoint(row)

    async def remove(self, org: str, endpoint_id: str) -> bool:
        """Delete an endpoint and drop what waits for it; deliveries stay visible."""
        async with self._database.transaction(org) as connection:
            removed = await connection.execute(delete(webhook_endpoints).where(webhook_endpoints.c.id == endpoint_id))
            if removed.rowcount:
                await drop_waiting(connection, endpoint_id, "endpoint deleted")
        return removed.rowcount == 1

    async def rotate(self, org: str, endpoint_id: str, secret: str, previous_until: datetime) -> Endpoint | None:
        """Set a new secret; the present one also signs until `previous_until`."""
        values = {
            "secret": secret,
            "previous_secret": webhook_endpoints.c.secret,
            "previous_until": previous_until,
        }
        async with self._database.transaction(org) as connection:
            row = await _update(connection, endpoint_id, values)
        return None if row is None else _endpoint(row)

    async def enqueue(self, org: str, endpoint_id: str, message: Message) -> int:
        """Put a message into the outbox and return its delivery id."""
        query = (
            insert(outbox)
            .values(
                org=org,
                endpoint_id=endpoint_id,
                kind=message.kind,
                message_id=message.message_id,
                type=message.type,
                severity=message.severity,
                payload=message.payload,
            )
            .returning(outbox.c.id)
        )
        async with self._database.transaction(org) as connection:
            id_: int = (await connection.execute(query)).scalar_one()
        return id_

    async def deliveries(self, org: str, chosen: DeliveryFilter, after: int | None, limit: int) -> Sequence[Delivery]:
        """Return deliveries, the newest first, before the id `after`."""
        query = select(outbox).where(outbox.c.org == org).order_by(outbox.c.id.desc()).limit(limit)
        if chosen.endpoint_id is not None:
            query = query.where(outbox.c.endpoint_id == chosen.endpoint_id)
        if chosen.state is not None:
            query = query.where(outbox.c.state == chosen.state)
        if chosen.discrepancy_id is not None:
            query = query.where(outbox.c.discrepancy_id == chosen.discrepancy_id)
        if after is not None:
            query = query.where(outbox.c.id < after)
        async with self._database.transaction(org) as connection:
            return [_delivery(row) for row in await connection.execute(query)]

    async def delivery(self, org: str, delivery_id: int) -> Delivery | None:
        """None: the organisation has no such delivery."""
        async with self._database.transaction(org) as connection:
            row = (await connection.execute(select(outbox).where(outbox.c.id == delivery_id))).first()
        return None if row is None else _delivery(row)

    async def attempts(self, org: str, delivery_id: int) -> Sequence[Tried]:
        """Return the attempts of a delivery, the first first."""
        query = (
            select(delivery_attempts)
            .where(delivery_attempts.c.outbox_id == delivery_id)
            .order_by(delivery_attempts.c.id)
        )
        async with self._database.transaction(org) as connection:
            return [
                Tried(
                    at=row.at,
                    attempt=row.attempt,
                    status_code=row.status_code,
                    error=row.error,
                    duration_ms=row.duration_ms,
                )
                for row in await connection.execute(query)
            ]

    async def replay(self, org: str, delivery_id: int) -> bool:
        """Make a message due again from its first try; False when it is under way or its endpoint takes nothing."""
        query = (
            update(outbox)
            .where(outbox.c.id == delivery_id, _NOT_UNDER_WAY, outbox.c.endpoint_id.in_(_enabled()))
            .values(_AGAIN)
        )
        async with self._database.transaction(org) as connection:
            done = (await connection.execute(query)).rowcount == 1
            await _wake(connection)
        return done

    async def replay_range(
        self, org: str, endpoint_id: str, since: datetime, until: datetime, states: Sequence[DeliveryState], limit: int
    ) -> Replayed:
        """Make an endpoint's messages that were stored in [since, until) and are in one of `states` due again."""
        chosen = and_(
            outbox.c.endpoint_id == endpoint_id,
            outbox.c.endpoint_id.in_(_enabled()),
            outbox.c.created_at >= since,
            outbox.c.created_at < until,
            outbox.c.state.in_(states),
            outbox.c.kind == "discrepancy",
            _NOT_UNDER_WAY,
            ~_overtaken(since, until, states),
        )
        query = select(outbox.c.id).where(chosen).order_by(outbox.c.id).limit(limit + 1)
        async with self._database.transaction(org) as connection:
            ids = list((await connection.execute(query)).scalars())
            await connection.execute(update(outbox).where(outbox.c.id.in_(ids[:limit])).values(_AGAIN))
            await _wake(connection)
        return Replayed(count=len(ids[:limit]), more=len(ids) > limit)


def _overtaken(since: datetime, until: datetime, states: Sequence[DeliveryState]) -> Any:
    """A newer revision was delivered, and stays as it is."""
    newer = outbox.alias("newer")
    replayed = and_(
        newer.c.created_at >= since, newer.c.created_at < until, newer.c.state.in_(states), newer.c.state == "delivered"
    )
    return (
        select(newer.c.id)
        .where(
            newer.c.endpoint_id == outbox.c.endpoint_id,
            newer.c.discrepancy_id == outbox.c.discrepancy_id,
            tuple_(newer.c.log_offset, newer.c.revision) > tuple_(outbox.c.log_offset, outbox.c.revision),
            newer.c.state == "delivered",
            ~replayed,
        )
        .exists()
    )


def _enabled() -> Any:
    return select(webhook_endpoints.c.id).where(webhook_endpoints.c.disabled_at.is_(None))


async def _wake(connection: AsyncConnection) -> None:
    """Tell the dispatchers, as the trigger does for new rows."""
    await connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": CHANNEL})


async def _update(connection: AsyncConnection, endpoint_id: str, values: dict[str, Any]) -> Row[Any] | None:
    if not values:
        query: Any = select(*_SHOWN).where(webhook_endpoints.c.id == endpoint_id)
    else:
        query = update(webhook_endpoints).where(webhook_endpoints.c.id == endpoint_id).values(values).returning(*_SHOWN)
    row: Row[Any] | None = (await connection.execute(query)).first()
    return row


def _changed(change: EndpointChange) -> dict[str, Any]:
    values: dict[str, Any] = {
        "url": change.url,
        "types": None if change.types is None else list(change.types),
        "severity_min": change.severity_min,
        "description": change.description,
    }
    values = {name: value for name, value in values.items() if value is not None}
    if change.enabled is True:
        values |= {"disabled_at": None, "disabled_reason": None}
    if change.enabled is False:
        values |= {"disabled_at": _now, "disabled_reason": change.disabled_reason}
    return values


def _endpoint(row: Row[Any]) -> Endpoint:
    return Endpoint(
        id=row.id,
        org=row.org,
        url=row.url,
        types=tuple(row.types),
        severity_min=row.severity_min,
        description=row.description,
        created_at=row.created_at,
        disabled_at=row.disabled_at,
        disabled_reason=row.disabled_reason,
        previous_secret_until=row.previous_until,
    )


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        id=row.id,
        endpoint_id=row.endpoint_id,
        message_id=row.message_id,
        kind=row.kind,
        type=row.type,
        severity=row.severity,
        discrepancy_id=row.discrepancy_id,
        revision=row.revision,
        state=row.state,
        reason=row.reason,
        attempts=row.attempts,
        next_attempt_at=row.next_attempt_at if row.state == "pending" else None,
        created_at=row.created_at,
        finished_at=row.finished_at,
        replayed_at=row.replayed_at,
    )

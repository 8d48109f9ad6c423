"""The outbox in PostgreSQL: claims with a lease, the order of each discrepancy, the cap per minute, attempts.

A claim holds the lock of its endpoint's row, so that dispatchers of several processes choose one after the other per
endpoint, and never wait for each other: a locked endpoint is skipped.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import CTE, Row, exists, func, insert, literal, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.adapters.database import EVERY_ORG, Database, is_away
from services.alerts.adapters.tables import delivery_attempts, outbox, webhook_endpoints
from services.alerts.domain.delivery import (
    Answer,
    Claim,
    Decision,
    Delivered,
    DropReason,
    EndpointGone,
    GaveUp,
    Retry,
    Waiting,
    choose,
    compose_storm,
    failure,
    minute_of,
)

CHANNEL: Final = "tieout_outbox"
"""NOTIFY channel: a trigger of the table outbox tells that messages were stored."""
LEASE: Final = timedelta(seconds=60)
"""How long a claim holds: four times the longest request. After a crash its messages wait this long."""
DUE_LOOKED_AT: Final = 64
"""Due messages looked at in one claim: enough to fill every place even when many wait for an earlier revision."""
MINUTE: Final = timedelta(minutes=1)
LISTEN_RETRY_S: Final = 1.0
"""Pause before listening again after the connection broke; polling goes on meanwhile."""

_now = func.now()


class PostgresOutbox:
    """See `ports.delivery.Outbox`.

    Args:
        cap: messages per endpoint and minute before one summary stands for the rest of that minute.
    """

    def __init__(self, database: Database, *, cap: int, lease: timedelta = LEASE) -> None:
        self._database = database
        self._cap = cap
        self._lease = lease

    async def due_endpoints(self) -> list[str]:
        """Return the enabled endpoints that have something due."""
        due = exists().where(
            outbox.c.endpoint_id == webhook_endpoints.c.id,
            outbox.c.state == "pending",
            outbox.c.next_attempt_at <= _now,
        )
        query = select(webhook_endpoints.c.id).where(webhook_endpoints.c.disabled_at.is_(None), due)
        async with self._database.transaction(EVERY_ORG) as connection:
            return list((await connection.execute(query)).scalars())

    async def claim(self, endpoint_id: str, room: int) -> list[Claim]:
        """Take up to `room` due messages of an endpoint for this process."""
        begun = datetime.now(UTC)  # before the transaction: what it takes must not lengthen the claim
        async with self._database.transaction(EVERY_ORG) as connection:
            endpoint = await _lock_endpoint(connection, endpoint_id)
            if endpoint is None:
                return []
            due, busy = await _due(connection, endpoint_id)
            if not due:
                return []
            choice = choose(
                due,
                busy=busy,
                cap=self._cap,
                started=await self._started(connection, endpoint_id, due),
                room=room,
            )
            rows = await self._take(connection, choice.send)
            for minute in choice.stormy:
                await self._summarise(connection, endpoint, minute)
        ahead = begun - (rows[0].claimed_until - self._lease) if rows else timedelta(0)
        return [_claim(endpoint, row, ahead) for row in rows]

    async def _started(
        self, connection: AsyncConnection, endpoint_id: str, due: Sequence[Waiting]
    ) -> dict[datetime, int]:
        minutes = {minute_of(one.created_at) for one in due if one.kind == "discrepancy" and not one.attempts}
        started = {}
        for minute in minutes:
            rows = (
                select(literal(1))
                .where(
                    *_of_minute(endpoint_id, minute),
                    outbox.c.attempts > 0,
                    outbox.c.replayed_at.is_(None),
                )
                .limit(self._cap)
                .subquery()
            )
            started[minute] = (await connection.execute(select(func.count()).select_from(rows))).scalar_one()
        return started

    async def _take(self, connection: AsyncConnection, ids: Sequence[int]) -> Sequence[Row[Any]]:
        if not ids:
            return []
        until = _now + self._lease
        taken = (
            update(outbox)
            .where(outbox.c.id.in_(ids))
            .values(attempts=outbox.c.attempts + 1, claimed_until=until, next_attempt_at=until)
            .returning(outbox)
            .cte("taken")
        )
        rows = await connection.execute(select(taken).add_cte(_drop_overtaken(taken)))
        return sorted(rows, key=lambda row: ids.index(row.id))

    async def _summarise(self, connection: AsyncConnection, endpoint: Row[Any], minute: datetime) -> None:
        """Keep what the cap holds back as dropped, and tell about it once; the endpoint's lock makes it once."""
        await connection.execute(
            update(outbox)
            .where(
                *_of_minute(endpoint.id, minute),
                outbox.c.state == "pending",
                outbox.c.attempts == 0,
                outbox.c.replayed_at.is_(None),
            )
            .values(state="dropped", reason="storm", finished_at=_now)
        )
        message = compose_storm(endpoint.org, endpoint.id, minute, self._cap)
        known = select(outbox.c.id).where(
            outbox.c.endpoint_id == endpoint.id,
            outbox.c.created_at >= minute,
            outbox.c.message_id == message.message_id,
        )
        if (await connection.execute(known)).first() is None:
            await connection.execute(
                insert(outbox).values(
                    org=endpoint.org,
                    endpoint_id=endpoint.id,
                    kind=message.kind,
                    message_id=message.message_id,
                    type=message.type,
                    severity=message.severity,
                    payload=message.payload,
                )
            )

    async def finish(self, claim: Claim, answer: Answer, decision: Decision, at: datetime) -> bool:
        """Store the attempt and what follows; False when the claim had lapsed."""
        async with self._database.transaction(EVERY_ORG) as connection:
            await connection.execute(
                insert(delivery_attempts).values(
                    outbox_id=claim.id,
                    org=claim.org,
                    endpoint_id=claim.endpoint_id,
                    at=at,
                    attempt=claim.attempt,
                    status_code=answer.status,
                    error=None if isinstance(decision, Delivered) else failure(answer),
                    duration_ms=answer.duration_ms,
                )
            )
            # A message dropped while it was under way still counts as delivered when it arrived.
            open_states = ["pending", "dropped"] if isinstance(decision, Delivered) else ["pending"]
            finished = await connection.execute(
                update(outbox)
                .where(outbox.c.id == claim.id, outbox.c.claimed_until == claim.until, outbox.c.state.in_(open_states))
                .values(claimed_until=None, **_after(decision))
            )
            if isinstance(decision, EndpointGone):
                await _disable(connection, claim.endpoint_id, decision.reason)
        return finished.rowcount == 1

    async def waiting(self) -> int:
        """Return how many messages wait for their first or next attempt."""
        query = select(func.count()).select_from(outbox).where(outbox.c.state == "pending")
        async with self._database.transaction(EVERY_ORG) as connection:
            return (await connection.execute(query)).scalar_one()

    async def listen(self, wake: Callable[[], None]) -> None:
        """Call `wake` whenever messages were stored, until cancelled. Needs one connection of its own."""
        while True:
            try:
                await self._listen_once(wake)
            except Exception as error:
                if not is_away(error):
                    raise
            await asyncio.sleep(LISTEN_RETRY_S)

    async def _listen_once(self, wake: Callable[[], None]) -> None:
        closed = asyncio.Event()
        async with self._database.engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            driver.add_termination_listener(lambda _: closed.set())
            await driver.add_listener(CHANNEL, lambda *_: wake())
            try:
                wake()
                await closed.wait()
            finally:
                # Its listeners must not come back to the pool.
                await connection.invalidate()


async def _lock_endpoint(connection: AsyncConnection, endpoint_id: str) -> Row[Any] | None:
    query = (
        select(webhook_endpoints, (webhook_endpoints.c.previous_until > _now).label("rotating"))
        .where(webhook_endpoints.c.id == endpoint_id, webhook_endpoints.c.disabled_at.is_(None))
        .with_for_update(skip_locked=True)
    )
    return (await connection.execute(query)).first()


async def _due(connection: AsyncConnection, endpoint_id: str) -> tuple[list[Waiting], frozenset[str]]:
    """Return what is due, and the discrepancies among it that have a message under way."""
    other = outbox.alias("other")
    under_way = exists().where(
        other.c.endpoint_id == outbox.c.endpoint_id,
        other.c.discrepancy_id == outbox.c.discrepancy_id,
        other.c.state == "pending",
        other.c.claimed_until > _now,
    )
    query = (
        select(
            outbox.c.id,
            outbox.c.kind,
            outbox.c.created_at,
            outbox.c.attempts,
            outbox.c.replayed_at,
            outbox.c.discrepancy_id,
            outbox.c.log_offset,
            outbox.c.revision,
            under_way.label("busy"),
        )
        .where(outbox.c.endpoint_id == endpoint_id, outbox.c.state == "pending", outbox.c.next_attempt_at <= _now)
        .order_by(outbox.c.kind == "discrepancy", outbox.c.created_at, outbox.c.log_offset, outbox.c.revision)
        .limit(DUE_LOOKED_AT)
    )
    rows = (await connection.execute(query)).all()
    due = [
        Waiting(
            id=row.id,
            kind=row.kind,
            created_at=row.created_at,
            attempts=row.attempts,
            replayed=row.replayed_at is not None,
            subject=row.discrepancy_id,
            place=(row.log_offset or 0, row.revision or 0),
        )
        for row in rows
    ]
    return due, frozenset(row.discrepancy_id for row in rows if row.busy)


def _of_minute(endpoint_id: str, minute: datetime) -> tuple[Any, ...]:
    return (
        outbox.c.endpoint_id == endpoint_id,
        outbox.c.kind == "discrepancy",
        outbox.c.created_at >= minute,
        outbox.c.created_at < minute + MINUTE,
    )


def _drop_overtaken(taken: CTE) -> CTE:
    """What is older than a message now under way, about the same discrepancy, is never sent after it."""
    return (
        update(outbox)
        .where(
            outbox.c.endpoint_id == taken.c.endpoint_id,
            outbox.c.discrepancy_id == taken.c.discrepancy_id,
            tuple_(outbox.c.log_offset, outbox.c.revision) < tuple_(taken.c.log_offset, taken.c.revision),
            outbox.c.state == "pending",
            or_(outbox.c.claimed_until.is_(None), outbox.c.claimed_until <= _now),
        )
        .values(state="dropped", reason="superseded", finished_at=_now)
        .returning(outbox.c.id)
        .cte("overtaken")
    )


def _after(decision: Decision) -> dict[str, Any]:
    match decision:
        case Delivered():
            return {"state": "delivered", "reason": None, "finished_at": _now}
        case Retry(at=at, error=error):
            return {"next_attempt_at": at, "reason": error}
        case GaveUp(error=error):
            return {"state": "failed", "reason": error, "finished_at": _now}
        case EndpointGone(reason=reason):
            return {"state": "failed", "reason": reason, "finished_at": _now}


async def _disable(connection: AsyncConnection, endpoint_id: str, reason: str) -> None:
    disabled = await connection.execute(
        update(webhook_endpoints)
        .where(webhook_endpoints.c.id == endpoint_id, webhook_endpoints.c.disabled_at.is_(None))
        .values(disabled_at=_now, disabled_reason=reason)
    )
    if disabled.rowcount:
        await drop_waiting(connection, endpoint_id, "endpoint disabled")


async def drop_waiting(connection: AsyncConnection, endpoint_id: str, reason: DropReason) -> None:
    """Drop what waits for an endpoint; what is under way is tried no more, and delivered if it arrives."""
    await connection.execute(
        update(outbox)
        .where(outbox.c.endpoint_id == endpoint_id, outbox.c.state == "pending")
        .values(state="dropped", reason=reason, finished_at=_now)
    )


def _claim(endpoint: Row[Any], row: Row[Any], ahead: timedelta) -> Claim:
    secrets = (endpoint.secret, endpoint.previous_secret) if endpoint.rotating else (endpoint.secret,)
    return Claim(
        id=row.id,
        org=row.org,
        endpoint_id=row.endpoint_id,
        url=endpoint.url,
        secrets=secrets,
        message_id=row.message_id,
        type=row.type,
        payload=row.payload.encode(),
        attempt=row.attempts,
        created_at=row.created_at,
        until=row.claimed_until,
        ahead=ahead,
        traceparent=row.traceparent,
        discrepancy_id=row.discrepancy_id,
        revision=row.revision,
    )

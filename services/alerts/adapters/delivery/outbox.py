"""The outbox in PostgreSQL: claims with a lease, the order of each discrepancy, the cap per minute, attempts.

A claim holds the lock of its endpoint's row, so that dispatchers of several processes choose one after the other per
endpoint, and never wait for each other: a locked endpoint is skipped.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
from sqlalchemy import ColumnElement, Row, exists, func, insert, literal, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.alerts.adapters.database import EVERY_ORG, Database, is_away
from services.alerts.adapters.tables import outbox, webhook_endpoints
from services.alerts.domain.delivery import (
    Attempt,
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
    minute_of,
)
from services.alerts.ports.delivery import Exchanged

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

# What is older than a message now under way, about the same discrepancy, is never sent after it.
_TAKE = """
WITH taken AS (
    UPDATE outbox SET attempts = attempts + 1, claimed_until = now() + $2::interval, next_attempt_at = now() + $2::interval
    WHERE id = ANY($1::bigint[])
    RETURNING id, org, endpoint_id, message_id, type, payload, attempts, created_at, claimed_until, traceparent,
              discrepancy_id, log_offset, revision
), overtaken AS (
    UPDATE outbox o SET state = 'dropped', reason = 'superseded', finished_at = now() FROM taken t
    WHERE o.endpoint_id = t.endpoint_id AND o.discrepancy_id = t.discrepancy_id
        AND (o.log_offset, o.revision) < (t.log_offset, t.revision)
        AND o.state = 'pending' AND (o.claimed_until IS NULL OR o.claimed_until <= now())
)
SELECT id, org, endpoint_id::text, message_id, type, payload, attempts, created_at, claimed_until, traceparent,
       discrepancy_id::text, revision
FROM taken"""

# A message that was dropped while it was under way still counts as delivered when it arrived.
_STORE = """
WITH made AS (
    SELECT * FROM unnest($1::bigint[], $2::timestamptz[], $3::text[], $4::timestamptz[], $5::int[], $6::int[], $7::text[],
                         $8::int[], $9::text[], $10::text[], $11::timestamptz[])
    AS m(outbox_id, until, org, at, attempt, status_code, error, duration_ms, state, reason, next_attempt_at)
), attempts AS (
    INSERT INTO delivery_attempts (outbox_id, org, endpoint_id, at, attempt, status_code, error, duration_ms)
    SELECT outbox_id, org, $12::uuid, at, attempt, status_code, error, duration_ms FROM made
)
UPDATE outbox o SET claimed_until = NULL, state = m.state, reason = m.reason,
    next_attempt_at = coalesce(m.next_attempt_at, o.next_attempt_at),
    finished_at = CASE WHEN m.state = 'pending' THEN NULL ELSE now() END
FROM made m WHERE o.id = m.outbox_id AND o.claimed_until = m.until
    AND (o.state = 'pending' OR (o.state = 'dropped' AND m.state = 'delivered'))
RETURNING o.id, m.until"""


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

    async def exchange(
        self, endpoint_id: str, made: Sequence[Attempt], unsent: Sequence[Claim], room: int
    ) -> Exchanged:
        """Store attempts with what follows, give unsent claims back, and take up to `room` due messages, in one transaction."""
        begun = datetime.now(UTC)  # before the transaction: what it takes must not lengthen the claim
        async with self._database.transaction(EVERY_ORG) as connection:
            stored = await _store(connection, endpoint_id, made)
            await _give_back(connection, unsent)
            endpoint = await _lock_endpoint(connection, endpoint_id) if room else None
            rows = [] if endpoint is None else await self._take_due(connection, endpoint, room)
        ahead = begun - (rows[0]["claimed_until"] - self._lease) if rows else timedelta(0)
        return Exchanged(stored, [_claim(endpoint, row, ahead) for row in rows if endpoint is not None])

    async def _take_due(
        self, connection: AsyncConnection, endpoint: Row[Any], room: int
    ) -> Sequence[Mapping[str, Any]]:
        due, busy = await _due(connection, endpoint.id)
        if not due:
            return []
        started = await self._started(connection, endpoint.id, due)
        choice = choose(due, busy=busy, cap=self._cap, started=started, room=room)
        rows = await self._take(connection, choice.send)
        for minute in choice.stormy:
            await self._summarise(connection, endpoint, minute)
        return rows

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

    async def _take(self, connection: AsyncConnection, ids: Sequence[int]) -> Sequence[Mapping[str, Any]]:
        if not ids:
            return []
        rows = await (await _driver(connection)).fetch(_TAKE, ids, self._lease)
        return sorted(rows, key=lambda row: ids.index(row["id"]))

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

    async def waiting(self) -> int:
        """Return how many messages wait for their first or next attempt."""
        query = select(func.count()).select_from(outbox).where(outbox.c.state == "pending")
        async with self._database.transaction(EVERY_ORG) as connection:
            return (await connection.execute(query)).scalar_one()

    async def listen(self, wake: Callable[[str], None]) -> None:
        """Call `wake` with the endpoint for which messages were stored, until cancelled; empty: it may be any.

        Needs one connection of its own.
        """
        while True:
            try:
                await self._listen_once(wake)
            except Exception as error:
                if not is_away(error):
                    raise
            await asyncio.sleep(LISTEN_RETRY_S)

    async def _listen_once(self, wake: Callable[[str], None]) -> None:
        closed = asyncio.Event()
        async with self._database.engine.connect() as connection:
            driver = await _driver(connection)
            driver.add_termination_listener(lambda _: closed.set())
            await driver.add_listener(CHANNEL, lambda _connection, _pid, _channel, endpoint_id: wake(endpoint_id))
            try:
                wake("")
                await closed.wait()
            finally:
                # Its listeners must not come back to the pool.
                await connection.invalidate()


async def _driver(connection: AsyncConnection) -> "asyncpg.Connection[Any]":
    return (await connection.get_raw_connection()).driver_connection


async def _store(connection: AsyncConnection, endpoint_id: str, made: Sequence[Attempt]) -> list[bool]:
    """Store attempts and what follows; return which of them changed their message."""
    if not made:
        return []
    gone = next((one.decision for one in made if isinstance(one.decision, EndpointGone)), None)
    if gone is not None:
        # Before any message, as whoever takes some does: neither can then wait for the other.
        await connection.execute(select(webhook_endpoints.c.id).where(_is(endpoint_id)).with_for_update())
    rows = await (await _driver(connection)).fetch(_STORE, *map(list, zip(*map(_row, made), strict=True)), endpoint_id)
    if gone is not None:
        await _disable(connection, endpoint_id, gone.reason)
    changed = {(row["id"], row["until"]) for row in rows}
    return [(one.claim.id, one.claim.until) in changed for one in made]


async def _give_back(connection: AsyncConnection, unsent: Sequence[Claim]) -> None:
    if not unsent:
        return
    given_back = (
        update(outbox)
        .where(tuple_(outbox.c.id, outbox.c.claimed_until).in_([(claim.id, claim.until) for claim in unsent]))
        .values(claimed_until=None, attempts=outbox.c.attempts - 1, next_attempt_at=_now)
    )
    await connection.execute(given_back)


def _row(made: Attempt) -> tuple[Any, ...]:
    claim, answer = made.claim, made.answer
    return (
        claim.id, claim.until, claim.org, made.at, claim.attempt, answer.status, made.error, answer.duration_ms,
        *_after(made.decision),
    )  # fmt: skip


async def _lock_endpoint(connection: AsyncConnection, endpoint_id: str) -> Row[Any] | None:
    query = (
        select(webhook_endpoints, (webhook_endpoints.c.previous_until > _now).label("rotating"))
        .where(_is(endpoint_id), webhook_endpoints.c.disabled_at.is_(None))
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


def _is(endpoint_id: str) -> ColumnElement[bool]:
    return webhook_endpoints.c.id == endpoint_id


def _of_minute(endpoint_id: str, minute: datetime) -> tuple[Any, ...]:
    return (
        outbox.c.endpoint_id == endpoint_id,
        outbox.c.kind == "discrepancy",
        outbox.c.created_at >= minute,
        outbox.c.created_at < minute + MINUTE,
    )


def _after(decision: Decision) -> tuple[str, str | None, datetime | None]:
    """Return the state that follows, its reason, and when it is tried next."""
    match decision:
        case Delivered():
            return "delivered", None, None
        case Retry(at=at, error=error):
            return "pending", error, at
        case GaveUp(error=error):
            return "failed", error, None
        case EndpointGone(reason=reason):
            return "failed", reason, None


async def _disable(connection: AsyncConnection, endpoint_id: str, reason: str) -> None:
    disabled = await connection.execute(
        update(webhook_endpoints)
        .where(_is(endpoint_id), webhook_endpoints.c.disabled_at.is_(None))
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


def _claim(endpoint: Row[Any], row: Mapping[str, Any], ahead: timedelta) -> Claim:
    secrets = (endpoint.secret, endpoint.previous_secret) if endpoint.rotating else (endpoint.secret,)
    return Claim(
        id=row["id"],
        org=row["org"],
        endpoint_id=row["endpoint_id"],
        url=endpoint.url,
        secrets=secrets,
        message_id=row["message_id"],
        type=row["type"],
        payload=row["payload"].encode(),
        attempt=row["attempts"],
        created_at=row["created_at"],
        until=row["claimed_until"],
        ahead=ahead,
        traceparent=row["traceparent"],
        discrepancy_id=row["discrepancy_id"],
        revision=row["revision"],
    )

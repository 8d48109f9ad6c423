"""A database with webhook endpoints, a receiver that verifies, and dispatchers as a test wants them."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp.abc import AbstractResolver
from sqlalchemy import func, insert, select, update

from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.adapters.delivery.outbox import PostgresOutbox
from services.alerts.adapters.delivery.sender import WebhookSender
from services.alerts.adapters.tables import delivery_attempts, outbox, webhook_endpoints
from services.alerts.domain.delivery import compose
from services.alerts.domain.signature import secret_text
from services.alerts.handlers.dispatcher import PLACES, Dispatcher
from services.alerts.use_cases.dispatch import Dispatch
from shared.contracts.discrepancy import Discrepancy, LogPosition
from tests.support.webhook_receiver import Receiver

NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)


def found(number: int = 1, revision: int = 1, **changes: Any) -> Discrepancy:
    plain = {
        "id": str(uuid.UUID(int=number)), "revision": revision, "state": "raised", "org": "acme", "rule": "billing.payments",
        "pack": "billing", "type": "AmountMismatch", "severity": "medium", "key": f"p{number}", "side": None,
        "account": None, "sides": {}, "duplicate": None, "expected": "10.00", "actual": "9.00", "difference": "-1.00",
        "currency": "EUR", "raised_at": NOW, "resolved_at": None, "resolution": None, "expired": False, "explanation": "x",
        "log": LogPosition(partition=0, offset=number * 100 + revision, time=NOW),
    }  # fmt: skip
    return Discrepancy(**(plain | changes))


@dataclass
class Desk:
    """A database with endpoints, a receiver, and dispatchers as a test wants them."""

    database: Database
    receiver: Receiver
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    closing: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def endpoint(self, path: str, *, url: str | None = None, previous: str | None = None) -> str:
        id_, secret = str(uuid.uuid4()), secret_text(uuid.uuid4().bytes * 2)
        self.receiver.secrets[path] = secret
        values: dict[str, Any] = {"id": id_, "org": "acme", "url": url or self.receiver.url(path), "secret": secret}
        if previous:
            values |= {"previous_secret": previous, "previous_until": datetime.now(UTC) + timedelta(hours=1)}
        async with self.database.transaction(EVERY_ORG) as connection:
            await connection.execute(insert(webhook_endpoints).values(values))
        return id_

    async def store(self, endpoint: str, *discrepancies: Discrepancy, **more: Any) -> list[int]:
        """What the sink does."""
        rows = []
        for one in discrepancies:
            message = compose(endpoint, one, "raised" if one.revision > 1 else None, datetime.now(UTC))
            rows.append(
                {
                    "org": one.org,
                    "endpoint_id": endpoint,
                    "discrepancy_id": one.id,
                    "revision": one.revision,
                    "log_offset": one.log.offset,
                    "message_id": message.message_id,
                    "type": message.type,
                    "severity": message.severity,
                    "payload": message.payload,
                    **more,
                }
            )
        async with self.database.transaction(EVERY_ORG) as connection:
            ids = await connection.execute(insert(outbox).values(rows).returning(outbox.c.id))
            return list(ids.scalars())

    async def dispatcher(
        self, *, cap: int = 1000, allow_private: bool = True, resolver: AbstractResolver | None = None,
        timeout_s: float = 2.0, lease: timedelta = timedelta(seconds=30), poll_s: float = 0.1, listening: bool = True,
    ) -> asyncio.Task[None]:  # fmt: skip
        store = PostgresOutbox(self.database, cap=cap, lease=lease)
        sender = await self.closing.enter_async_context(
            WebhookSender(allow_private=allow_private, total_timeout_s=timeout_s, resolver=resolver)
        )
        dispatch = Dispatch(
            store, sender, clock=lambda: datetime.now(UTC), chance=lambda: 0.5, attempt_max=timedelta(seconds=timeout_s)
        )
        runner = Dispatcher(dispatch, claims_max=3 * PLACES, poll_s=poll_s)
        self.tasks.append(asyncio.create_task(runner.run()))
        if listening:
            self.tasks.append(asyncio.create_task(store.listen(runner.wake)))
        return self.tasks[-2 if listening else -1]

    async def rows(self) -> dict[int, Any]:
        async with self.database.transaction(EVERY_ORG) as connection:
            return {row.id: row for row in await connection.execute(select(outbox).order_by(outbox.c.id))}

    async def attempts(self, id_: int) -> list[Any]:
        query = select(delivery_attempts).where(delivery_attempts.c.outbox_id == id_).order_by(delivery_attempts.c.id)
        async with self.database.transaction(EVERY_ORG) as connection:
            return list(await connection.execute(query))

    async def due_now(self) -> None:
        """What time does: the next try falls due."""
        async with self.database.transaction(EVERY_ORG) as connection:
            await connection.execute(
                update(outbox).where(outbox.c.state == "pending").values(next_attempt_at=func.now())
            )

    async def reaches(self, id_: int, state: str, attempts: int | None = None) -> Any:
        async def there() -> Any:
            row = (await self.rows())[id_]
            return row if row.state == state and attempts in (None, row.attempts) and not row.claimed_until else None

        return await eventually(there, lambda: f"message {id_} is never {state}")

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.closing.aclose()


async def eventually(look: Callable[[], Awaitable[Any]], words: Callable[[], str], timeout_s: float = 40) -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        seen = await look()
        if seen:
            return seen
        await asyncio.sleep(0.02)
    raise AssertionError(words())


@contextlib.asynccontextmanager
async def delivery_desk(migrated_url: str) -> AsyncIterator[Desk]:
    database = Database(migrated_url, pool_size=10)
    async with Receiver() as receiver:
        desk = Desk(database, receiver)
        try:
            yield desk
        finally:
            await desk.end()
            await database.close()


def holds(look: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def ask() -> bool:
        return look()

    return ask

"""A ledger on a local port: it alone books, once per idempotency key, and tells of what it booked as it tells of everything."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from aiohttp import web

LEDGER_KEY = "ledger-secret"
Answer = Callable[[dict[str, Any]], web.Response | None]


class Ledger:
    """Books what it is asked to, unless `answers` of an account says something else.

    Args:
        tell: posts the event of a booked entry, as the ledger's own outbox would.
    """

    def __init__(self, tell: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        self.books: dict[str, Decimal] = {}
        """Balance by account."""
        self.asked: list[tuple[str, dict[str, Any]]] = []
        """Idempotency key and body of every request."""
        self.answers: dict[str, Answer] = {}
        self._booked: set[str] = set()
        self._tell = tell

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        app = web.Application()
        app.add_routes([web.post("/adjustments", self._post)])
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/adjustments"
        finally:
            await runner.cleanup()

    async def _post(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {LEDGER_KEY}":
            return web.json_response({"error": "who are you?"}, status=401)
        body = await request.json()
        key = request.headers["Idempotency-Key"]
        self.asked.append((key, body))
        answer = self.answers.get(body["account"])
        special = None if answer is None else answer(body)
        if special is not None:
            return special
        if key not in self._booked:
            self._booked.add(key)
            account = body["account"]
            self.books[account] = self.books.get(account, Decimal(0)) + Decimal(body["amount"])
            await self._tell(body["entry"])
        return web.json_response({"id": f"entry-{len(self._booked)}"}, status=201)

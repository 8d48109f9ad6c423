"""A real HTTP server that takes webhooks, verifies them with the reference library and answers as a test says."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web
from standardwebhooks import Webhook

Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Taken:
    """One verified request."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    at: float = field(default_factory=time.monotonic)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


def status(code: int, **headers: str) -> Reply:
    async def reply(_: web.Request) -> web.StreamResponse:
        return web.Response(status=code, headers={name.replace("_", "-"): value for name, value in headers.items()})

    return reply


def slow(seconds: float) -> Reply:
    async def reply(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return web.Response(status=200)

    return reply


class Receiver:
    """Answers 204 unless `script[path]` holds replies, which are used up one by one (the last one stays)."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}
        self.script: dict[str, list[Reply]] = defaultdict(list)
        self.taken: list[Taken] = []
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{name:.*}", self._take)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def at(self, path: str) -> list[Taken]:
        return [taken for taken in self.taken if taken.path == path]

    async def _take(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        # Raises, and so answers 500, when the signature does not hold.
        body = Webhook(self.secrets[request.path]).verify(raw, dict(request.headers))
        self.taken.append(Taken(request.path, {k.lower(): v for k, v in request.headers.items()}, body))
        replies = self.script[request.path]
        if not replies:
            return web.Response(status=204)
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        return await reply(request)

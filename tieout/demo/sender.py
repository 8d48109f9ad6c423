"""Sends the demo's stream over HTTP, at the pace it is written in."""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec

from tieout.demo.stream import Post

WINDOW_S = 0.1
"""Ledger events of so long go into one request; webhooks go one by one, as providers send them."""
CONNECTIONS = 16
RETRIES = 5
PAUSE_S = 0.2
"""Before the second attempt; it doubles with each."""


class Sender:
    """Posts ledger events and signed Stripe webhooks; counts what ingest accepted."""

    def __init__(self, url: str, org: str, key: str, secret: str) -> None:
        self.accepted = 0
        self.refused = 0
        self._url, self._org, self._key, self._secret = url, org, key, secret
        self._encode = msgspec.json.Encoder().encode

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def send(self, posts: Sequence[Post]) -> None:
        """Send `posts` at their times."""
        start = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            at = 0
            while at < len(posts):
                until = posts[at].at_s + WINDOW_S
                window = []
                while at < len(posts) and posts[at].at_s < until:
                    window.append(posts[at])
                    at += 1
                await asyncio.sleep(max(0.0, start + until - time.monotonic()))
                rows = [post.body for post in window if post.channel == "ledger"]
                if rows:
                    tasks.create_task(self._events(rows))
                for post in window:
                    if post.channel == "stripe":
                        tasks.create_task(self._webhook(post.body))

    async def _events(self, rows: list[dict[str, Any]]) -> None:
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        status, answer = await self._post("/v1/events", self._encode(rows), headers)
        if status >= 400 and status != 422:
            self.refused += len(rows)
            return
        counts = msgspec.json.decode(answer)
        self.accepted += counts["accepted"]
        self.refused += counts["refused"]

    async def _webhook(self, event: dict[str, Any]) -> None:
        raw = self._encode(event)
        now = str(int(time.time()))
        digest = hmac.digest(self._secret.encode(), f"{now}.".encode() + raw, hashlib.sha256).hex()
        headers = {"Stripe-Signature": f"t={now},v1={digest}", "Content-Type": "application/json"}
        status, _ = await self._post(f"/webhooks/{self._org}/stripe", raw, headers)
        if status < 300:
            self.accepted += 1
        else:
            self.refused += 1

    async def _post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """Post, and again while ingest says that Kafka is away (503) or nobody answers: events have ids."""
        status, answer = 503, b""
        for attempt in range(RETRIES):
            try:
                async with self._session.post(self._url + path, data=body, headers=headers) as response:
                    status, answer = response.status, await response.read()
            except (aiohttp.ClientConnectionError, TimeoutError):
                status, answer = 503, b""
            if status != 503:
                break
            await asyncio.sleep(PAUSE_S * 2**attempt)
        return status, answer

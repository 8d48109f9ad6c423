"""A producer as one should be: repeats a request until it is answered with 2xx, and remembers what was acknowledged."""

import asyncio
import hashlib
import hmac
import itertools
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec

from tests.support.planted import Event

# Ingest answers within its own 5 s for Kafka; a process that was killed never does.
TIMEOUT_S = 15.0
IMPATIENT_S = 0.01
RETRY_PAUSE_S = 0.2
# A service that does not come back fails the test with its own words, not by the test's time-out.
GIVE_UP_S = 150.0

_encode = msgspec.json.Encoder().encode


class Refused(AssertionError):
    """Ingest refused what is right."""


class ProducerClient:
    """Posts requests (see `planted.requests`) to one ingest.

    Args:
        repeat_every: every n-th request is sent again after its 2xx, as some queues do.
        impatient_every: every n-th request is given up almost at once and repeated, whatever became of it.
    """

    def __init__(
        self,
        url: str,
        org: str,
        key: str,
        secret: str,
        *,
        connections: int = 12,
        repeat_every: int = 0,
        impatient_every: int = 0,
    ) -> None:
        self.acknowledged: set[tuple[str, str]] = set()
        """(source, id) of every event whose request was answered with 2xx."""
        self.sent = 0
        """Events of requests that are through."""
        self.retries = 0
        self.repeats = 0
        self._url, self._org, self._key, self._secret = url, org, key, secret
        self._connections = connections
        self._repeat_every, self._impatient_every = repeat_every, impatient_every
        self._number = itertools.count(1)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=self._connections))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def send_all(self, requests: Iterable[list[Event]], *, per_second: float) -> None:
        """Send in order, several at once, at most so many events per second."""
        waiting: asyncio.Queue[list[Event] | None] = asyncio.Queue(self._connections)

        async def work() -> None:
            while (request := await waiting.get()) is not None:
                await self.send(request)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._connections):
                tasks.create_task(work())
            begun, given = time.monotonic(), 0
            for request in requests:
                await asyncio.sleep(max(0.0, begun + given / per_second - time.monotonic()))
                await waiting.put(request)
                given += len(request)
            for _ in range(self._connections):
                await waiting.put(None)

    async def send(self, events: list[Event]) -> None:
        """Send one request until it is acknowledged."""
        number = next(self._number)
        impatient = self._impatient_every and number % self._impatient_every == 0
        await self._until_acknowledged(events, IMPATIENT_S if impatient else TIMEOUT_S)
        self.acknowledged |= {(event.source, event.id) for event in events}
        if self._repeat_every and number % self._repeat_every == 0:
            self.repeats += 1
            await self._until_acknowledged(events, TIMEOUT_S)
        self.sent += len(events)

    async def _until_acknowledged(self, events: list[Event], timeout_s: float) -> None:
        give_up = time.monotonic() + GIVE_UP_S
        while True:
            try:
                status, answer = await self._post(events, timeout_s)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                status, answer = 503, repr(error).encode()
            if 200 <= status < 300 and status != 207:
                return
            if status not in (500, 502, 503, 504):
                raise Refused(f"{status} for {events[0].body}: {answer[:1000]!r}")
            if time.monotonic() > give_up:
                raise TimeoutError(f"no 2xx within {GIVE_UP_S:g} s; the last answer: {status} {answer[:300]!r}")
            self.retries += 1
            timeout_s = TIMEOUT_S
            await asyncio.sleep(RETRY_PAUSE_S)

    async def _post(self, events: list[Event], timeout_s: float) -> tuple[int, bytes]:
        path, body, headers = self._request(events)
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        async with self._session.post(self._url + path, data=body, headers=headers, timeout=timeout) as response:
            return response.status, await response.read()

    def _request(self, events: list[Event]) -> tuple[str, bytes, dict[str, Any]]:
        if events[0].channel != "webhook":
            headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
            return "/v1/events", _encode([event.body for event in events]), headers
        (event,) = events
        body, now = _encode(event.body), str(int(time.time()))
        digest = hmac.digest(self._secret.encode(), f"{now}.".encode() + body, hashlib.sha256).hex()
        headers = {"Stripe-Signature": f"t={now},v1={digest}", "Content-Type": "application/json"}
        return f"/webhooks/{self._org}/stripe", body, headers

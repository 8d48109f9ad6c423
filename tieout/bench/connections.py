"""HTTP requests over keep-alive connections, so cheap that the sender takes little from what it measures."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.errors import TieoutError


class NotAnswered(TieoutError):
    """The service did not answer as it must."""


def http_post(path: str, body: bytes, *headers: str) -> bytes:
    """Return a whole request."""
    lines = [f"POST {path} HTTP/1.1", "Host: bench", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self.is_open = True
        self._received = b""
        self._waiter: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        self.is_open = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(NotAnswered("the connection was closed instead of an answer"))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Return the answer's status and body."""
        assert self._transport is not None
        self._received = b""
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiter

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or self._waiter is None or self._waiter.done():
            return
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if len(body) >= int(length or 0):
            self._waiter.set_result((int(head[9:12]), body))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Connections:
    """At most `count` connections to one port; a request waits until one is free."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._free: asyncio.LifoQueue[_Connection | None] = asyncio.LifoQueue()
        for _ in range(count):
            self._free.put_nowait(None)

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Return the answer's status and body.

        Raises:
            NotAnswered: the connection was closed.
        """
        connection = await self._free.get()
        try:
            if connection is None or not connection.is_open:
                _, connection = await asyncio.get_running_loop().create_connection(_Connection, "127.0.0.1", self._port)
            return await connection.ask(request)
        finally:
            self._free.put_nowait(connection)

    def close(self) -> None:
        while not self._free.empty():
            connection = self._free.get_nowait()
            if connection is not None:
                connection.close()


@asynccontextmanager
async def connections(port: int, count: int) -> AsyncIterator[Connections]:
    """Connections that are closed at the end of the block."""
    opened = Connections(port, count)
    try:
        yield opened
    finally:
        opened.close()

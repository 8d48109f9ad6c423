"""The benchmarks' own HTTP client: an answer is whole, of its own request, or an error."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tieout.bench.connections import NotAnswered, connections, http_post

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def ask(serve: Serve, *bodies: bytes, count: int = 1) -> list[tuple[int, bytes]]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, connections(server.sockets[0].getsockname()[1], count) as over:
        return await asyncio.gather(*(over.ask(http_post("/", body)) for body in bodies))


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with the request's body, byte by byte."""
    while head := await reader.readuntil(b"\r\n\r\n"):
        body = await reader.readexactly(int(head.rpartition(b"Content-Length: ")[2].split(b"\r\n")[0]))
        for byte in b"HTTP/1.1 202 Accepted\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body):
            writer.write(bytes([byte]))
            await writer.drain()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhal")
    writer.close()


@pytest.mark.parametrize("count", [1, 3])
async def test_every_request_gets_its_own_whole_answer(count: int) -> None:
    bodies = [b"%d" % number * number for number in range(1, 8)]
    assert await ask(echo, *bodies, count=count) == [(202, body) for body in bodies]


async def test_half_an_answer_is_none() -> None:
    with pytest.raises(NotAnswered):
        await ask(hang_up, b"x")

"""A TCP proxy that understands as much of Kafka's protocol as it takes to lose the answers to one kind of request.

toxiproxy loses whatever passes. Here the request reaches the broker, which does what it says; its answer does not come
back, and the connection ends.
"""

import asyncio
import contextlib
import random
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

END_TXN = 26
_SIZE = struct.Struct(">i")
_REQUEST = struct.Struct(">hhi")  # API key, its version, correlation id
_RESPONSE = struct.Struct(">i")  # correlation id


class _Lost(Exception):
    """This answer is not passed on: the connection ends here."""


@dataclass
class KafkaProxy:
    """Passes on what comes for one broker."""

    upstream: int
    lost: int = 0
    """Answers that were kept back."""
    passed: int = 0
    """Answers to requests of a kind that was being lost, and came through."""
    _chances: dict[int, float] = field(default_factory=dict)
    _random: random.Random = field(default_factory=random.Random)

    @asynccontextmanager
    async def listening(self, port: int) -> AsyncIterator[None]:
        """Take connections on `port` of 127.0.0.1."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", port)
        try:
            yield
        finally:
            server.close()

    @contextlib.contextmanager
    def losing(self, api_key: int, chance: float = 1.0) -> Iterator[None]:
        """Lose answers to requests of this kind, with this chance each."""
        self._chances[api_key] = chance
        try:
            yield
        finally:
            del self._chances[api_key]

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked: dict[int, int] = {}
        """API key by correlation id, of what waits for an answer."""
        with contextlib.suppress(OSError):
            to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
            ways = [
                asyncio.create_task(self._requests(reader, to_writer, asked)),
                asyncio.create_task(self._answers(to_reader, writer, asked)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                to_writer.close()
        writer.close()

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: dict[int, int]
    ) -> None:
        while True:
            frame = await _frame(reader)
            api_key, _, correlation_id = _REQUEST.unpack_from(frame)
            asked[correlation_id] = api_key
            writer.write(_SIZE.pack(len(frame)) + frame)
            await writer.drain()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: dict[int, int]) -> None:
        while True:
            frame = await _frame(reader)
            (correlation_id,) = _RESPONSE.unpack_from(frame)
            self._lose(asked.pop(correlation_id))
            writer.write(_SIZE.pack(len(frame)) + frame)
            await writer.drain()

    def _lose(self, api_key: int) -> None:
        chance = self._chances.get(api_key)
        if chance is None:
            return
        if self._random.random() < chance:
            self.lost += 1
            raise _Lost
        self.passed += 1


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (size,) = _SIZE.unpack(await reader.readexactly(_SIZE.size))
    return await reader.readexactly(size)

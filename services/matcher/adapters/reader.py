"""Consumers without a group, to read one thing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer

from shared.kafka.client import consumer
from shared.kafka.settings import KafkaSettings

_Stopping = set["asyncio.Task[None]"]
_stopping: _Stopping = set()


@asynccontextmanager
async def opened(kafka: KafkaSettings, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """One that is closed again; `options` are those of `shared.kafka.client.consumer`."""
    reader = consumer(kafka, auto_offset_reset="none", **options)
    try:
        await reader.start()
        yield reader
    finally:
        await asyncio.shield(_stop(reader, _stopping))


class Readers:
    """Consumers that are used again while there is something to read: connecting takes longer than a short read."""

    def __init__(self, kafka: KafkaSettings, **options: Any) -> None:
        self._kafka = kafka
        self._options = options
        self._idle: list[AIOKafkaConsumer] = []
        self._used = 0
        self._stopping: _Stopping = set()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[AIOKafkaConsumer]:
        """One that nobody else uses meanwhile. After the last of several reads all are closed, in the background."""
        self._used += 1
        try:
            reader = self._idle.pop() if self._idle else None
            try:
                if reader is None:
                    reader = consumer(self._kafka, auto_offset_reset="none", **self._options)
                    await reader.start()
                yield reader
                # Else it goes on asking for what comes after the end.
                reader.pause(*reader.assignment())
            except BaseException:
                if reader is not None:
                    _stop(reader, self._stopping)
                raise
            self._idle.append(reader)
        finally:
            self._used -= 1
            if not self._used:
                while self._idle:
                    _stop(self._idle.pop(), self._stopping)

    async def close(self) -> None:
        """Wait for those that are being closed."""
        await asyncio.gather(*self._stopping, return_exceptions=True)


def _stop(reader: AIOKafkaConsumer, stopping: _Stopping) -> "asyncio.Task[None]":
    """Stop `reader` in a task of its own: the client's `stop` swallows a cancellation that comes while it waits."""
    task = asyncio.get_running_loop().create_task(reader.stop())
    stopping.add(task)
    task.add_done_callback(stopping.discard)
    return task

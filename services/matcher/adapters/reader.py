"""Consumers that are opened to read one thing and closed again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer

from shared.kafka.client import consumer
from shared.kafka.settings import KafkaSettings

_stopping: set[asyncio.Task[None]] = set()


@asynccontextmanager
async def opened(kafka: KafkaSettings, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer without a group; `options` are those of `shared.kafka.client.consumer`."""
    reader = consumer(kafka, auto_offset_reset="none", **options)
    try:
        await reader.start()
        yield reader
    finally:
        await _stop(reader)


async def _stop(reader: AIOKafkaConsumer) -> None:
    """Stop `reader` in a task of its own: the client's `stop` swallows a cancellation that comes while it waits."""
    task = asyncio.get_running_loop().create_task(reader.stop())
    _stopping.add(task)
    task.add_done_callback(_stopping.discard)
    await asyncio.shield(task)

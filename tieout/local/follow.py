"""Discrepancies as they appear on their topic: what the demo and the benchmarks look at."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import msgspec

from shared.contracts.discrepancy import Discrepancy
from shared.kafka.client import consumer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics


@asynccontextmanager
async def following(kafka: KafkaSettings, tell: Callable[[Discrepancy, float], None]) -> AsyncIterator[None]:
    """Call `tell` with each revision while the block runs, and with the broker's time of it (seconds since 1970)."""
    reader = consumer(kafka, Topics(kafka.topic_prefix).discrepancies, auto_offset_reset="earliest")
    await reader.start()
    decode = msgspec.json.Decoder(Discrepancy).decode

    async def follow() -> None:
        async for record in reader:
            if record.value is not None and ("kind", b"progress") not in record.headers:
                tell(decode(record.value), record.timestamp / 1000)

    task = asyncio.create_task(follow())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await reader.stop()

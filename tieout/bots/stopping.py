"""Loops that end when they are asked to, at once and in order."""

import asyncio
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def asked_to_stop() -> Iterator[asyncio.Event]:
    """Give an event that SIGINT and SIGTERM set."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def pause(stop: asyncio.Event, seconds: float) -> bool:
    """Wait; return whether it is time to stop instead."""
    try:
        async with asyncio.timeout(max(seconds, 0.0)):
            await stop.wait()
    except TimeoutError:
        pass
    return stop.is_set()


async def until(stop: asyncio.Event, work: Coroutine[Any, Any, object]) -> None:
    """Do `work`, and leave it where it is when asked to stop; what it raises is raised."""
    doing, asked = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({doing, asked}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        asked.cancel()
        if not doing.done():
            doing.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    if stop.is_set():
        await asyncio.gather(doing, return_exceptions=True)
        return
    await doing

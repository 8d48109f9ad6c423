"""Several requests at a time; the pace is the connection's."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

REQUESTS_MAX = 8
"""Under way at once: with answers in 200 ms that is 40 a second, more than the pace lets through."""

T = TypeVar("T")
R = TypeVar("R")


async def in_parallel(items: Sequence[T], ask: Callable[[T], Awaitable[R]]) -> list[R]:
    """Return `ask` of every item, in order; the first failure ends the others."""
    answers: list[R | None] = [None] * len(items)
    places = iter(range(len(items)))

    async def work() -> None:
        for place in places:
            answers[place] = await ask(items[place])

    workers = [asyncio.create_task(work()) for _ in range(min(REQUESTS_MAX, len(items)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return answers  # type: ignore[return-value]  # every place is filled, or gather has raised

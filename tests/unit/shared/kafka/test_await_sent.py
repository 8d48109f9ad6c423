"""No commit over a record that was not acknowledged."""

import asyncio

import pytest

from shared.kafka.client import await_sent
from shared.kafka.errors import SendFailed


def settled(result: object) -> asyncio.Future:
    future = asyncio.get_running_loop().create_future()
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
    return future


async def test_all_acknowledged_in_order():
    assert await await_sent([settled(1), settled(2)]) == [1, 2]


async def test_nothing_sent_is_fine():
    assert await await_sent([]) == []


async def test_one_failure_is_raised_with_its_cause():
    cause = OSError("leader away")

    with pytest.raises(SendFailed, match=r"1 of 3 records .* OSError: leader away") as failed:
        await await_sent([settled(1), settled(cause), settled(3)])

    assert failed.value.__cause__ is cause


async def test_every_send_has_ended_before_the_failure_is_raised():
    slow = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(await_sent([settled(OSError("away")), slow]))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    slow.set_result(None)

    with pytest.raises(SendFailed):
        await waiting


async def test_a_send_cancelled_by_its_producer_is_a_failure():
    cancelled = asyncio.get_running_loop().create_future()
    cancelled.cancel()

    with pytest.raises(SendFailed, match="1 of 1 sends were cancelled"):
        await await_sent([cancelled])

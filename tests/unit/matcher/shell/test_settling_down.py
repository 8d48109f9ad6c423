"""When the worker lets cores make their settled pairs small: where no legs wait, or where memory becomes short."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from services.matcher.handlers.commits import LOADED_LAG_RECORDS, Pace, Slot
from services.matcher.handlers.worker import Worker
from services.matcher.use_cases.partition import Partition, Policy
from tests.support.matcher_shell import CountingCore

LIMIT = 1_000_000


class FreezingCore(CountingCore):
    """Counts how often it was asked."""

    asked = 0

    def freeze(self) -> bool:
        self.asked += 1
        return True


@pytest.mark.parametrize(
    ("lag", "lag_elsewhere", "state_bytes", "asked"),
    [
        (0, 0, 0, 1),
        (LOADED_LAG_RECORDS, 0, 0, 1),
        (LOADED_LAG_RECORDS + 1, 0, 0, 0),
        (0, LOADED_LAG_RECORDS + 1, 0, 0),
        (LOADED_LAG_RECORDS + 1, 0, LIMIT // 2 + 1, 1),
    ],
    ids=["nothing waits", "little waits", "much waits", "much waits elsewhere", "much waits and memory is short"],
)
def test_settled_pairs_are_made_small_when_there_is_time_or_need(
    lag: int, lag_elsewhere: int, state_bytes: int, asked: int
) -> None:
    consumer: Any = None
    workshop: Any = SimpleNamespace(log=None, meter=None)
    worker = Worker(consumer, "legs", workshop, Pace(0.02, 0.5, 200), LIMIT)
    core = FreezingCore(0)
    worker._slots[0] = Slot(TopicPartition("legs", 0), Partition(0, core, Policy(1, 1, 1.0), 0), lag=lag)
    worker._slots[1] = Slot(TopicPartition("legs", 1), lag=lag_elsewhere)  # being restored

    asyncio.run(worker._settle_down(state_bytes))

    assert core.asked == asked

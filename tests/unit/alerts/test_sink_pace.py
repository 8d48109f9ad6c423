"""How often the sink reads: small batches are gathered, large ones and the first after a pause wait for nothing."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from services.alerts.handlers import sink
from services.alerts.handlers.sink import BATCH_EVERY_S, LARGE_BATCH_RECORDS, SinkLoop
from services.alerts.ports.sink import Batch
from shared.kafka.settings import KafkaSettings
from shared.telemetry.health import Health

PARTITION = TopicPartition("tieout.matches", 0)


class Topic:
    """A consumer whose polls bring as many records as the script says."""

    def __init__(self, script: list[int]) -> None:
        self._script = iter(script)
        self._end = 0

    async def getmany(self, **_: Any) -> dict[TopicPartition, list[Any]]:
        begin, self._end = self._end, self._end + next(self._script)
        records = [SimpleNamespace(offset=offset, value=None) for offset in range(begin, self._end)]
        return {PARTITION: records} if records else {}

    def assignment(self) -> set[TopicPartition]:
        return {PARTITION}

    def highwater(self, _: TopicPartition) -> int:
        return self._end

    async def commit(self, _: object) -> None: ...


async def waits(script: list[int], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return how long it waited before each poll."""
    now, real_sleep, waited = [1000.0], asyncio.sleep, 0.0

    async def sleep(seconds: float) -> None:
        nonlocal waited
        waited += max(seconds, 0)
        now[0] += max(seconds, 0)
        await real_sleep(0)

    async def store(batch: Batch) -> None:
        assert batch.spans

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(sink, "time", SimpleNamespace(monotonic=lambda: now[0], perf_counter=time.perf_counter))
    loop = SinkLoop(KafkaSettings(), None, store, Health(["sink"]), group="g")  # type: ignore[arg-type]
    loop._places[PARTITION] = 0
    client, found = Topic(script), []
    for _ in script:
        waited = 0.0
        await loop._round(client)
        found.append(round(waited, 6))
    return found


async def test_only_what_follows_a_small_batch_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    script = [3, 2, LARGE_BATCH_RECORDS, LARGE_BATCH_RECORDS, 1, 0, 0, 1, 1]
    every = BATCH_EVERY_S
    assert await waits(script, monkeypatch) == [0, every, every, 0, 0, every, 0, 0, every]

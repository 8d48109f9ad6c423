"""Real matcher processes, killed, stopped and continued while legs arrive.

Oracle: the same core over the same log in one piece, without Kafka; results are compared byte by byte as multisets.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

import pytest

from services.matcher.adapters.results import discrepancy_results, item_results
from services.matcher.domain.core import Core
from services.matcher.use_cases.partition import Partition, Policy
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from tests.conftest import PARTITIONS
from tests.support.matcher_shell import is_progress, read_all
from tieout.bench.prepared_legs import prepared_legs
from tieout.bench.prepared_legs import write as write_prepared

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("real_kafka", "topics")]

LEGS = 24_000
WRITE_LEGS = 400
"""Per step of the writer: legs go on arriving while processes die."""


class _Record:
    def __init__(self, offset: int, key: bytes | None, value: bytes) -> None:
        self.offset, self.key, self.value, self.headers = offset, key, value, ()


def expected() -> Counter[tuple[str, int, bytes]]:
    """Every result of the log: (topic, partition, value)."""
    logs: list[list[_Record]] = [[] for _ in range(PARTITIONS)]
    for number, key, value in prepared_legs(LEGS, PARTITIONS):
        logs[number].append(_Record(len(logs[number]), key, value))
    found: Counter[tuple[str, int, bytes]] = Counter()
    for number, log in enumerate(logs):
        partition = Partition(number, Core(number), Policy(1 << 40, 1 << 20, 1.0), 0)
        partition.apply(log)
        batch = partition.collect(0.0)
        found.update(("matches", number, bytes(result[1])) for result in item_results(batch))
        found.update(("discrepancies", number, bytes(result[1])) for result in discrepancy_results(batch))
    return found


async def written(kafka: KafkaSettings) -> Counter[tuple[str, int, bytes]]:
    topics = Topics(kafka.topic_prefix)
    found: Counter[tuple[str, int, bytes]] = Counter()
    for name, topic in (("matches", topics.matches), ("discrepancies", topics.discrepancies)):
        records = await read_all(kafka, topic)
        found.update((name, record.partition, record.value) for record in records if not is_progress(record))
    return found


class Matcher:
    """One `python -m services.matcher`."""

    def __init__(self, kafka: KafkaSettings, folder: Path, instance: str, **environment: str) -> None:
        self.log = folder / f"{instance}.log"
        self._environment = os.environ | {
            "TIEOUT_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "TIEOUT_KAFKA_TOPIC_PREFIX": kafka.topic_prefix,
            "TIEOUT_MATCHER_GROUP": f"{kafka.topic_prefix}matcher",
            "TIEOUT_GROUP_INSTANCE_ID": instance,
            "TIEOUT_SESSION_TIMEOUT_MS": "6000",
            "TIEOUT_SNAPSHOT_THRESHOLD_BYTES": "200000",
            "TIEOUT_SNAPSHOT_CHUNK_BYTES": "20000",
            "TIEOUT_HTTP_PORT": "0",
            "TIEOUT_LOG_FORMAT": "json",
            **environment,
        }
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "services.matcher"]
            self.process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """As an orchestrator does."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def told(self, text: str) -> int:
        return self.log.read_text().count(text)


@asynccontextmanager
async def matchers(kafka: KafkaSettings, folder: Path, count: int, **given: str) -> AsyncIterator[list[Matcher]]:
    started = [Matcher(kafka, folder, f"matcher-{number}", **given) for number in range(count)]
    try:
        for one in started:
            one.start()
        yield started
    finally:
        for one in started:
            one.process.send_signal(signal.SIGCONT)
            one.kill()


async def write_slowly(kafka: KafkaSettings, pause_s: float) -> None:
    legs = prepared_legs(LEGS, PARTITIONS)
    while step := list(islice(legs, WRITE_LEGS)):
        await write_prepared(kafka, Topics(kafka.topic_prefix).legs, iter(step), PARTITIONS)
        await asyncio.sleep(pause_s)


async def until(reached: Callable[[], bool], timeout_s: float = 60) -> None:
    async with asyncio.timeout(timeout_s):
        while not reached():  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.1)


async def assert_all_written_once(kafka: KafkaSettings, timeout_s: float = 120) -> None:
    wanted = expected()
    deadline = time.monotonic() + timeout_s
    found = await written(kafka)
    while found.total() < wanted.total() and time.monotonic() < deadline:
        await asyncio.sleep(0.5)
        found = await written(kafka)
    lost, extra = (wanted - found).total(), (found - wanted).total()
    assert (lost, extra) == (0, 0), f"of {wanted.total()} results {lost} are lost and {extra} are doubled or wrong"


async def test_kill_9_in_the_middle_loses_and_doubles_nothing(kafka_settings: KafkaSettings, tmp_path: Path):
    async with matchers(kafka_settings, tmp_path, 1) as (one,):
        writing = asyncio.create_task(write_slowly(kafka_settings, 0.15))
        for _ in range(4):
            await until(lambda: one.told("partition restored") >= PARTITIONS)
            await asyncio.sleep(0.7)
            one.kill()
            one.log.unlink()
            one.start()
        await writing
        await assert_all_written_once(kafka_settings)
        await until(lambda: one.told("partition restored") >= PARTITIONS)
        assert one.end() == 0
        assert one.told("matcher stopped") == 1


async def test_a_process_that_sleeps_while_a_peer_takes_over_is_fenced(kafka_settings: KafkaSettings, tmp_path: Path):
    """SIGSTOP for longer than the session: the peer restores and goes on; awake again, the first does no harm."""
    async with matchers(kafka_settings, tmp_path, 2) as (one, two):
        writing = asyncio.create_task(write_slowly(kafka_settings, 0.3))
        await until(lambda: one.told("partition restored") > 0 and two.told("partition restored") > 0)
        await asyncio.sleep(1)
        before = two.told("partition restored")
        one.process.send_signal(signal.SIGSTOP)
        await until(lambda: two.told("partition restored") > before)
        await asyncio.sleep(1)
        one.process.send_signal(signal.SIGCONT)
        await writing
        await assert_all_written_once(kafka_settings)
        assert [one.end(), two.end()] == [0, 0]


async def test_rolling_restart_by_sigterm_keeps_the_membership(kafka_settings: KafkaSettings, tmp_path: Path):
    async with matchers(kafka_settings, tmp_path, 2) as both:
        writing = asyncio.create_task(write_slowly(kafka_settings, 0.1))
        await until(lambda: all(one.told("partition restored") > 0 for one in both))
        for one in both:
            assert one.end() == 0
            restored = one.told("partition restored")
            one.start()
            await until(lambda one=one, restored=restored: one.told("partition restored") > restored)
        await writing
        await assert_all_written_once(kafka_settings)


async def test_topics_that_do_not_go_together_are_refused(kafka_settings: KafkaSettings, tmp_path: Path):
    wrong = kafka_settings.model_copy(update={"topic_prefix": f"{kafka_settings.topic_prefix}absent."})
    async with matchers(wrong, tmp_path, 1) as (one,):
        assert one.process.wait(30) == 2
        assert "absent.legs" in one.log.read_text()
        assert "tieout topics apply" in one.log.read_text()


async def test_kafka_away_at_the_start_is_one_clear_line(kafka_settings: KafkaSettings, tmp_path: Path):
    away = kafka_settings.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})
    async with matchers(away, tmp_path, 1, TIEOUT_KAFKA_CONNECT_TIMEOUT_S="2") as (one,):
        assert one.process.wait(30) == 3
        (line,) = [line for line in one.log.read_text().splitlines() if line.startswith("error:")]
        assert "127.0.0.1:1" in line
        assert "Traceback" not in one.log.read_text()

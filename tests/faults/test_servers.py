"""A broker and a database that die, lose their disk and come back, under a running stream."""

import asyncio
import contextlib
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from shared.kafka.settings import KafkaSettings
from tests.support import servers
from tests.support.drill import Drill, drill, topics_on
from tests.support.kafka_cluster import three_brokers
from tieout.local.kafka_jvm import JvmKafka
from tieout.local.postgres import LocalPostgres, create_database

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.timeout(1800)]
BALLAST = "ballast"
PATIENT = {"broker.session.timeout.ms": "6000"}
"""On two busy cores a broker that has to be heard of every two seconds goes in and out of its own cluster."""


async def _settings(broker: JvmKafka) -> KafkaSettings:
    kafka = KafkaSettings.local(broker.bootstrap_servers, topic_prefix=f"f{uuid.uuid4().hex[:8]}.")
    await topics_on(kafka)
    return kafka


# ---- the broker


async def test_a_broker_killed_five_times(tmp_path: Path, database_url: str) -> None:
    with own_broker(tmp_path / "kafka") as broker:

        async def breaking(made: Drill) -> None:
            await made.until_sent(0.05)
            for pause_s in (0.5, 5, 0.5, 12, 0.5):
                await asyncio.to_thread(broker.kill)
                await asyncio.sleep(pause_s)
                await asyncio.to_thread(broker.restart)
                await made.recovered("broker kill -9 and restart", timeout_s=180)

        await drill("broker-kill9", await _settings(broker), database_url, breaking, seconds=70, settle_s=240)


async def test_three_brokers_of_which_one_is_lost(tmp_path: Path, database_url: str) -> None:
    """It does not come back; a second one is restarted afterwards."""
    with three_brokers(tmp_path) as brokers:
        addresses = ",".join(broker.bootstrap_servers for broker in brokers)
        kafka = KafkaSettings.local(addresses, topic_prefix=f"c{uuid.uuid4().hex[:8]}.")
        await topics_on(kafka, replication=3)

        async def breaking(made: Drill) -> None:
            await made.until_sent(0.2)
            await asyncio.to_thread(brokers[0].kill)
            await made.recovered("one of three brokers lost", timeout_s=180)

        await drill("three-brokers", kafka, database_url, breaking, seconds=50, settle_s=240)


async def test_a_broker_whose_disk_is_full(tmp_path: Path, database_url: str) -> None:
    """It stops itself; with room again it is started anew."""
    with small_disk(tmp_path / "disk", "400m") as disk, own_broker(disk / "kafka") as broker:

        async def breaking(made: Drill) -> None:
            await made.until_sent(0.3)
            fill(disk)
            async with asyncio.timeout(120):
                while broker.is_running():  # noqa: ASYNC110 - seen from outside
                    await asyncio.sleep(0.2)
            (disk / BALLAST).unlink()
            await asyncio.to_thread(broker.restart)
            await made.recovered("disk of the broker full", timeout_s=180)

        await drill("disk-full-broker", await _settings(broker), database_url, breaking, settle_s=240)


# ---- the database


@pytest.mark.usefixtures("real_kafka", "topics")
@pytest.mark.partitions(state=4, inbox=2)
async def test_a_database_killed_ten_times(kafka_settings: KafkaSettings, own_postgres: LocalPostgres) -> None:
    async def breaking(made: Drill) -> None:
        await made.until_sent(0.05)
        for _ in range(10):
            await asyncio.to_thread(own_postgres.kill)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(own_postgres.restart)
            await made.recovered("PostgreSQL kill -9 and restart")

    url = await create_database(own_postgres.url(), "drill")
    await drill("postgres-kill9", kafka_settings, url, breaking, seconds=60)


@pytest.mark.usefixtures("real_kafka", "topics")
@pytest.mark.partitions(state=4, inbox=2)
async def test_a_hundred_back_ends_that_are_ended(kafka_settings: KafkaSettings, database_url: str) -> None:
    async def breaking(made: Drill) -> None:
        await made.until_sent(0.05)
        connection = await asyncpg.connect(database_url.replace("+asyncpg", ""))
        try:
            while made.faults["back end ended"] < 100:
                ended = await connection.fetch(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY random() LIMIT 2"
                )
                made.faults["back end ended"] += len(ended)
                await asyncio.sleep(0.5)
        finally:
            await connection.close()
        await made.recovered("last back end ended")

    await drill("back-ends", kafka_settings, database_url, breaking, seconds=45)


@pytest.mark.usefixtures("real_kafka", "topics")
@pytest.mark.partitions(state=4, inbox=2)
async def test_a_database_whose_disk_is_full(kafka_settings: KafkaSettings, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "300m") as disk:
        disk.chmod(0o755)
        server = LocalPostgres(disk / "postgres", durable=False)
        server.start()
        with servers.remembered(server.pid):
            url = await create_database(server.url(), "drill")

            async def breaking(made: Drill) -> None:
                await made.until_sent(0.3)
                fill(disk)
                await asyncio.sleep(12)
                made.notes["server ended"] = not server.is_running()
                (disk / BALLAST).unlink()
                if not server.is_running():
                    await asyncio.to_thread(server.restart)
                await made.recovered("disk of the database full")

            try:
                await drill("disk-full-database", kafka_settings, url, breaking)
            finally:
                server.close()


# ---- disks and brokers of their own


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of its own that can be filled without harm."""
    place.mkdir(parents=True)
    for parent in (place, *place.parents):
        with contextlib.suppress(PermissionError):
            parent.chmod(parent.stat().st_mode | 0o011)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=False)
    if mounted.returncode:
        pytest.fail("NOT RUN: mounting a small file system needs the rights of root (or CAP_SYS_ADMIN)")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path) -> None:
    """Write until there is no room."""
    with (disk / BALLAST).open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)


@contextlib.contextmanager
def own_broker(folder: Path) -> Iterator[JvmKafka]:
    """A broker in this folder."""
    broker = JvmKafka(folder, PATIENT)
    broker.start()
    with servers.remembered(broker.pid):
        yield broker
        broker.kill()

"""A network that is cut, slow, torn and lossy between the services and Kafka, PostgreSQL and the receivers of webhooks.

All of it goes through toxiproxy, and through a proxy of our own where answers to commits alone are lost; what the test
itself asks Kafka goes through it, too, once it is healthy again.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shared.kafka.settings import KafkaSettings
from tests.support import servers
from tests.support.drill import Drill, drill, topics_on
from tests.support.kafka_proxy import END_TXN, KafkaProxy
from tests.support.toxiproxy import Toxiproxy, toxiproxy
from tieout.local.kafka_jvm import JvmKafka, fetch_jars
from tieout.local.places import free_ports
from tieout.local.postgres import LocalPostgres, create_database

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.timeout(1800)]
KAFKA, POSTGRES, WEBHOOKS = "kafka", "postgres", "webhooks"
TOXIC_S = 4.0
TOXICS = {
    "latency": {"latency": 300, "jitter": 200},
    "bandwidth": {"rate": 40},
    "slicer": {"average_size": 60, "size_variation": 30, "delay": 300},
    "slow_close": {"delay": 1500},
    "timeout": {"timeout": 1500},
    "reset_peer": {"timeout": 400},
    "limit_data": {"bytes": 20_000},
}


@pytest.fixture
def proxies() -> Iterator[Toxiproxy]:
    with toxiproxy() as found:
        yield found


@pytest.fixture
async def far_broker(tmp_path: Path) -> tuple[JvmKafka, int]:
    """A broker, not started yet, that tells its clients the address of a proxy and no other; and the proxy's port."""
    (listen,) = free_ports(1)
    broker = JvmKafka(tmp_path / "kafka", {"advertised.listeners": f"PLAINTEXT://127.0.0.1:{listen}"})
    jars = await asyncio.to_thread(fetch_jars)
    broker.data_dir.mkdir(parents=True)
    broker._ports = free_ports(2)
    await asyncio.to_thread(broker._format, jars)
    return broker, listen


@pytest.fixture
async def far_kafka(far_broker: tuple[JvmKafka, int], proxies: Toxiproxy) -> AsyncIterator[KafkaSettings]:
    """Kafka behind toxiproxy."""
    broker, listen = far_broker
    await asyncio.to_thread(proxies.proxy, KAFKA, listen, broker._ports[0])
    async with _started(broker, listen) as kafka:
        yield kafka


@asynccontextmanager
async def _started(broker: JvmKafka, listen: int) -> AsyncIterator[KafkaSettings]:
    await asyncio.to_thread(broker.start)
    with servers.remembered(broker.pid):
        kafka = KafkaSettings.local(f"127.0.0.1:{listen}", topic_prefix=f"n{uuid.uuid4().hex[:8]}.")
        await topics_on(kafka)
        yield kafka
        broker.kill()


async def test_a_minute_without_kafka(far_kafka: KafkaSettings, proxies: Toxiproxy, database_url: str) -> None:
    async def breaking(made: Drill) -> None:
        await made.until_sent(0.2)
        async with proxies.away(KAFKA):
            await asyncio.sleep(60)
        await made.recovered("60 s without Kafka", timeout_s=180)

    await drill("kafka-60s", far_kafka, database_url, breaking, settle_s=240)


async def test_toxics_between_services_and_kafka(
    far_kafka: KafkaSettings, proxies: Toxiproxy, database_url: str
) -> None:
    async def breaking(made: Drill) -> None:
        await made.until_sent(0.05)
        for type_, attributes in TOXICS.items():
            for stream in ("upstream", "downstream"):
                async with proxies.toxic(KAFKA, type_, stream, **attributes):
                    await asyncio.sleep(TOXIC_S)
                await made.recovered(f"{type_} {stream}", timeout_s=180)

    await drill("kafka-toxics", far_kafka, database_url, breaking, seconds=90, settle_s=240)


async def test_replies_that_never_come(far_kafka: KafkaSettings, proxies: Toxiproxy, database_url: str) -> None:
    """Requests get through, answers do not, and then the connection ends."""

    async def breaking(made: Drill) -> None:
        await made.until_sent(0.05)
        for number in range(12):
            async with proxies.toxic(KAFKA, "timeout", "downstream", timeout=100 + 100 * (number % 5)):
                await asyncio.sleep(1.0)
            await made.recovered("replies lost", timeout_s=180)

    await drill("lost-replies", far_kafka, database_url, breaking, seconds=60, settle_s=240)


async def test_commits_whose_replies_never_come(far_broker: tuple[JvmKafka, int], database_url: str) -> None:
    """Kafka has ended the transaction and the matcher is not told: neither to repeat nor to forget it is right."""
    broker, listen = far_broker
    proxy = KafkaProxy(broker._ports[0])

    async def breaking(made: Drill) -> None:
        await made.until_sent(0.05)
        for number in range(12):
            before = proxy.lost
            with proxy.losing(END_TXN, chance=(0.2, 0.5, 1.0)[number % 3]):
                while proxy.lost < before + 4:  # noqa: ASYNC110 - the proxy is watched from outside
                    await asyncio.sleep(0.02)
            await made.recovered("replies of commits lost", timeout_s=180)
        made.notes["commits without reply"] = proxy.lost
        made.notes["beside commits with one"] = proxy.passed

    async with proxy.listening(listen), _started(broker, listen) as kafka:
        await drill("lost-commit-replies", kafka, database_url, breaking, seconds=60, settle_s=240)


@pytest.mark.usefixtures("real_kafka", "topics")
@pytest.mark.partitions(state=4, inbox=2)
async def test_toxics_between_alerts_and_postgresql(
    kafka_settings: KafkaSettings, proxies: Toxiproxy, own_postgres: LocalPostgres
) -> None:
    near = await create_database(own_postgres.url(), "drill")
    (listen,) = free_ports(1)
    await asyncio.to_thread(proxies.proxy, POSTGRES, listen, own_postgres.port)
    far = near.replace(f":{own_postgres.port}/", f":{listen}/")

    async def breaking(made: Drill) -> None:
        await made.until_sent(0.05)
        for type_, attributes in TOXICS.items():
            async with proxies.toxic(POSTGRES, type_, "downstream", **attributes):
                await asyncio.sleep(TOXIC_S)
            await made.recovered(f"{type_} to PostgreSQL")
        async with proxies.away(POSTGRES):
            await asyncio.sleep(10)
        await made.recovered("10 s without PostgreSQL")

    await drill("postgres-toxics", kafka_settings, far, breaking, seconds=75, database_admin_url=near)


@pytest.mark.usefixtures("real_kafka", "topics")
@pytest.mark.partitions(state=4, inbox=2)
async def test_toxics_between_alerts_and_its_endpoints(
    kafka_settings: KafkaSettings, proxies: Toxiproxy, database_url: str
) -> None:
    """Every open discrepancy reaches the endpoint at least once, under one id, whatever the network does."""
    (listen,) = free_ports(1)

    async def breaking(made: Drill) -> None:
        await made.until_sent(0.1)
        for type_, attributes in TOXICS.items():
            async with proxies.toxic(WEBHOOKS, type_, "downstream", **attributes):
                await asyncio.sleep(TOXIC_S)
            made.faults[f"{type_} to endpoint"] += 1
        async with proxies.away(WEBHOOKS):
            await asyncio.sleep(5)
        await made.recovered("5 s without endpoint")

    await drill(
        "webhook-toxics",
        kafka_settings,
        database_url,
        breaking,
        seconds=45,
        settle_s=400,
        through=lambda port: proxies.proxy(WEBHOOKS, listen, port) or listen,
    )

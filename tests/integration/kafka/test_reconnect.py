"""A broker that is away is asked for again soon, and seldom: by aiokafka's own client, on a real socket."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiokafka
import aiokafka.client
import pytest
from aiokafka.errors import KafkaError
from aiokafka.structs import BrokerMetadata
from structlog.testing import capture_logs

from shared.kafka.client import admin, consumer, producer
from shared.kafka.reconnect import JITTER, METADATA_BURST, METADATA_WINDOW_S, PAUSE_MAX_S, Client
from shared.kafka.settings import KafkaSettings
from tests.support.kafka_proxy import KafkaProxy
from tests.support.servers import Server
from tieout.local.places import free_ports

ASKING_S = 1.0
ASKERS = 20
"""As many as a service has tasks that want something of one broker."""


@asynccontextmanager
async def _refusing(on_connection: Callable[[], None]) -> AsyncIterator[int]:
    """A port that takes connections and ends them at once, as a load balancer does whose brokers are away."""

    async def end(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        on_connection()
        writer.close()

    server = await asyncio.start_server(end, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def _client(*ports: int) -> Client:
    made = Client(bootstrap_servers=f"127.0.0.1:{ports[0]}", request_timeout_ms=5_000)
    made.cluster._brokers = {node: BrokerMetadata(node, "127.0.0.1", port, None) for node, port in enumerate(ports, 1)}
    return made


async def test_every_client_is_one_of_ours() -> None:
    """FastStream makes its own from these classes of aiokafka."""
    settings = KafkaSettings.local("127.0.0.1:1")
    made = [
        producer(settings).client,
        producer(settings, transactional_id="t").client,
        consumer(settings, auto_offset_reset="none")._client,
        admin(settings)._client,
        aiokafka.AIOKafkaProducer().client,
        aiokafka.AIOKafkaConsumer()._client,
    ]
    assert [type(one) for one in made] == [Client] * len(made)


async def test_however_many_ask_a_broker_that_refuses_is_tried_a_few_times() -> None:
    tried = 0

    def count() -> None:
        nonlocal tried
        tried += 1

    async def ask(client: Client) -> None:
        while True:
            assert not await client.ready(1)
            await asyncio.sleep(0.01)

    async with _refusing(count) as port:
        client, begun_s = _client(port), time.monotonic()
        asking = [asyncio.create_task(ask(client)) for _ in range(ASKERS)]
        await asyncio.sleep(ASKING_S)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await client.close()
        asked_s = time.monotonic() - begun_s
    # 0, 0.05, 0.15, 0.35 and 0.75 s after the first, each up to a fifth earlier; the parent alone makes hundreds.
    assert 1 < tried <= 6 + asked_s / (PAUSE_MAX_S * (1 - JITTER))


async def test_where_another_broker_may_answer_nobody_waits_for_one_that_is_away() -> None:
    """Metadata of the others tell who leads now: waiting a second for the dead one first would delay every fail-over."""
    async with _refusing(lambda: None) as port:
        client = _client(port, *free_ports(1))
        for _ in range(10):
            assert not await client.ready(1)
        client._away[1].due_s = float("inf")
        async with asyncio.timeout(5):
            assert not await client.ready(1)
        await client.close()


async def test_a_closed_client_does_not_connect_any_more() -> None:
    """Who waits for it ends: a producer that is given up would otherwise leave its tasks behind."""
    tried = 0

    def count() -> None:
        nonlocal tried
        tried += 1

    async with _refusing(count) as port:
        client = _client(port)
        await client.ready(1)
        waiting = asyncio.create_task(client.ready(1))
        metadata = client.force_metadata_update()
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(KafkaError, match="closed") as refused:
            await waiting
        assert not refused.value.retriable
        assert not await metadata
        assert not await client.force_metadata_update()
        assert tried == 1


async def test_metadata_are_asked_for_as_soon_as_wanted_and_not_without_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without leaders, fetchers and senders ask again the moment they have the answer."""
    asked = 0

    async def answer(*_: object) -> bool:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return True

    monkeypatch.setattr(aiokafka.client.AIOKafkaClient, "_metadata_update", answer)
    client, begun_s = _client(1), time.monotonic()
    asking = asyncio.create_task(_ask_metadata(client))
    await asyncio.sleep(METADATA_WINDOW_S * 0.5)
    assert asked >= 1
    await asyncio.sleep(METADATA_WINDOW_S * 1.5)
    asking.cancel()
    assert asked <= METADATA_BURST * (1 + (time.monotonic() - begun_s) / METADATA_WINDOW_S)


async def _ask_metadata(client: Client) -> None:
    while True:
        await client._metadata_update(client.cluster, set())


@pytest.mark.kafka
async def test_an_outage_has_one_line_at_its_beginning_and_one_at_its_end(kafka: Server) -> None:
    """Whatever the number of clients; and the first request after it finds the broker."""
    (port,) = free_ports(1)
    clients = [_client(port) for _ in range(3)]
    with capture_logs() as lines:
        for _ in range(3):
            assert [await client.ready(1) for client in clients] == [False] * 3
        async with KafkaProxy(int(kafka.address.rpartition(":")[2])).listening(port):
            assert [await client.ready(1) for client in clients] == [True] * 3
            for client in clients:
                await client.close()
    address = f"127.0.0.1:{port}"
    assert [(line["event"], line["broker"]) for line in lines] == [
        ("a Kafka broker cannot be reached: trying again until it answers", address),
        ("a Kafka broker answers again", address),
    ]

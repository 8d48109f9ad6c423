"""Goal: `kill -9` of any service in the middle of the stream neither loses nor doubles anything, anywhere.

Method: 50,000 events of known outcome go over HTTP through ingest, matcher and alerts as three real processes; each is
killed once while the stream runs and started again at once. What then stands is compared with the outcome that the
generator wrote down; see `tests/support/whole_stream.py`. More of it: `make faults`.
"""

import asyncio
import os

import pytest

from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from tests.support.planted import plan
from tests.support.producer_client import ProducerClient
from tests.support.servers import Server
from tests.support.services import Services, prepared, short_rules
from tests.support.webhook_receiver import Receiver
from tests.support.whole_stream import Run, check, end_of, register, send, tell

EVENTS = int(os.environ.get("TIEOUT_TEST_KILLS_EVENTS", "50000"))
EVENTS_PER_SECOND = float(os.environ.get("TIEOUT_TEST_KILLS_EVENTS_PER_SECOND", "900"))
WEBHOOKS = EVENTS // 25
DEADLINE_S = 20.0
# From the last event: its deadline, and whatever is still on its way through two busy cores.
SETTLE_TIMEOUT_S = DEADLINE_S + 100.0
KILLS = {0.3: "ingest", 0.5: "matcher", 0.7: "alerts"}
"""By the part of the stream that has been sent."""
PARTITIONS = 4


@pytest.mark.e2e
@pytest.mark.kafka
@pytest.mark.postgres
@pytest.mark.timeout(600)
@pytest.mark.partitions(state=PARTITIONS, inbox=2)
async def test_kills_in_the_middle_of_the_stream_lose_and_double_nothing(
    real_kafka: Server, kafka_settings: KafkaSettings, topics: Topics, database_url: str
) -> None:
    """Ingest, matcher and alerts die once each; topics, tables and webhooks say what the oracle says."""
    run = Run(plan(EVENTS, WEBHOOKS))

    async def kill_each(services: Services, client: ProducerClient, total: int) -> None:
        for part, name in KILLS.items():
            while client.sent < part * total:  # noqa: ASYNC110 - the stream is watched from outside
                await asyncio.sleep(0.02)
            await services.kill(name)
            await services.start(name)
            run.kills.append(name)

    many = {"TIEOUT_WEBHOOKS_PER_MINUTE_MAX": "1000000"}
    async with (
        Receiver() as receiver,
        prepared(kafka_settings, database_url, short_rules(DEADLINE_S), **many) as services,
    ):
        for name in ("ingest", "matcher", "alerts"):
            await services.start(name)
        await services.ready("ingest", "matcher", "alerts")
        await register(services, receiver)
        await send(run, services, EVENTS_PER_SECOND, kill_each)
        end = await end_of(kafka_settings, database_url, DEADLINE_S, SETTLE_TIMEOUT_S, PARTITIONS)
    tell(run, end, receiver)
    assert run.kills == list(KILLS.values())
    check(run, end, receiver)

"""The matcher while its broker dies and comes back."""

import asyncio

import pytest

from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import apply_topics
from tests.support.matcher_shell import assert_exactly_once, items, legs_of, running, write

pytestmark = pytest.mark.kafka


async def test_a_broker_killed_and_restarted_twice_loses_and_doubles_nothing(own_kafka):
    kafka = KafkaSettings(bootstrap_servers=own_kafka.bootstrap_servers, topic_prefix="faults.")
    await apply_topics(kafka, 2, 1)
    await write(kafka, legs_of(20_000, 1_000), 2)
    async with running(kafka, commit_interval_loaded_ms=20) as one:
        for goal in (3_000, 9_000):
            await one.until_committed(goal)
            await asyncio.to_thread(own_kafka.kill)
            await asyncio.sleep(0.5)
            await asyncio.to_thread(own_kafka.restart)
        await one.until_committed(20_000, timeout_s=90)
        # A broker that dies between the markers of one transaction comes back without the missing ones, and the results
        # stay hidden until the partition's next transaction (decision 9): in life that is the progress of the next second.
        await write(kafka, legs_of(100, 1_000, first=20_000), 2)
        await one.until_committed(20_100, timeout_s=90)
        await one.end()
    assert_exactly_once(await items(kafka), 20_100)

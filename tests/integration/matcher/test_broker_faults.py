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
        # A broker may come back without the end of a transaction in some partition (decision 9): what that hides from
        # readers shows up by itself, though nothing more is written.
        async with asyncio.timeout(60):
            while len(await items(kafka)) < 20_000:  # noqa: ASYNC110 - seen from outside
                await asyncio.sleep(0.5)
        await one.end()
    assert_exactly_once(await items(kafka), 20_000)

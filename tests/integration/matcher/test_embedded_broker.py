"""The matcher on the embedded broker, as demo and quick tests use it: no isolation there, no trimming."""

import pytest

from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import apply_topics
from tests.support.matcher_shell import CountingCore, assert_exactly_once, items, legs_of, running, write
from tieout.local.kafka_embedded import PARTITIONS, EmbeddedKafka


@pytest.fixture
async def embedded():
    broker = EmbeddedKafka().start()
    kafka = KafkaSettings.local(broker.bootstrap_servers, check_crcs=False, topic_prefix="e.")
    await apply_topics(kafka)
    yield kafka
    broker.stop()


async def test_it_matches_and_goes_on_after_a_restart(embedded: KafkaSettings):
    await write(embedded, legs_of(1_000, 100), PARTITIONS)
    async with running(embedded) as one:
        await one.until_committed(1_000)
        await one.end()
    await write(embedded, legs_of(500, 100, first=1_000), PARTITIONS)
    async with running(embedded) as two:
        await two.until_committed(1_500)
        await two.end()
    assert_exactly_once(await items(embedded), 1_500)


async def test_snapshots_work_without_trimming(embedded: KafkaSettings):
    small = {"snapshot_threshold_bytes": 2_000, "snapshot_chunk_bytes": 500}
    async with running(embedded, CountingCore, **small) as one:
        for start in range(0, 3_000, 100):
            await write(embedded, legs_of(100, 60, first=start), PARTITIONS)
            await one.until_committed(start + 100)
        assert any(batch.snapshot for batch in one.meter.batches)
        await one.end()
    async with running(embedded, **small) as two:
        await two.until(lambda running: running.worker.status().ready)
        assert two.worker.committed_records == 3_000
        await two.end()
    assert_exactly_once(await items(embedded), 3_000)

"""The exactly-once protocol on a real broker: whatever happens in the middle, every leg has one result.

Method: a core that counts (see `CountingCore`): ids in `matches` tell lost and doubled results, revisions tell
whether the state went on where it was.
"""

import asyncio
import random
from itertools import pairwise

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewTopic, RecordsToDelete
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.transaction import EndTxnRequest

from services.matcher.adapters.input_ends import InputEnds
from services.matcher.adapters.results import Routes
from services.matcher.adapters.transaction import ProducerTransactions
from services.matcher.app import WrongPartitions, check_topics
from services.matcher.handlers.worker import InputLost
from shared.kafka.client import admin
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics, partitions_of
from tests.conftest import PARTITIONS
from tests.support.matcher_shell import (
    START_MS,
    CountingCore,
    Death,
    assert_exactly_once,
    is_progress,
    items,
    legs_of,
    read_all,
    running,
    settings_for,
    tick,
    write,
)

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("real_kafka", "topics")]


async def test_results_state_and_offsets_of_a_quiet_run(kafka_settings: KafkaSettings):
    await write(kafka_settings, legs_of(2_000, 300), PARTITIONS)
    async with running(kafka_settings) as one:
        await one.until_committed(2_000)
        await one.end()
    assert_exactly_once(await items(kafka_settings), 2_000)


async def test_workers_that_die_in_the_middle_lose_and_double_nothing(kafka_settings: KafkaSettings):
    """Ten owners one after the other, each gone without a word at a step of its own: no clock decides when."""
    portion = 3_000
    chance = random.Random(5)
    steps = 2 * list(Death.STEPS)
    chance.shuffle(steps)
    for number, step in enumerate(steps):
        # Legs of every partition: each owner has to start, apply and commit all of them, however fast it is.
        await write(kafka_settings, legs_of(portion, 2_000, first=number * portion), PARTITIONS)
        death = Death(step, chance.randint(1, portion if step == "applied" else PARTITIONS))
        async with running(kafka_settings, death.core, death.around) as one:
            await one.until(lambda _, death=death: death.happened, timeout_s=60)
            await one.abandon()
    count = portion * len(steps)
    async with running(kafka_settings) as last:
        await last.until_committed(count)
        await last.end()
    assert_exactly_once(await items(kafka_settings), count)


async def test_rebalances_while_records_flow_lose_and_double_nothing(kafka_settings: KafkaSettings):
    """A peer comes and goes three times; legs are written all the time."""

    async def write_slowly() -> None:
        for start in range(0, 20_000, 500):
            await write(kafka_settings, legs_of(500, 700, first=start), PARTITIONS)
            await asyncio.sleep(0.05)

    writing = asyncio.create_task(write_slowly())
    async with running(kafka_settings) as one:
        await one.until(lambda running: running.meter.restores == PARTITIONS)
        for _ in range(3):
            async with running(kafka_settings) as peer:
                await peer.until(lambda running: running.meter.restores > 0 and running.worker.status().ready)
                await asyncio.sleep(0.5)
                await peer.end()
        await writing
        await one.until_committed(20_000)
        await one.end()
    assert_exactly_once(await items(kafka_settings), 20_000)


async def test_a_partition_that_comes_back_keeps_its_state(kafka_settings: KafkaSettings):
    """Eager rebalancing takes all and gives most back: what came back is not restored again."""
    await write(kafka_settings, legs_of(1_000, 50), PARTITIONS)
    async with running(kafka_settings) as one:
        await one.until_committed(1_000)
        async with running(kafka_settings) as peer:
            await peer.until(lambda running: running.worker.status().joined)
            await one.until(lambda running: len(running.worker.status().partitions) < PARTITIONS)
            assert one.meter.restores == PARTITIONS
            await peer.end()


async def test_a_foreign_owner_fences_and_the_group_decides(kafka_settings: KafkaSettings, topics: Topics):
    """Another producer with our transactional id: our transaction fails, the group says we are the owner, we go on."""
    await write(kafka_settings, legs_of(500, 50), PARTITIONS)
    async with running(kafka_settings) as one:
        await one.until_committed(500)
        group = settings_for(kafka_settings).matcher_group
        foreign = ProducerTransactions(kafka_settings, topics, Routes(topics, 1), f"{group}-0", 0)
        await foreign.start()
        await write(kafka_settings, legs_of(1_000, 50, first=500), PARTITIONS)
        await one.until_committed(1_500)
        assert one.meter.restores == PARTITIONS + 1
        await foreign.close()
        await one.end()
    assert_exactly_once(await items(kafka_settings), 1_500)


async def test_a_produce_error_inside_a_transaction_loses_nothing(kafka_settings: KafkaSettings):
    """The client would commit without the record that the broker refused: its future is looked at first."""

    class Swelling(CountingCore):
        refused = 0

        def take(self):
            changes = super().take()
            if any(item.id == "e700" for _, item in changes.items) and Swelling.refused < 2:
                Swelling.refused += 1
                group, item = changes.items[-1]
                changes.items[-1] = (group, msgspec.structs.replace(item, pack="x" * 3_000_000))
            return changes

    await write(kafka_settings, legs_of(1_000, 100), PARTITIONS)
    # Uncompressed: a text of one letter would become small enough.
    async with running(kafka_settings, Swelling, compression="none") as one:
        await one.until_committed(1_000)
        await one.end()
    assert Swelling.refused == 2
    assert one.meter.restores == PARTITIONS + 2
    assert_exactly_once(await items(kafka_settings), 1_000)


async def test_an_end_of_a_transaction_that_was_asked_for_twice_is_followed_by_a_new_producer(
    kafka_settings: KafkaSettings,
):
    """The client repeats what got no answer; the first request may be late and would end the next transaction midway."""
    lost: list[ProducerTransactions] = []

    def around(made: ProducerTransactions) -> ProducerTransactions:
        send = made._producer.client.send

        async def losing(node: int, request: object, **options: object) -> object:
            answer = await send(node, request, **options)
            if isinstance(request, EndTxnRequest) and made not in lost and len(lost) < 2:
                lost.append(made)
                raise KafkaConnectionError("the answer was lost")
            return answer

        made._producer.client.send = losing
        return made

    await write(kafka_settings, legs_of(1_000, 100), PARTITIONS)
    async with running(kafka_settings, around=around) as one:
        await one.until(lambda running: running.meter.restores == PARTITIONS + 2)
        await one.until_committed(1_000)
        await one.end()
    assert len(lost) == 2
    assert_exactly_once(await items(kafka_settings), 1_000)


async def test_snapshots_keep_the_state_log_short_and_restore_from_it(kafka_settings: KafkaSettings, topics: Topics):
    small = {"snapshot_threshold_bytes": 8_000, "snapshot_chunk_bytes": 3_000}
    async with running(kafka_settings, **small) as one:
        for start in range(0, 30_000, 1_000):
            await write(kafka_settings, legs_of(1_000, 900, first=start), PARTITIONS)
            await one.until_committed(start + 1_000)
        slices = [batch.snapshot for batch in one.meter.batches if batch.snapshot is not None]
        assert sum(piece.last for piece in slices) >= PARTITIONS
        assert any(not piece.first and not piece.last for piece in slices)
        await asyncio.sleep(0.5)
        await one.abandon()
    kept = await read_all(kafka_settings, topics.matcher_state)
    assert {record.partition for record in kept} == set(range(PARTITIONS))
    assert min(record.offset for record in kept) > 0
    assert sum(len(record.value) for record in kept) < 3 * PARTITIONS * 4 * 10_000
    await write(kafka_settings, legs_of(3_000, 900, first=30_000), PARTITIONS)
    async with running(kafka_settings, **small) as next_one:
        await next_one.until_committed(33_000)
        await next_one.end()
    assert_exactly_once(await items(kafka_settings), 33_000)


async def test_an_unknown_place_of_a_snapshot_deletes_nothing(kafka_settings: KafkaSettings, topics: Topics):
    """-1 is no offset but the broker's word for the end of the log."""
    await write(kafka_settings, legs_of(300, 30), PARTITIONS)
    async with running(kafka_settings) as one:
        await one.until_committed(300)
        kept = len(await read_all(kafka_settings, topics.matcher_state))
        for number in range(PARTITIONS):
            one.log.trim(number, -1)
        await asyncio.gather(*one.log._trimming)
        await one.end()
    assert len(await read_all(kafka_settings, topics.matcher_state)) >= kept > 0


async def test_a_restart_with_the_same_instance_gets_its_partitions_back_at_once(kafka_settings: KafkaSettings):
    """Static membership: no session time-out is waited for, in either direction."""
    await write(kafka_settings, legs_of(1_000, 100), PARTITIONS)
    async with running(kafka_settings, group_instance_id="matcher-0") as one:
        await one.until_committed(1_000)
        await one.end()
    await write(kafka_settings, legs_of(1_000, 100, first=1_000), PARTITIONS)
    async with running(kafka_settings, group_instance_id="matcher-0") as two:
        await two.until(lambda running: running.worker.status().ready, timeout_s=4)
        await two.until_committed(2_000)
        await two.end()
    assert_exactly_once(await items(kafka_settings), 2_000)


async def test_progress_is_told_every_second_while_only_time_passes(kafka_settings: KafkaSettings, topics: Topics):
    async with running(kafka_settings) as one:
        await one.until(lambda running: running.worker.status().ready)
        for step in range(12):
            await write(kafka_settings, [(None, tick(START_MS + 250 * step))], PARTITIONS, only=1)
            await asyncio.sleep(0.25)
        await one.end()
    for topic in (topics.discrepancies, topics.matches, topics.checks):
        found = [record for record in await read_all(kafka_settings, topic) if record.partition == 1]
        assert found
        assert all(is_progress(record) and record.key == b"progress" for record in found)
        times = [record.timestamp for record in found]
        gaps = [after - before for before, after in pairwise(times)]
        assert len(times) >= 3
        assert max(gaps) <= 1_000


async def test_input_that_was_deleted_unmatched_stops_with_a_clear_error(kafka_settings: KafkaSettings, topics: Topics):
    await write(kafka_settings, legs_of(300, 30), PARTITIONS)
    async with running(kafka_settings) as one:
        await one.until_committed(300)
        await one.end()
    await write(kafka_settings, legs_of(300, 30, first=300), PARTITIONS)
    client = admin(kafka_settings)
    await client.start()
    try:
        await client.delete_records({TopicPartition(topics.legs, 2): RecordsToDelete(-1)})
    finally:
        await client.close()
    async with running(kafka_settings) as two:
        with pytest.raises(InputLost, match=r"legs, partition 2: the matcher has to go on at offset \d+"):
            await asyncio.wait_for(two.task, 30)


async def test_a_full_state_stops_consuming_and_says_so(kafka_settings: KafkaSettings):
    await write(kafka_settings, legs_of(20_000, 20_000), PARTITIONS)
    async with running(kafka_settings, state_bytes_max=500_000, commit_interval_loaded_ms=20) as one:
        await one.until(lambda running: running.worker.status().halted is not None)
        status = one.worker.status()
        assert not status.ready
        assert "TIEOUT_STATE_BYTES_MAX" in status.halted
        await asyncio.sleep(0.5)
        stopped_at = one.worker.committed_records
        await asyncio.sleep(0.5)
        assert one.worker.committed_records == stopped_at < 20_000
        await one.end()
    async with running(kafka_settings) as two:
        await two.until_committed(20_000)
        await two.end()
    assert_exactly_once(await items(kafka_settings), 20_000)


async def test_the_groups_offsets_show_the_lag(kafka_settings: KafkaSettings, topics: Topics):
    await write(kafka_settings, legs_of(300, 30), PARTITIONS)
    async with running(kafka_settings) as one:
        await one.until_committed(300)
        await one.end()
        client = admin(kafka_settings)
        await client.start()
        try:
            shown = await client.list_consumer_group_offsets(settings_for(kafka_settings).matcher_group)
        finally:
            await client.close()
    assert sum(place.offset for place in shown.values()) == 300


async def test_lag_is_seen_beside_a_consumer_that_reads_nothing(kafka_settings: KafkaSettings, topics: Topics):
    ends = InputEnds(kafka_settings, topics.legs)
    asking = asyncio.create_task(ends.run(lambda: [0, 2]))
    await write(kafka_settings, [(None, tick(START_MS))] * 7, PARTITIONS, only=2)
    async with asyncio.timeout(15):
        while ends.known != {0: 0, 2: 7}:  # noqa: ASYNC110 - seen from outside
            await asyncio.sleep(0.1)
    asking.cancel()


async def test_partition_counts_that_do_not_go_together_are_one_clear_error(kafka_settings: KafkaSettings):
    other = kafka_settings.model_copy(update={"topic_prefix": f"{kafka_settings.topic_prefix}other."})
    names = Topics(other.topic_prefix)
    client = admin(other)
    await client.start()
    try:
        await client.create_topics([NewTopic(name, 2 if name == names.checks else 3, 1) for name in names.all])
        async with asyncio.timeout(30):
            while len(await partitions_of(other, *names.all)) < len(names.all):  # noqa: ASYNC110 - seen from outside
                await asyncio.sleep(0.1)
    finally:
        await client.close()
    with pytest.raises(WrongPartitions, match=r"legs 3, .*checks 2") as error:
        await check_topics(other)
    assert error.value.exit_code == 2

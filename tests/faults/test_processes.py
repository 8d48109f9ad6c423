"""Services that are killed, frozen, ended and started while a stream runs: nothing is lost, nothing doubled, and it goes on.

Each drill sends events of known outcome over HTTP through real processes on the real broker and PostgreSQL, and compares
topics, tables and webhooks with what the generator wrote down. `TIEOUT_FAULTS_SCALE=10` makes every drill ten times as
long, with as many faults more.
"""

import asyncio
import itertools
from pathlib import Path

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from shared.kafka.client import admin
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from tests.support.drill import (
    INBOX_PARTITIONS,
    PARTITIONS,
    SESSION_MS,
    TIMEOUT_S,
    TRANSACTION_MS,
    Drill,
    drill,
    scaled,
)
from tests.support.servers import Server

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.kafka,
    pytest.mark.postgres,
    pytest.mark.timeout(TIMEOUT_S),
    pytest.mark.partitions(state=PARTITIONS, inbox=INBOX_PARTITIONS),
    pytest.mark.usefixtures("real_kafka", "topics"),
]
FAILING = ["tests.faults.failing"]
PAST_TIME_OUTS_S = max(SESSION_MS, TRANSACTION_MS) / 1000 + 4
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


async def test_kill_9_of_every_service_again_and_again(kafka_settings: KafkaSettings, database_url: str) -> None:
    async def breaking(made: Drill) -> None:
        await made.until_sent(0.05)
        for name in itertools.cycle(("ingest", "matcher", "alerts")):
            if made.client.sent > 0.9 * made.events and made.faults.total() >= scaled(9):
                return
            await made.services.kill(name)
            await made.services.start(name)
            await made.recovered(f"kill -9 {name}")

    await drill("kill9", kafka_settings, database_url, breaking, seconds=60)


async def test_kill_9_at_four_fail_points_of_the_matcher(kafka_settings: KafkaSettings, database_url: str) -> None:
    """It kills itself: after the state has changed, after the records are sent, with the commit under way, after it."""
    places = itertools.cycle(("applied", "sent", "asked", "committed"))

    async def breaking(made: Drill) -> None:
        await made.until_sent(0.05)
        while made.client.sent < 0.9 * made.events or made.faults.total() < scaled(8):
            place = next(places)
            await made.services.kill("matcher")
            made.services.started["matcher"] = {"TIEOUT_TEST_DIE_AT": f"{place}:7"}
            await made.services.start("matcher")
            made.services.up.discard("matcher")
            async with asyncio.timeout(60):
                await made.services.children["matcher"].process.wait()
            made.services.started["matcher"] = {}
            await made.services.start("matcher")
            await made.recovered(place)

    await drill(
        "fail-points", kafka_settings, database_url, breaking, seconds=60, modules={"matcher": [*FAILING, "matcher"]}
    )


async def test_kill_9_while_deadlines_fire_and_nothing_arrives(
    kafka_settings: KafkaSettings, database_url: str
) -> None:
    async def breaking(made: Drill) -> None:
        await made.until_sent(1.0)
        for name in ("matcher", "ingest", "matcher", "alerts", "matcher"):
            await made.services.kill(name)
            await made.services.start(name)
            await made.recovered(f"kill -9 {name}")

    await drill("kill9-idle", kafka_settings, database_url, breaking, seconds=15)


async def test_a_matcher_that_sleeps_past_its_time_outs_is_a_zombie(
    kafka_settings: KafkaSettings, database_url: str
) -> None:
    """SIGSTOP past session and transaction time-out while a peer takes over, then SIGCONT."""
    await drill(
        "sigstop-matcher",
        kafka_settings,
        database_url,
        lambda made: _freeze_in_turn(made, ("matcher-1", "matcher-2", "matcher-1"), PAST_TIME_OUTS_S),
        seconds=75,
        names=("ingest", "matcher-1", "matcher-2", "alerts"),
    )


async def test_a_sink_that_sleeps_past_its_session_is_a_zombie(
    kafka_settings: KafkaSettings, database_url: str
) -> None:
    """The same for the sink, whose session lasts 10 s."""
    await drill(
        "sigstop-sink",
        kafka_settings,
        database_url,
        lambda made: _freeze_in_turn(made, ("alerts-1", "alerts-2", "alerts-1"), 15.0),
        seconds=75,
        names=("ingest", "matcher", "alerts-1", "alerts-2"),
    )


async def _freeze_in_turn(made: Drill, names: tuple[str, ...], seconds: float) -> None:
    await made.until_sent(0.05)
    for name in names:
        made.services.freeze(name)
        await asyncio.sleep(seconds)
        made.services.thaw(name)
        await made.recovered(f"SIGSTOP {name.partition('-')[0]} {seconds:g} s")


async def test_joins_and_leaves_in_the_middle_of_transactions(kafka_settings: KafkaSettings, database_url: str) -> None:
    """A second matcher comes and goes; what it was in the middle of goes to the first one."""

    async def breaking(made: Drill) -> None:
        await made.until_sent(0.05)
        number = 0
        while made.faults.total() < 30:
            number += 1
            name = f"matcher-{2 + number % 2}"
            await made.services.start(name, POD_NAME="")
            await made.services.ready(name)
            made.faults["join"] += 1
            # Half of them leave without a word.
            await (made.services.end(name) if number % 2 else made.services.kill(name))
            made.faults["leave"] += 1
        await made.recovered("last leave")

    await drill(
        "joins-leaves", kafka_settings, database_url, breaking, seconds=90, names=("ingest", "matcher-1", "alerts")
    )


async def test_sigterm_of_every_service_again_and_again(kafka_settings: KafkaSettings, database_url: str) -> None:
    async def breaking(made: Drill) -> None:
        await made.until_sent(0.05)
        codes = set()
        for name in itertools.cycle(("matcher", "ingest", "alerts")):
            if made.client.sent > 0.9 * made.events and made.faults.total() >= scaled(15):
                break
            codes.add(await made.services.end(name))
            await made.services.start(name)
            await made.recovered(f"SIGTERM {name}")
        assert codes <= {0, -15}, codes
        made.notes["exit codes"] = sorted(codes)

    await drill("sigterm", kafka_settings, database_url, breaking, seconds=60)


async def test_a_produce_error_inside_a_transaction(kafka_settings: KafkaSettings, database_url: str) -> None:
    await drill("produce-error", kafka_settings, database_url, lambda made: _refuse_results(made, kafka_settings))


async def _refuse_results(made: Drill, kafka: KafkaSettings) -> None:
    """The broker refuses every batch for `matches` for a while: larger than it suddenly may be."""
    await made.until_sent(0.1)
    for _ in range(5):
        await _refuse_for_a_while(kafka)
        await made.recovered("matches refused 2 s")


async def _refuse_for_a_while(kafka: KafkaSettings) -> None:
    await _limit_batches(kafka, "100")
    await asyncio.sleep(2)
    await _limit_batches(kafka, "1048588")


async def _limit_batches(kafka: KafkaSettings, limit: str) -> None:
    client = admin(kafka)
    await client.start()
    try:
        topic = Topics(kafka.topic_prefix).matches
        values = {"cleanup.policy": "delete", "max.message.bytes": limit, "retention.ms": "-1"}
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, values)])
    finally:
        await client.close()


async def test_clocks_that_are_minutes_apart(kafka_settings: KafkaSettings, database_url: str) -> None:
    """Ingest three minutes ahead, the matcher four behind, alerts five ahead; time in the log is the broker's."""
    if not FAKETIME.exists():  # noqa: ASYNC240 - before anything runs
        pytest.fail(f"NOT RUN: {FAKETIME} is missing; install it with `apt-get install faketime`")

    async def breaking(made: Drill) -> None:
        await made.until_sent(0.5)
        await made.services.kill("matcher")
        made.services.started["matcher"] = _shifted(240)
        await made.services.start("matcher")
        await made.recovered("matcher's clock from -4 to +4 minutes")
        made.faults["clock skewed by minutes"] += 3

    clocks = {"ingest": _shifted(180), "matcher": _shifted(-240), "alerts": _shifted(300)}
    await drill("clock-skew", kafka_settings, database_url, breaking, seconds=30, environments=clocks)


def _shifted(seconds: int) -> dict[str, str]:
    return {"LD_PRELOAD": str(FAKETIME), "FAKETIME": f"{seconds:+d}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


async def test_planted_without_fencing_is_found(kafka_settings: KafkaSettings, database_url: str) -> None:
    """Transactional ids of their own: the zombie that awakes goes on beside its successor."""
    found = await drill(
        "planted-no-fencing",
        kafka_settings,
        database_url,
        lambda made: _freeze_in_turn(made, ("matcher-1", "matcher-2"), SESSION_MS / 1000 + 5),
        seconds=45,
        names=("ingest", "matcher-1", "matcher-2", "alerts"),
        modules={name: [*FAILING, "matcher"] for name in ("matcher-1", "matcher-2")},
        given={"TIEOUT_TEST_PLANTED": "no-fencing", "TIEOUT_KAFKA_TRANSACTION_TIMEOUT_MS": "60000"},
        checked=False,
    )
    assert found.doubled > 0


async def test_planted_without_awaiting_sends_is_found(kafka_settings: KafkaSettings, database_url: str) -> None:
    """Results are missing; where even what tells of progress is refused, the drill never comes to its end."""

    async def breaking(made: Drill) -> None:
        await made.until_sent(0.3)
        await _refuse_for_a_while(kafka_settings)

    try:
        found = await drill(
            "planted-no-await",
            kafka_settings,
            database_url,
            breaking,
            seconds=20,
            settle_s=60,
            modules={"matcher": [*FAILING, "matcher"]},
            given={"TIEOUT_TEST_PLANTED": "no-await"},
            checked=False,
        )
    except AssertionError as error:
        assert "log time reached" in str(error)  # noqa: PT017 - one of two ways to object
    else:
        assert found.lost > 0


@pytest.fixture(autouse=True)
def _needs_a_real_broker(real_kafka: Server) -> None:
    assert real_kafka.kind != "embedded"

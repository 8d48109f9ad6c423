"""Real processes poll a provider on a local port into a real Kafka, one at a time."""

import asyncio
from pathlib import Path

import pytest

from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from tests.support.ingest import IngestProcess, prepare, read_topic, running, until
from tests.support.providers import CIRCLE_KEY, Circle

pytestmark = pytest.mark.kafka

INTERVAL_S = 10


async def test_one_of_two_processes_polls_and_the_other_takes_over(
    kafka_settings: KafkaSettings, topics: Topics, tmp_path: Path
) -> None:
    """Two with the same file: one reading; when the one that polls is killed the other goes on."""
    await prepare(kafka_settings)
    circle = Circle(["5", "7.25"])
    file = tmp_path / "pollers.yaml"
    variables = {
        "TIEOUT_POLLERS_FILE": str(file),
        "TIEOUT_POLLER_KEY__ACME__CIRCLE": CIRCLE_KEY,
        "TIEOUT_SESSION_TIMEOUT_MS": "6000",
    }

    async def readings() -> list[bytes]:
        found = [record.value for record in await read_topic(kafka_settings, topics.inbox)]
        return [value for value in found if value and b"balance.total" in value]

    async with circle.serve() as address:
        file.write_text(
            f"acme: {{circle: {{provider: circle, environment: sandbox, base_url: '{address}', "
            f"interval_s: {INTERVAL_S}}}}}"
        )
        with (
            running(kafka_settings, **variables, TIEOUT_INGEST_ROLE="poller") as one,
            running(kafka_settings, **variables, TIEOUT_INGEST_ROLE="all", TIEOUT_GROUP_INSTANCE_ID="two") as other,
        ):
            first = await until(readings)
            assert b'"12.250000"' in first[0]
            await asyncio.sleep(2 * INTERVAL_S)
            # Joining may move the turn once, which is one reading more; each polling for itself would be four.
            told = await readings()
            assert 1 <= len(told) - len(first) <= 3
            (holder,) = [one_of for one_of in (one, other) if has_turn(one_of)]
            assert "secret" not in one.log() + other.log()
            holder.kill()

            async def another() -> bool:
                return len(await readings()) > len(told)

            await until(another, timeout_s=INTERVAL_S + 30)
            left = one if holder is other else other

            async def moved() -> bool:
                # What the one that was killed had sent may have been the reading.
                return has_turn(left)

            await until(moved, timeout_s=INTERVAL_S + 30)


def has_turn(process: IngestProcess) -> bool:
    """Tell by its log whether a process has the turn."""
    log = process.log()
    return log.rfind("this process polls") > log.rfind("another process polls")

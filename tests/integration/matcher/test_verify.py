"""`tieout verify` on a real broker: holds for what the matcher made, and finds one altered record in any topic."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from aiokafka import TopicPartition

from services.matcher.adapters.results import in_json
from services.matcher.settings import MatcherSettings
from shared.kafka.client import consumer, producer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics, apply_topics, partitions_of
from tests.support.servers import Server
from tieout.bench.matcher import match_all
from tieout.bench.prepared_legs import prepared_legs, write

LEGS = 30_000
PARTITIONS = 2
COPIED = ("legs", "matcher-checkpoints", "discrepancies", "matches", "checks", "dead-letters")
Alter = Callable[[str, int, bytes], bytes | None]
"""(topic, number of the record in its partition, value) to the value to write instead; None: leave it out."""


async def matched(kafka: KafkaSettings) -> None:
    """Fill topics by a matcher that makes checkpoints and is restarted on the way."""
    await apply_topics(kafka, PARTITIONS)
    legs = list(prepared_legs(LEGS, PARTITIONS))
    half = len(legs) // 2
    settings = MatcherSettings(
        group_instance_id=None, checkpoint_interval_s=1, snapshot_chunk_bytes=100_000, commit_interval_loaded_ms=20
    )
    records = await write(kafka, Topics(kafka.topic_prefix).legs, iter(legs[:half]), PARTITIONS)
    await match_all(settings, kafka, records)
    records += await write(kafka, Topics(kafka.topic_prefix).legs, iter(legs[half:]), PARTITIONS)
    await match_all(settings, kafka, records)


def verify(kafka: KafkaSettings, *options: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {
        "TIEOUT_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "TIEOUT_KAFKA_TOPIC_PREFIX": kafka.topic_prefix,
    }
    command = [sys.executable, "-m", "tieout", "verify", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=120)


def make_keys(key: Path, public: Path) -> None:
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)


async def copied(kafka: KafkaSettings, prefix: str, alter: Alter) -> KafkaSettings:
    """A copy of the topics under another prefix; legs keep their offsets, which results and checkpoints speak of."""
    copy = kafka.model_copy(update={"topic_prefix": prefix})
    await apply_topics(copy, PARTITIONS)
    reader, writer = consumer(kafka, auto_offset_reset="earliest"), producer(copy)
    await reader.start()
    await writer.start()
    try:
        for name in COPIED:
            topic = f"{kafka.topic_prefix}{name}"
            for number in range((await partitions_of(kafka, topic))[topic]):
                place = TopicPartition(topic, number)
                reader.assign([place])
                end = (await reader.end_offsets([place]))[place]
                await reader.seek_to_beginning(place)
                count = 0
                while await reader.position(place) < end:
                    for record in (await reader.getmany(place, timeout_ms=200)).get(place, ()):
                        value = alter(name, count, record.value)
                        count += 1
                        if value is not None:
                            await writer.send(
                                f"{prefix}{name}", value, record.key, number, headers=list(record.headers)
                            )
        await writer.flush()
    finally:
        await reader.stop()
        await writer.stop()
    return copy


def once(topic: str, number: int, change: Callable[[bytes], bytes | None]) -> Alter:
    """Alter one record of partition 0."""
    done: list[bool] = []

    def alter(name: str, count: int, value: bytes) -> bytes | None:
        if name != topic or count != number or done:
            return value
        done.append(True)
        return change(value)

    return alter


async def test_what_the_matcher_made_holds_and_a_statement_says_so(
    real_kafka: Server, kafka_settings: KafkaSettings, tmp_path: Path
) -> None:
    """Every result and checkpoint is compared; the statement is signed, and a changed one is refused."""
    key, public, statement = tmp_path / "key.pem", tmp_path / "public.pem", tmp_path / "statement.json"
    make_keys(key, public)
    await matched(kafka_settings)

    told = await asyncio.to_thread(verify, kafka_settings, "--statement", str(statement), "--sign-with", str(key))

    assert told.returncode == 0, told.stdout + told.stderr
    found = json.loads(statement.read_text())
    assert found["verdict"] == "verified"
    assert sum(one["legs"] for one in found["partitions"]) >= LEGS
    assert all(one["results"]["matches"] > 8_000 // PARTITIONS for one in found["partitions"])
    assert all(len(one["checkpoints"]) >= 1 for one in found["partitions"])
    checked = await asyncio.to_thread(verify, kafka_settings, "--check", str(statement), "--public-key", str(public))
    assert (checked.returncode, "unchanged" in checked.stdout) == (0, True), checked.stderr
    statement.write_text(statement.read_text().replace('"verified"', '"perfect"'))
    refused = await asyncio.to_thread(verify, kafka_settings, "--check", str(statement), "--public-key", str(public))
    assert (refused.returncode, "changed after it was signed" in refused.stderr) == (2, True)

    later = await asyncio.to_thread(verify, kafka_settings, "--json", "--from", "2027-01-01T00:00:00Z")

    assert later.returncode == 0, later.stdout + later.stderr
    assert all(one["first"] > 0 for one in json.loads(later.stdout)["partitions"])

    # A running matcher is always a little behind: what it has not committed yet is not missing.
    await write(
        kafka_settings, Topics(kafka_settings.topic_prefix).legs, prepared_legs(1_000, PARTITIONS, 8), PARTITIONS
    )
    behind = await asyncio.to_thread(verify, kafka_settings)
    assert behind.returncode == 0, behind.stdout + behind.stderr
    assert behind.stdout.count("the matcher has not come so far yet") == PARTITIONS
    assert f"of {sum(one['legs'] for one in found['partitions']):,} legs" in behind.stdout


ALTERATIONS: list[tuple[str, int, Callable[[bytes], bytes | None], str]] = [
    ("legs", 6_000, lambda value: value.replace(b"EUR", b"USD", 1), "altered"),
    ("discrepancies", 20, lambda value: value.replace(b'"severity":"', b'"severity":"x', 1), "altered"),
    ("discrepancies", 20, lambda _: None, "missing"),
    ("matches", 20, lambda value: value.replace(b"succeeded", b"Succeeded", 1), "altered"),
    ("matches", 20, lambda value: in_json(value).replace(b"succeeded", b"Succeeded", 1), "altered"),
    ("matches", 20, lambda _: None, "missing"),
    ("matcher-checkpoints", 0, lambda value: value.replace(b"evt_ledger", b"evt_ledgeR", 1), "state"),
]


async def test_one_altered_record_is_found_in_a_copy_of_the_topics(
    real_kafka: Server, kafka_settings: KafkaSettings
) -> None:
    """The faithful copy holds, so it is the altered record that is found and not the copying."""
    await matched(kafka_settings)

    faithful = await copied(kafka_settings, f"{kafka_settings.topic_prefix}copy.", lambda _topic, _count, value: value)
    told = await asyncio.to_thread(verify, faithful)
    assert told.returncode == 0, told.stdout + told.stderr

    def rewritten(topic: str, _count: int, value: bytes) -> bytes:
        return in_json(value) if topic == "matches" else value

    as_json = await copied(kafka_settings, f"{kafka_settings.topic_prefix}json.", rewritten)
    told = await asyncio.to_thread(verify, as_json)
    assert told.returncode == 0, "pairs published as JSON (matches_as_json): " + told.stdout + told.stderr

    for number, (topic, record, change, says) in enumerate(ALTERATIONS):
        altered = await copied(
            kafka_settings, f"{kafka_settings.topic_prefix}copy{number}.", once(topic, record, change)
        )
        told = await asyncio.to_thread(verify, altered)
        assert (told.returncode, f"  {says}: " in told.stdout) == (1, True), (topic, told.stdout + told.stderr)
        assert "FAILED" in told.stdout

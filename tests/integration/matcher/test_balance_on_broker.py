"""An account of a `balance` rule on a real broker: pages and head come back after a restart, and nothing is said twice."""

from typing import Any

import msgspec

from services.matcher.domain.core import Core
from services.matcher.settings import MatcherSettings
from shared.contracts.discrepancy import Check, Discrepancy
from shared.contracts.leg import encode_leg_record
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics, apply_topics
from tests.support.laws import drive
from tests.support.offline import LogEntry, log_of
from tests.support.servers import Server
from tests.support.topic_log import all_records, is_progress
from tieout.bench.matcher import match_all
from tieout.bench.prepared_legs import write

MOVEMENTS = 600
RULE: dict[str, Any] = {
    "name": "stack.circle_balance",
    "kind": "balance",
    "movements": {"source": "ledger", "type": ["movement.*"]},
    "snapshots": {"source": "circle", "type": ["balance.*"]},
    "key": "account",
    "settle": "5m",
}


def at(minute: int) -> str:
    return f"2026-11-20T{minute // 60:02}:{minute % 60:02}:00Z"


def event(id_: str, minute: int, amount: str, **fields: Any) -> dict[str, Any]:
    return {
        "org": "acme", "source": "ledger", "type": "movement.posted", "id": id_, "account": "w1", "currency": "EUR",
        "amount": amount, "occurred_at": at(minute), "received_at": at(minute),
    } | fields  # fmt: skip


def reading(id_: str, minute: int, amount: str) -> dict[str, Any]:
    return event(id_, minute, amount, source="circle", type="balance.read")


def story() -> list[LogEntry]:
    """A drift that a late movement halves and another one ends, with the restart between them."""
    events = [reading("s0", 0, "100.00")]
    events += [event(f"m{number}", 1 + number // 10, "1.00") for number in range(MOVEMENTS)]
    events += [reading("s1", 70, "702.00"), event("n1", 60, "1.00", received_at=at(80))]
    events += [event("n2", 60, "1.00", received_at=at(90)), reading("s2", 100, "701.00")]
    return log_of([RULE], events, at(120))


async def results(kafka: KafkaSettings, topic: str) -> list[bytes]:
    """What is committed in a topic, progress left out."""
    return [record.value for record in await all_records(kafka, topic) if not is_progress(record)]


async def test_an_account_survives_a_restart_and_says_everything_once(
    real_kafka: Server,
    kafka_settings: KafkaSettings,
) -> None:
    """What is published is what the pure core makes of the log, to the last field but the places of its ticks."""
    log = story()
    legs = [(0, group or None, encode_leg_record(record)) for group, record in log]
    half = next(place for place, (_, record) in enumerate(log) if getattr(record, "id", None) == "n2")
    topics = Topics(kafka_settings.topic_prefix)
    settings = MatcherSettings(group_instance_id=None, checkpoint_interval_s=1, snapshot_chunk_bytes=10_000)
    await apply_topics(kafka_settings, 1)

    records = await write(kafka_settings, topics.legs, iter(legs[:half]), 1)
    await match_all(settings, kafka_settings, records)
    records += await write(kafka_settings, topics.legs, iter(legs[half:]), 1)
    await match_all(settings, kafka_settings, records)

    made = drive(Core(0), log)
    told = [msgspec.json.decode(one, type=Discrepancy) for one in await results(kafka_settings, topics.discrepancies)]
    checks = [msgspec.json.decode(one, type=Check) for one in await results(kafka_settings, topics.checks)]
    assert told == made.discrepancies
    assert checks == [check for _, check in made.checks]
    assert [(one.state, one.difference, one.resolution) for one in told] == [
        ("raised", "2.00", None),
        ("raised", "1.00", None),
        ("resolved", "1.00", "late_arrival"),
        ("raised", "-1.00", None),
    ]

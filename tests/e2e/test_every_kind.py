"""Goal: rules of every kind find on the running system what they must, heal, are stored, and can be verified.

Method: real processes of ingest, matcher and alerts on Kafka and PostgreSQL, one pack with a rule of each kind and
deadlines of a second; then `tieout verify` over the very topics.
"""

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.alerts.adapters.database import Database
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from shared.rules.load import validate_rules
from tests.support.planted import Event
from tests.support.producer_client import ProducerClient
from tests.support.servers import Server
from tests.support.services import ORG, SECRET, prepared
from tests.support.stored_rows import contain, rows

DIRECTION = {"by": "attrs.direction", "credit": 1, "debit": -1}
RULES: list[dict[str, Any]] = [
    {
        "name": "stack.ledger_consistency",
        "kind": "zero_sum",
        "entries": {"source": "ledger", "type": ["entry.*"], "sign": DIRECTION},
        "key": "refs.transaction",
        "complete": {"count": "attrs.entries"},
        "deadline": "1s",
    },
    {
        "name": "stack.circle_balance",
        "kind": "balance",
        "movements": {"source": "ledger", "type": ["movement.*"]},
        "snapshots": {"source": "circle", "type": ["balance.*"]},
        "key": "account",
        "opening": "snapshot",
        "tolerance": "0.01",
        "settle": "0s",
    },
    {
        "name": "bots.state",
        "kind": "invariant",
        "snapshots": {"source": "bot", "type": ["snapshot.*"]},
        "key": "account",
        "checks": [{"code": "base_pct_out_of_range", "field": "attrs.base_pct", "min": "0", "max": "1"}],
    },
    {
        "name": "bank.statement",
        "kind": "match",
        "partition_by": ["currency"],
        "sides": {
            "invoices": {"source": "ledger", "type": ["invoice.*"]},
            "bank": {"source": "bank", "type": ["payment.*"]},
        },
        "score": {"reference": {"fields": {"invoices": "refs.invoice", "bank": "attrs.text"}}},
        "decide_after": "1s",
        "deadline": "3s",
    },
]
FOUND = """
SELECT rule, type, key #>> '{}', currency, expected, actual, state, cause FROM discrepancies WHERE rule <> 'bank.statement'"""
CHECKS = "SELECT DISTINCT rule, key #>> '{}', code, result, actual FROM checks"
BANK = "SELECT status, confidence IS NOT NULL FROM items WHERE rule = 'bank.statement'"
UNPAID = "SELECT type, expected, actual FROM discrepancies WHERE rule = 'bank.statement' AND state = 'raised'"

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.partitions(state=3, inbox=2)]


def event(source: str, type_: str, id_: str, seconds_ago: float = 60, **fields: Any) -> Event:
    occurred = (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat()
    body = {"source": source, "type": type_, "id": id_, "occurred_at": occurred, "currency": "EUR", **fields}
    return Event(0.0, "ledger", source, id_, body)


def entry(id_: str, transaction: str, amount: str, direction: str) -> Event:
    attrs = {"direction": direction, "entries": "2"}
    return event("ledger", "entry.posted", id_, amount=amount, attrs=attrs, refs={"transaction": transaction})


FIRST = [
    entry("e1", "t1", "100.00", "debit"),
    entry("e2", "t1", "100.00", "credit"),
    entry("e3", "t2", "100.00", "debit"),
    entry("e4", "t2", "90.00", "credit"),
    entry("e5", "t3", "50.00", "debit"),
    event("circle", "balance.read", "b1", 600, account="w1", amount="100.00"),
    event("ledger", "movement.posted", "m1", 300, account="w1", amount="5.00"),
    event("bot", "snapshot.state", "s1", account="bot1", currency=None, attrs={"base_pct": "1.2"}),
    event("bot", "snapshot.state", "s2", account="bot2", currency=None, attrs={"base_pct": "n/a"}),
    event("ledger", "invoice.sent", "i1", 3000, amount="250.00", refs={"invoice": "INV-2026-0017"}),
    event("bank", "payment.credited", "l1", 60, amount="250.00", attrs={"text": "INV 2026-0017 thank you"}),
    event("ledger", "invoice.sent", "i2", 3000, amount="80.00", refs={"invoice": "INV-2026-0099"}),
]
SECOND = [event("circle", "balance.read", "b2", 30, account="w1", amount="103.00")]
HEALING = [
    entry("e6", "t3", "50.00", "credit"),
    event("circle", "balance.read", "b3", 5, account="w1", amount="105.00"),
    event("bot", "snapshot.state", "s3", 5, account="bot1", currency=None, attrs={"base_pct": "0.5"}),
]


def plain(events: list[Event]) -> list[Event]:
    """Without the fields that are null: the contract has no null currency."""
    return [one._replace(body={name: value for name, value in one.body.items() if value is not None}) for one in events]


async def test_rules_of_every_kind_find_heal_and_are_verified(
    real_kafka: Server, kafka_settings: KafkaSettings, topics: Topics, database_url: str
) -> None:
    """From the posted event to the stored row, and back when the records agree again."""
    rules = validate_rules({"version": 1, "pack": "all", "rules": RULES})
    async with prepared(kafka_settings, database_url, rules) as services:
        for name in ("ingest", "matcher", "alerts"):
            await services.start(name)
        await services.ready("ingest", "matcher", "alerts")
        database = Database(database_url)
        async with ProducerClient(services.url("ingest"), ORG, services.keys["ingest"], SECRET) as client:
            await client.send(plain(FIRST))
            await contain(database, CHECKS, {("stack.circle_balance", "w1", None, "opening", "100.00")})
            await client.send(plain(SECOND))
            await contain(
                database,
                FOUND,
                {
                    (
                        "stack.ledger_consistency",
                        "LedgerImbalance",
                        "t2",
                        "EUR",
                        "0.00",
                        "-10.00",
                        "raised",
                        "unbalanced",
                    ),
                    (
                        "stack.ledger_consistency",
                        "LedgerImbalance",
                        "t3",
                        "EUR",
                        "0.00",
                        "-50.00",
                        "raised",
                        "incomplete",
                    ),
                    ("stack.circle_balance", "BalanceMismatch", "w1", "EUR", "105.00", "103.00", "raised", None),
                    ("bots.state", "base_pct_out_of_range", "bot1", None, "1", "1.2", "raised", None),
                },
            )
            await contain(
                database,
                CHECKS,
                {
                    ("stack.ledger_consistency", "t1", None, "passed", "0.00"),
                    ("bots.state", "bot2", "base_pct_out_of_range", "error", None),
                },
            )
            await contain(database, BANK, {("matched", True), ("discrepant", False)})
            assert await rows(database, UNPAID) == {("MissingRecord", "80.00", None)}
            await client.send(plain(HEALING))
            await contain(
                database,
                FOUND,
                {
                    (
                        "stack.ledger_consistency",
                        "LedgerImbalance",
                        "t3",
                        "EUR",
                        "0.00",
                        "-50.00",
                        "resolved",
                        "incomplete",
                    ),
                    ("stack.circle_balance", "BalanceMismatch", "w1", "EUR", "105.00", "103.00", "resolved", None),
                    ("bots.state", "base_pct_out_of_range", "bot1", None, "1", "1.2", "resolved", None),
                },
            )
        await database.close()
    told = await asyncio.to_thread(verify, kafka_settings)
    assert told.returncode == 0, told.stdout + told.stderr


def verify(kafka: KafkaSettings) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "TIEOUT_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "TIEOUT_KAFKA_TOPIC_PREFIX": kafka.topic_prefix,
    }
    command = [sys.executable, "-m", "tieout", "verify"]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)

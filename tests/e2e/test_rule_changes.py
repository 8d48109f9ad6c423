"""Goal: rules change while 2,000 events a second come in, and nothing is stuck, lost or doubled.

Method: a stream of known outcome (`tests/support/planted.py`) goes over HTTP through ingest, matcher and alerts as three
real processes. While it runs, a rule is changed in place, a shadow rule is added, and a rule is given another shape and
derived anew, with `kill -9` of ingest in the middle of that. What stands on the topics, in PostgreSQL and at a receiver
of webhooks in the end is compared with the outcome that the generator wrote down.

`TIEOUT_TEST_RULES_EVENTS=240000 TIEOUT_TEST_RULES_EVENTS_PER_SECOND=2000 pytest tests/e2e/test_rule_changes.py -s`
is the same for two minutes.
"""

import asyncio
import os
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import aiohttp
import pytest
from sqlalchemy import text

from services.alerts.adapters.database import EVERY_ORG, Database
from shared.contracts.discrepancy import Discrepancy
from shared.contracts.item import Item
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from shared.rules.load import validate_rules
from shared.rules.model import RuleFile
from tests.support.planted import PAYMENTS, Open, Plan, plan, requests
from tests.support.producer_client import ProducerClient
from tests.support.servers import Server
from tests.support.services import ORG, SECRET, Services, prepared, short_rules
from tests.support.topic_log import inbox_events, results_past
from tests.support.webhook_receiver import Receiver
from tieout.rules_topic import Again, apply_rules, read_rules_topic

EVENTS = int(os.environ.get("TIEOUT_TEST_RULES_EVENTS", "8000"))
EVENTS_PER_SECOND = float(os.environ.get("TIEOUT_TEST_RULES_EVENTS_PER_SECOND", "800"))
WEBHOOKS = EVENTS // 25
ROWS_PER_REQUEST = 100
DEADLINE_S = 10.0
SETTLE_TIMEOUT_S = DEADLINE_S + 120.0
DERIVED_TIMEOUT_S = 120.0
SHADE = "billing.shade"

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.postgres, pytest.mark.partitions(state=4, inbox=2)]


def changed(file: RuleFile, name: str, **fields: Any) -> RuleFile:
    """The rules with `fields` laid over the rule `name`."""
    plain = file.model_dump(mode="json", exclude_defaults=True)
    rules = [rule | fields if rule["name"] == name else rule for rule in plain["rules"]]
    return validate_rules({"version": 1, "pack": file.pack, "rules": rules})


def with_shade(file: RuleFile) -> RuleFile:
    """The rules and a shadow that would find something wrong with everything that is later than 1 ms."""
    plain = file.model_dump(mode="json", exclude_defaults=True)
    payments = next(rule for rule in plain["rules"] if rule["name"] == PAYMENTS)
    shade = payments | {"name": SHADE, "deadline": "1ms", "shadow": True}
    return validate_rules({"version": 1, "pack": file.pack, "rules": [*plain["rules"], shade]})


def reshaped(file: RuleFile) -> RuleFile:
    """The same payments, selected in other words: legs and groups of the old words mean nothing to it."""
    sides = {
        "internal": {"source": "ledger", "type": ["payment.noted"]},
        "provider": {"source": "stripe", "type": ["payment.*"]},
    }
    return changed(file, PAYMENTS, sides=sides)


@pytest.mark.timeout(600)
async def test_rules_change_under_a_stream_and_the_outcome_is_the_planned_one(
    real_kafka: Server, kafka_settings: KafkaSettings, topics: Topics, database_url: str
) -> None:
    planned = plan(EVENTS, WEBHOOKS)
    rules = short_rules(DEADLINE_S)
    many = {"TIEOUT_WEBHOOKS_PER_MINUTE_MAX": "1000000"}
    async with Receiver() as receiver, prepared(kafka_settings, database_url, rules, **many) as services:
        for name in ("ingest", "matcher", "alerts"):
            await services.start(name)
        await services.ready("ingest", "matcher", "alerts")
        await _register(services, receiver)
        client = ProducerClient(services.url("ingest"), ORG, services.keys["ingest"], SECRET, repeat_every=40)
        async with client, asyncio.TaskGroup() as tasks:
            changing = tasks.create_task(_change_rules(kafka_settings, services, client, rules, len(planned.events)))
            await client.send_all(requests(planned.events, ROWS_PER_REQUEST), per_second=EVENTS_PER_SECOND)
            await changing
        assert client.acknowledged == {(event.source, event.id) for event in planned.events}
        inbox, last_ms = await inbox_events(kafka_settings, topics.inbox)
        assert client.acknowledged - inbox == set()
        until = datetime.fromtimestamp(last_ms / 1000, UTC) + timedelta(seconds=DEADLINE_S + 1)
        found = await results_past(kafka_settings, topics.discrepancies, Discrepancy, until, SETTLE_TIMEOUT_S)
        items = await results_past(kafka_settings, topics.matches, Item, until, SETTLE_TIMEOUT_S)
        database = Database(database_url)
        try:
            await _check_tables(database, planned, until)
        finally:
            await database.close()
        _check_topics(planned, [one for _, one in found], [one for _, one in items])
        _check_webhooks([one for _, one in found], receiver)


async def _register(services: Services, receiver: Receiver) -> None:
    headers = {"Authorization": f"Bearer {services.keys['owner']}"}
    url = f"{services.url('alerts')}/v1/webhooks/endpoints"
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(url, json={"url": receiver.url("/tieout")}) as answer,
    ):
        body = await answer.json()
        assert answer.status == 201, body
        receiver.secrets["/tieout"] = body["secret"]


async def _change_rules(
    kafka: KafkaSettings, services: Services, client: ProducerClient, rules: RuleFile, total: int
) -> None:
    async def sent(part: float) -> None:
        while client.sent < part * total:  # noqa: ASYNC110 - the stream is watched from outside
            await asyncio.sleep(0.02)

    await sent(0.2)
    severe = changed(rules, PAYMENTS, severity={"default": "critical"})
    assert (await apply_rules(kafka, severe, ORG, "test")).lines[0] == f"~ {PAYMENTS}: severity changed"
    await sent(0.3)
    shaded = with_shade(severe)
    assert f"+ {SHADE}: new (shadow" in "\n".join((await apply_rules(kafka, shaded, ORG, "test")).lines)
    await sent(0.5)
    last = reshaped(shaded)
    applied = await apply_rules(kafka, last, ORG, "test", Again())
    assert applied.derivations == {PAYMENTS: 1}
    await asyncio.sleep(0.5)
    await services.kill("ingest")
    await services.start("ingest")
    async with asyncio.timeout(DERIVED_TIMEOUT_S):
        while (await read_rules_topic(kafka, ORG)).derived != {("billing", PAYMENTS): 1}:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.5)


# ---- checks


def _open_of(last: list[Discrepancy]) -> Counter[Open]:
    return Counter(
        Open(d.rule, str(d.key), d.type, str(d.side), d.duplicate, d.expected, d.actual, d.difference, d.currency)
        for d in last
        if d.state == "raised" and not d.shadow
    )


def _check_topics(planned: Plan, found: list[Discrepancy], items: list[Item]) -> None:
    by_id: dict[str, list[Discrepancy]] = defaultdict(list)
    for one in found:
        by_id[one.id].append(one)
    for revisions in by_id.values():
        # A derivation starts a discrepancy anew: its revisions count from 1 again.
        numbers = [one.revision for one in revisions]
        assert numbers[0] == 1
        assert all(after in (before + 1, 1) for before, after in pairwise(numbers)), numbers
    last = [revisions[-1] for revisions in by_id.values()]
    open_now, expected = _open_of(last), Counter(planned.open)
    assert (list((expected - open_now).elements()), list((open_now - expected).elements())) == ([], [])
    shades = [one for one in last if one.rule == SHADE]
    assert shades
    assert all(one.shadow for one in shades)
    closed = [one for one in found if one.resolution == "rule_changed"]
    assert {one.rule for one in closed} <= {PAYMENTS}
    assert {one.severity for one in last if one.state == "raised" and one.rule == PAYMENTS} == {"critical"}
    by_item: dict[str, Item] = {item.id: item for item in items if item.rule != SHADE}
    standing = {(item.rule, str(item.key)): item for item in by_item.values() if item.live or item.discrepancies}
    assert {name: item.status for name, item in standing.items()} == planned.status
    assert {item.shadow for item in standing.values()} == {False}


async def _check_tables(database: Database, planned: Plan, until: datetime) -> None:
    async def rows(query: str, **values: Any) -> list[dict[str, Any]]:
        async with database.transaction(EVERY_ORG) as connection:
            return [dict(row) for row in (await connection.execute(text(query), values)).mappings()]

    late = (
        "SELECT topic FROM progress WHERE topic IN ('discrepancies', 'matches') AND log_time > :until "
        "UNION ALL SELECT 'outbox' FROM outbox WHERE state = 'pending' HAVING count(*) = 0"
    )
    async with asyncio.timeout(SETTLE_TIMEOUT_S):
        while len(await rows(late, until=until)) < 9:  # noqa: ASYNC110 - other processes write the rows
            await asyncio.sleep(0.5)
    open_rows = Counter(
        (row["rule"], str(row["key"]), row["type"], row["side"], row["duplicate"])
        for row in await rows("SELECT * FROM discrepancies WHERE state = 'raised' AND status = 'open' AND NOT shadow")
    )
    assert open_rows == Counter(tuple(one)[:5] for one in planned.open)
    # What the derivation closed stands there emptied, and counts in nothing.
    items = await rows("SELECT rule, key, status FROM items WHERE NOT shadow AND (live OR discrepancies <> '[]')")
    assert {(row["rule"], str(row["key"])): row["status"] for row in items} == planned.status
    assert len(items) == len(planned.status)
    twice = "SELECT record_id FROM item_records WHERE live GROUP BY record_id HAVING count(*) > 1"
    assert await rows(twice) == []


def _check_webhooks(found: list[Discrepancy], receiver: Receiver) -> None:
    told = [taken.body["data"] for taken in receiver.taken if taken.body["type"] != "endpoint.test"]
    assert {one["rule"] for one in told} & {SHADE} == set()
    last: dict[str, Discrepancy] = {one.id: one for one in found}
    raised = {one.id for one in last.values() if one.state == "raised" and not one.shadow}
    heard = {one["id"] for one in told}
    assert raised - heard == set()

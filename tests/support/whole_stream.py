"""A stream of known outcome through all services while something breaks, and what must stand everywhere afterwards.

What stands on the topics, in PostgreSQL and at a receiver of webhooks is compared with the outcome that the generator
wrote down (`planted.py`), which knows nothing of the product's code.
"""

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import aiohttp
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from shared.contracts.discrepancy import Discrepancy
from shared.contracts.item import Item, totals_of
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from tests.support.planted import Open, Plan, amount, requests
from tests.support.producer_client import ProducerClient
from tests.support.services import ORG, SECRET, Services
from tests.support.topic_log import inbox_events, results_past
from tests.support.webhook_receiver import Receiver

ROWS_PER_REQUEST = 100
RECEIVER_PATH = "/tieout"


@dataclass
class Run:
    """One run of the stream and what was seen of it."""

    planned: Plan
    acknowledged: set[tuple[str, str]] = field(default_factory=set)
    kills: list[str] = field(default_factory=list)
    sent_s: float = 0.0
    retries: int = 0
    repeats: int = 0


Breaking = Callable[[Services, ProducerClient, int], Awaitable[None]]
"""Breaks things while the stream runs; gets its length."""


async def register(services: Services, receiver: Receiver, port: int | None = None) -> None:
    """Have the receiver told of everything, on `port` where something stands before it."""
    headers = {"Authorization": f"Bearer {services.keys['owner']}"}
    url = f"{services.url(_first(services, 'alerts'))}/v1/webhooks/endpoints"
    address = receiver.url(RECEIVER_PATH).replace(f":{receiver.port}/", f":{port or receiver.port}/")
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(url, json={"url": address}) as answer,
    ):
        body = await answer.json()
        assert answer.status == 201, body
        receiver.secrets[RECEIVER_PATH] = body["secret"]


def _first(services: Services, service: str) -> str:
    return next(name for name in services.children if name.startswith(service))


async def send(run: Run, services: Services, per_second: float, breaking: Breaking) -> None:
    """Send the whole stream while `breaking` does its work, and wait for both."""
    begun = time.monotonic()
    client = ProducerClient(
        services.url(_first(services, "ingest")),
        ORG,
        services.keys["ingest"],
        SECRET,
        repeat_every=40,
        impatient_every=61,
    )
    async with client, asyncio.TaskGroup() as tasks:
        tasks.create_task(_broken(breaking, services, client, len(run.planned.events)))
        await client.send_all(requests(run.planned.events, ROWS_PER_REQUEST), per_second=per_second)
        run.sent_s = time.monotonic() - begun
    run.acknowledged, run.retries, run.repeats = client.acknowledged, client.retries, client.repeats


async def _broken(breaking: Breaking, services: Services, client: ProducerClient, total: int) -> None:
    await breaking(services, client, total)


@dataclass
class End:
    """What stands everywhere when log time is past the last deadline."""

    inbox: set[tuple[str, str]]
    found: list[tuple[int, Discrepancy]]
    items: list[tuple[int, Item]]
    tables: "Tables"


async def end_of(
    kafka: KafkaSettings, database_url: str, deadline_s: float, settle_timeout_s: float, partitions: int
) -> End:
    """Wait for the end of the stream, everywhere, and read it."""
    topics = Topics(kafka.topic_prefix)
    inbox, last_ms = await inbox_events(kafka, topics.inbox)
    until = datetime.fromtimestamp(last_ms / 1000, UTC) + timedelta(seconds=deadline_s + 1)
    found = await results_past(kafka, topics.discrepancies, Discrepancy, until, settle_timeout_s)
    items = await results_past(kafka, topics.matches, Item, until, settle_timeout_s)
    return End(inbox, found, items, await stored(database_url, until, settle_timeout_s, 2 * partitions))


def check(run: Run, end: End, receiver: Receiver) -> None:
    """Everything that was acknowledged is judged right, once, everywhere."""
    assert run.acknowledged == {(event.source, event.id) for event in run.planned.events}
    assert run.acknowledged - end.inbox == set()
    _check_discrepancies(run.planned, end.found)
    _check_items(run.planned, end.items)
    _check_tables(run.planned, end.found, end.items, end.tables)
    _check_webhooks(end.found, receiver)


# ---- what is stored


@dataclass
class Tables:
    """Rows of PostgreSQL."""

    discrepancies: list[dict[str, Any]]
    revisions: list[dict[str, Any]]
    items: list[dict[str, Any]]
    item_revisions: int
    actions: list[dict[str, Any]]
    outbox: Counter[str]


async def stored(url: str, until: datetime, timeout_s: float, places: int) -> Tables:
    """Return the rows once the sink has stored everything up to `until` and every webhook is delivered."""
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:

            async def rows(query: str, **values: Any) -> list[dict[str, Any]]:
                found = [dict(row) for row in (await connection.execute(text(query), values)).mappings()]
                await connection.rollback()
                return found

            late = (
                "SELECT topic, partition, log_time FROM progress "
                "WHERE topic IN ('discrepancies', 'matches') AND log_time > :until"
            )
            waiting = "SELECT id FROM outbox WHERE state = 'pending'"
            try:
                async with asyncio.timeout(timeout_s):
                    while len(await rows(late, until=until)) < places or await rows(waiting):  # noqa: ASYNC110 - as above
                        await asyncio.sleep(0.5)
            except TimeoutError:
                progress = await rows("SELECT topic, partition, log_time FROM progress")
                pending = len(await rows(waiting))
                raise AssertionError(f"not stored until {until}: {progress}; {pending} webhooks pending") from None
            return Tables(
                await rows("SELECT * FROM discrepancies"),
                await rows("SELECT id, revision, state FROM discrepancy_revisions ORDER BY id, revision"),
                await rows("SELECT * FROM items"),
                len(await rows("SELECT id FROM item_revisions UNION ALL SELECT id FROM items")),
                await rows("SELECT discrepancy_id, revision, action FROM action_log"),
                Counter(row["state"] for row in await rows("SELECT state FROM outbox")),
            )
    finally:
        await engine.dispose()


# ---- checks


def opened_and_expected(run: Run, end: End) -> tuple[Counter[Open], Counter[Open]]:
    """What is open at the end, and what has to be."""
    return _open_of(revisions[-1] for revisions in _revisions(end.found).values()), Counter(run.planned.open)


def _open_of(last: Iterable[Discrepancy]) -> Counter[Open]:
    return Counter(
        Open(d.rule, str(d.key), d.type, str(d.side), d.duplicate, d.expected, d.actual, d.difference, d.currency)
        for d in last
        if d.state == "raised"
    )


def _revisions(found: list[tuple[int, Discrepancy]]) -> dict[str, list[Discrepancy]]:
    by_id: dict[str, list[Discrepancy]] = defaultdict(list)
    for _, discrepancy in found:
        by_id[discrepancy.id].append(discrepancy)
    return by_id


def _check_discrepancies(planned: Plan, found: list[tuple[int, Discrepancy]]) -> None:
    by_id = _revisions(found)
    gaps = {
        id_: [d.revision for d in revisions]
        for id_, revisions in by_id.items()
        if [d.revision for d in revisions] != list(range(1, len(revisions) + 1))
    }
    assert gaps == {}
    named = Counter((r[0].rule, str(r[0].key), r[0].type, r[0].side, r[0].duplicate) for r in by_id.values())
    assert {name: count for name, count in named.items() if count > 1} == {}
    open_now = _open_of(revisions[-1] for revisions in by_id.values())
    expected = Counter(planned.open)
    assert (list((expected - open_now).elements()), list((open_now - expected).elements())) == ([], [])


def _check_items(planned: Plan, items: list[tuple[int, Item]]) -> None:
    by_id: dict[str, list[Item]] = defaultdict(list)
    for _, item in items:
        by_id[item.id].append(item)
    for revisions in by_id.values():
        assert [item.revision for item in revisions] == list(range(1, len(revisions) + 1))
    last = [revisions[-1] for revisions in by_id.values()]
    assert len({(item.rule, str(item.key)) for item in last}) == len(last)
    status = {(item.rule, str(item.key)): item.status for item in last}
    wrong = {name: (planned.status.get(name), status.get(name)) for name in planned.status.keys() | status.keys()}
    assert {name: pair for name, pair in wrong.items() if pair[0] != pair[1]} == {}
    totals: dict[tuple[str, str, str], int] = defaultdict(int)
    for item in last:
        for side, held in item.sides.items():
            for currency, total in (totals_of(held) if held else {}).items():
                totals[item.rule, side, currency] += _minor(total.amount, currency)
    assert {place: total for place, total in totals.items() if total} == dict(planned.totals)


def _minor(text_: str, currency: str) -> int:
    minor = int(text_.replace(".", ""))
    assert amount(minor, currency) == text_
    return minor


def _check_tables(
    planned: Plan, found: list[tuple[int, Discrepancy]], items: list[tuple[int, Item]], tables: Tables
) -> None:
    by_id = _revisions(found)
    rows = {str(row["id"]): row for row in tables.discrepancies}
    assert rows.keys() == by_id.keys()
    for id_, row in rows.items():
        last = by_id[id_][-1]
        assert (row["revision"], row["state"], row["expected"], row["actual"]) == (
            last.revision,
            last.state,
            last.expected,
            last.actual,
        )
        assert row["status"] == ("open" if last.state == "raised" else "resolved")
    open_rows = Counter(
        (row["rule"], str(row["key"]), row["type"], row["side"], row["duplicate"])
        for row in rows.values()
        if row["state"] == "raised"
    )
    assert open_rows == Counter(tuple(one)[:5] for one in planned.open)
    stored = [(str(row["id"]), row["revision"]) for row in tables.revisions]
    assert Counter(stored) == Counter((d.id, d.revision) for _, d in found)
    assert {(row["rule"], str(row["key"])): row["status"] for row in tables.items} == planned.status
    assert len(tables.items) == len(planned.status)
    assert tables.item_revisions == len(items)
    assert _actions(tables) == _expected_actions(by_id)


def _actions(tables: Tables) -> Counter[tuple[str, int, str]]:
    return Counter((str(row["discrepancy_id"]), row["revision"], row["action"]) for row in tables.actions)


def _expected_actions(by_id: dict[str, list[Discrepancy]]) -> Counter[tuple[str, int, str]]:
    """One line whenever the state changes after the first raise."""
    expected: Counter[tuple[str, int, str]] = Counter()
    for id_, revisions in by_id.items():
        for before, after in pairwise(revisions):
            if before.state != after.state:
                expected[id_, after.revision, "engine_resolve" if after.state == "resolved" else "reopen"] += 1
    return expected


def _check_webhooks(found: list[tuple[int, Discrepancy]], receiver: Receiver) -> None:
    bodies: dict[str, set[str]] = defaultdict(set)
    told: set[tuple[str, int]] = set()
    for taken in receiver.taken:
        bodies[taken.id].add(json.dumps(taken.body, sort_keys=True))
        told.add((taken.body["data"]["id"], taken.body["data"]["revision"]))
    assert {id_: texts for id_, texts in bodies.items() if len(texts) > 1} == {}
    raised = {(r[-1].id, r[-1].revision) for r in _revisions(found).values() if r[-1].state == "raised"}
    assert raised - told == set()


def tell(run: Run, end: End, receiver: Receiver) -> None:
    """Print the figures."""
    found, tables = end.found, end.tables
    by_id = _revisions(found)
    open_now = _open_of(revisions[-1] for revisions in by_id.values())
    expected = Counter(run.planned.open)
    ids = Counter(taken.id for taken in receiver.taken)
    healed = sum(1 for revisions in by_id.values() if revisions[-1].state == "resolved")
    events = len(run.planned.events)
    print(  # noqa: T201 - the figures are a part of the result
        f"\n{events:,} events in {run.sent_s:.1f} s ({events / run.sent_s:,.0f} per second), "
        f"killed: {', '.join(run.kills)}; {run.retries} requests retried, {run.repeats} repeated on purpose\n"
        f"discrepancies: {len(by_id)} ids, {len(found)} revisions, {open_now.total()} open, {healed} healed; "
        f"lost {(expected - open_now).total()}, doubled {(open_now - expected).total()}\n"
        f"by type: {dict(sorted(Counter(one.type for one in open_now.elements()).items()))}\n"
        f"items {len(tables.items):,}; webhooks: {len(ids)} messages in {ids.total()} deliveries, outbox {dict(tables.outbox)}",
        flush=True,
    )

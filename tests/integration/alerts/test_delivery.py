"""Outgoing webhooks on a real PostgreSQL and a real receiver that verifies every signature."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import asyncpg
import msgspec
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from sqlalchemy import func, select, text, update

from services.alerts.adapters.database import EVERY_ORG
from services.alerts.adapters.delivery.outbox import PostgresOutbox
from services.alerts.adapters.delivery.sender import WebhookSender
from services.alerts.adapters.tables import webhook_endpoints
from services.alerts.domain.delivery import Answer, Attempt, Claim, Decision, Delivered, EndpointGone, Retry
from services.alerts.domain.signature import secret_text
from services.alerts.ports.delivery import Exchanged
from services.alerts.use_cases.dispatch import Dispatch
from tests.support.delivery_desk import Desk, delivery_desk, eventually, found, holds
from tests.support.webhook_receiver import slow, status

pytestmark = pytest.mark.postgres
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def desk(migrated_url: str) -> AsyncIterator[Desk]:
    async with delivery_desk(migrated_url) as made:
        yield made


async def test_a_message_arrives_signed_and_its_attempt_is_stored(desk: Desk) -> None:
    endpoint = await desk.endpoint("/a")
    await desk.dispatcher()
    [id_] = await desk.store(endpoint, found(), traceparent=TRACE)
    row = await desk.reaches(id_, "delivered")
    [taken] = desk.receiver.at("/a")
    assert (taken.id, taken.body["type"], taken.body["data"]["id"]) == (
        row.message_id,
        "discrepancy.raised",
        found().id,
    )
    assert taken.headers["content-type"] == "application/json"
    assert taken.headers["traceparent"] == TRACE
    [attempt] = await desk.attempts(id_)
    assert (attempt.attempt, attempt.status_code, attempt.error) == (1, 204, None)


async def test_new_messages_are_sent_at_once_without_polling(desk: Desk) -> None:
    endpoint = await desk.endpoint("/a")
    await desk.dispatcher(poll_s=60)
    waits = []
    for number in range(1, 8):
        await asyncio.sleep(0.1)
        begun = time.monotonic()
        [id_] = await desk.store(endpoint, found(number))
        await desk.reaches(id_, "delivered")
        waits.append(desk.receiver.taken[-1].at - begun)
    assert sorted(waits)[len(waits) // 2] < 0.25


async def test_polling_finds_what_no_signal_told(desk: Desk) -> None:
    endpoint = await desk.endpoint("/a")
    await desk.dispatcher(listening=False)
    await asyncio.sleep(0.2)
    [id_] = await desk.store(endpoint, found())
    await desk.reaches(id_, "delivered")


async def test_after_a_500_it_is_sent_again_with_the_same_id(desk: Desk) -> None:
    endpoint = await desk.endpoint("/a")
    desk.receiver.script["/a"] = [status(500), status(200)]
    await desk.dispatcher()
    begun = datetime.now(UTC)
    [id_] = await desk.store(endpoint, found())
    row = await desk.reaches(id_, "pending", attempts=1)
    assert row.reason == "HTTP 500"
    assert timedelta(seconds=4) < row.next_attempt_at - begun < timedelta(seconds=8)
    await desk.due_now()
    await desk.reaches(id_, "delivered", attempts=2)
    first, second = desk.receiver.at("/a")
    assert first.id == second.id
    assert first.body == second.body
    assert [(a.attempt, a.status_code) for a in await desk.attempts(id_)] == [(1, 500), (2, 200)]


async def test_retry_after_is_obeyed(desk: Desk) -> None:
    endpoint = await desk.endpoint("/a")
    desk.receiver.script["/a"] = [status(429, retry_after="3600")]
    await desk.dispatcher()
    begun = datetime.now(UTC)
    [id_] = await desk.store(endpoint, found())
    row = await desk.reaches(id_, "pending", attempts=1)
    assert timedelta(minutes=59) < row.next_attempt_at - begun < timedelta(minutes=61)


async def test_after_ten_tries_it_has_failed_and_is_kept(desk: Desk) -> None:
    endpoint = await desk.endpoint("/a")
    desk.receiver.script["/a"] = [status(503)]
    await desk.dispatcher()
    [id_] = await desk.store(endpoint, found())
    for number in range(1, 10):
        await desk.reaches(id_, "pending", attempts=number)
        await desk.due_now()
    row = await desk.reaches(id_, "failed", attempts=10)
    assert row.reason == "HTTP 503"
    assert len(await desk.attempts(id_)) == len(desk.receiver.at("/a")) == 10


async def test_410_disables_the_endpoint_and_drops_what_waits(desk: Desk) -> None:
    endpoint = await desk.endpoint("/a")
    desk.receiver.script["/a"] = [status(410)]
    [later] = await desk.store(endpoint, found(2), next_attempt_at=datetime.now(UTC) + timedelta(hours=1))
    await desk.dispatcher()
    [id_] = await desk.store(endpoint, found(1))
    await desk.reaches(id_, "failed")
    row = await desk.reaches(later, "dropped")
    assert row.reason == "endpoint disabled"
    async with desk.database.transaction(EVERY_ORG) as connection:
        [stored] = await connection.execute(select(webhook_endpoints))
    assert stored.disabled_at is not None
    assert "410" in stored.disabled_reason
    await desk.store(endpoint, found(3))
    await asyncio.sleep(0.3)
    assert len(desk.receiver.at("/a")) == 1


async def test_outcomes_that_are_stored_together_each_have_their_own_end(desk: Desk) -> None:
    """One was taken, one is to be tried again, one is given back; then a 410 beside a failure ends them all."""
    endpoint = await desk.endpoint("/a")
    ids = await desk.store(endpoint, *[found(n) for n in range(1, 5)])
    store = PostgresOutbox(desk.database, cap=10)
    one, two, three, four = (await store.exchange(endpoint, [], [], 4)).claims
    later = datetime.now(UTC) + timedelta(hours=1)
    made = [_attempt(one, 204, Delivered()), _attempt(two, 500, Retry(later, "HTTP 500"))]
    exchanged = await store.exchange(endpoint, made, [three], 8)
    assert exchanged.stored == [True, True]
    assert [(claim.id, claim.attempt) for claim in exchanged.claims] == [(three.id, 1)]
    rows = await desk.rows()
    assert [(rows[id_].state, rows[id_].reason, rows[id_].attempts) for id_ in ids] == [
        ("delivered", None, 1),
        ("pending", "HTTP 500", 1),
        ("pending", None, 1),
        ("pending", None, 1),
    ]
    assert rows[two.id].next_attempt_at == later
    [three] = exchanged.claims
    made = [_attempt(three, 500, Retry(later, "HTTP 500")), _attempt(four, 410, EndpointGone("gone"))]
    assert await store.exchange(endpoint, made, [], 8) == Exchanged([True, True], [])
    rows = await desk.rows()
    assert [(rows[id_].state, rows[id_].reason) for id_ in ids] == [
        ("delivered", None),
        ("dropped", "endpoint disabled"),
        ("dropped", "endpoint disabled"),
        ("failed", "gone"),
    ]


def _attempt(claim: Claim, status_code: int, decision: Decision) -> Attempt:
    answer = Answer(status=status_code, error=None, duration_ms=1)
    return Attempt(claim=claim, at=datetime.now(UTC), answer=answer, decision=decision)


async def test_the_database_says_for_which_endpoints_there_is_something_new(desk: Desk) -> None:
    first, second = await desk.endpoint("/a"), await desk.endpoint("/b")
    heard: list[str] = []
    listening = asyncio.create_task(PostgresOutbox(desk.database, cap=10).listen(heard.append))
    desk.tasks.append(listening)
    await eventually(holds(lambda: heard == [""]), lambda: f"{heard}")
    await desk.store(first, found(1), found(2))
    await desk.store(second, found(1))
    await eventually(holds(lambda: heard == ["", first, second]), lambda: f"{heard}")


async def test_what_is_under_way_when_the_endpoint_goes_is_tried_no_more(desk: Desk) -> None:
    async def late_failure(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.7)
        return web.Response(status=500)

    async def late_success(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.7)
        return web.Response(status=200)

    endpoint = await desk.endpoint("/a")
    desk.receiver.script["/a"] = [late_failure, late_success, status(410)]
    await desk.dispatcher()
    ids = []
    for number in (1, 2, 3):
        ids += await desk.store(endpoint, found(number))
        await eventually(holds(lambda n=number: len(desk.receiver.taken) == n), lambda: "not sent")
    await eventually(_states(desk, ids, ["dropped", "delivered", "failed"]), lambda: "the messages do not end so")
    assert [len(await desk.attempts(id_)) for id_ in ids] == [1, 1, 1]


def _states(desk: Desk, ids: list[int], expected: list[str]) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        rows = await desk.rows()
        return [rows[id_].state for id_ in ids] == expected

    return look


async def test_a_slow_endpoint_does_not_delay_a_healthy_one(desk: Desk) -> None:
    slow_one, fast_one = await desk.endpoint("/slow"), await desk.endpoint("/fast")
    desk.receiver.script["/slow"] = [slow(15)]
    await desk.dispatcher(timeout_s=20)
    await desk.store(slow_one, *[found(n) for n in range(1, 40)])
    await eventually(holds(lambda: len(desk.receiver.at("/slow")) == 8), lambda: "its places are not filled")
    begun = time.monotonic()
    ids = await desk.store(fast_one, *[found(n) for n in range(1, 40)])
    for id_ in ids:
        await desk.reaches(id_, "delivered")
    assert time.monotonic() - begun < 12
    assert len(desk.receiver.at("/slow")) == 8


async def test_redirects_are_not_followed(desk: Desk) -> None:
    endpoint = await desk.endpoint("/a")
    desk.receiver.secrets["/b"] = desk.receiver.secrets["/a"]
    desk.receiver.script["/a"] = [status(307, location=desk.receiver.url("/b"))]
    await desk.dispatcher()
    [id_] = await desk.store(endpoint, found())
    row = await desk.reaches(id_, "pending", attempts=1)
    assert "redirects are not followed" in row.reason
    assert desk.receiver.at("/b") == []


async def test_no_answer_in_time_is_a_failed_attempt(desk: Desk) -> None:
    endpoint = await desk.endpoint("/a")
    desk.receiver.script["/a"] = [slow(20)]
    await desk.dispatcher(timeout_s=0.3)
    [id_] = await desk.store(endpoint, found())
    row = await desk.reaches(id_, "pending", attempts=1)
    assert row.reason.startswith("timeout")


async def test_an_endless_answer_is_cut_off(desk: Desk) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b"x" * 65536)
        return response

    endpoint = await desk.endpoint("/a")
    desk.receiver.script["/a"] = [endless]
    await desk.dispatcher()
    [id_] = await desk.store(endpoint, found())
    await desk.reaches(id_, "delivered", attempts=1)


class Rebinding(AbstractResolver):
    """A name whose owner answers a public address first and a private one when it counts."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        return [{"hostname": host, "host": "127.0.0.1", "port": self.port, "family": 2, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://127.0.0.1:{port}/a", "127.0.0.1 is a loopback address"),
        ("https://169.254.169.254/latest/meta-data", "link-local"),
        ("https://[::ffff:127.0.0.1]:{port}/a", "loopback"),
        ("https://rebind.example.com:{port}/a", "address refused: 127.0.0.1 is a loopback address"),
        ("http://example.com:{port}/a", "must begin with https"),
    ],
)
async def test_addresses_inside_are_refused_when_connecting(desk: Desk, url: str, reason: str) -> None:
    endpoint = await desk.endpoint("/a", url=url.format(port=desk.receiver.port))
    await desk.dispatcher(allow_private=False, resolver=Rebinding(desk.receiver.port))
    [id_] = await desk.store(endpoint, found())
    row = await desk.reaches(id_, "pending", attempts=1)
    assert reason in row.reason
    assert desk.receiver.taken == []


async def test_the_system_resolver_is_checked_too(desk: Desk) -> None:
    endpoint = await desk.endpoint("/a", url=f"https://localhost:{desk.receiver.port}/a")
    await desk.dispatcher(allow_private=False)
    [id_] = await desk.store(endpoint, found())
    row = await desk.reaches(id_, "pending", attempts=1)
    assert "loopback" in row.reason


async def test_a_crash_between_send_and_mark_repeats_the_same_id_and_nothing_else(desk: Desk) -> None:
    """The process ends after the receiver took the message; another one sends it again once the claim lapses."""
    endpoint = await desk.endpoint("/a")
    desk.receiver.script["/a"] = [slow(30), status(200)]
    lease = timedelta(seconds=5)
    crashing = await desk.dispatcher(lease=lease)
    [id_] = await desk.store(endpoint, found())
    await eventually(holds(lambda: len(desk.receiver.at("/a")) == 1), lambda: "never sent")
    crashing.cancel()
    await desk.dispatcher(lease=lease)
    await desk.reaches(id_, "delivered", attempts=2)
    first, second = desk.receiver.at("/a")
    assert first.id == second.id
    await desk.due_now()
    await asyncio.sleep(0.3)
    assert len(desk.receiver.at("/a")) == 2


async def test_a_stop_gives_back_what_it_took_and_never_sent(desk: Desk) -> None:
    """What waits for a place counts as no try, and another dispatcher sends it at once; what is under way is finished."""
    endpoint = await desk.endpoint("/a")
    desk.receiver.script["/a"] = [slow(1)] * 8 + [status(200)]
    stopping = await desk.dispatcher()
    ids = await desk.store(endpoint, *[found(n) for n in range(40)])
    await eventually(holds(lambda: len(desk.receiver.at("/a")) == 8), lambda: "its places are not filled")
    taken = [row.id for row in (await desk.rows()).values() if row.claimed_until]
    assert len(taken) == 24
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
    rows = await desk.rows()
    assert [(rows[id_].state, rows[id_].attempts) for id_ in taken].count(("delivered", 1)) == 8
    assert {(rows[id_].state, rows[id_].attempts, rows[id_].claimed_until) for id_ in ids} == {
        ("delivered", 1, None),
        ("pending", 0, None),
    }
    await desk.dispatcher()
    for id_ in ids:
        await desk.reaches(id_, "delivered", attempts=1)
    assert len(desk.receiver.at("/a")) == 40


async def test_two_dispatchers_send_everything_once(desk: Desk) -> None:
    endpoints = [await desk.endpoint(path) for path in ("/a", "/b")]
    await desk.dispatcher()
    await desk.dispatcher()
    ids = []
    for batch in range(5):
        for endpoint in endpoints:
            ids += await desk.store(endpoint, *[found(batch * 20 + n) for n in range(20)])
    for id_ in ids:
        await desk.reaches(id_, "delivered", attempts=1)
    assert len({taken.id for taken in desk.receiver.taken}) == len(desk.receiver.taken) == 200


async def test_an_attempt_whose_claim_lapsed_changes_nothing(desk: Desk) -> None:
    """A process that slept through its claim may not overwrite what another one stored."""
    endpoint = await desk.endpoint("/a")
    [id_] = await desk.store(endpoint, found())
    asleep = PostgresOutbox(desk.database, cap=10, lease=timedelta(milliseconds=50))
    [stale] = (await asleep.exchange(endpoint, [], [], 8)).claims
    await asyncio.sleep(0.1)
    store = PostgresOutbox(desk.database, cap=10, lease=timedelta(minutes=1))
    [fresh] = (await store.exchange(endpoint, [], [], 8)).claims
    async with WebhookSender(allow_private=True) as sender:
        dispatch = Dispatch(
            store, sender, clock=lambda: datetime.now(UTC), chance=lambda: 0.5, attempt_max=timedelta(0)
        )
        attempt = await dispatch.deliver(fresh)
        assert attempt is not None
        lapsed = msgspec.structs.replace(attempt, claim=stale)
        assert (await store.exchange(endpoint, [attempt, lapsed], [], 0)).stored == [True, False]
        late = await dispatch.deliver(stale)
    assert late is None, "too little of the claim is left to begin"
    assert (await desk.rows())[id_].state == "delivered"
    assert len(await desk.attempts(id_)) == 2


async def test_a_clock_minutes_off_the_databases_sends_and_tries_again_in_time(desk: Desk) -> None:
    """Claims and tries are dated by the database: ours may be ahead of it."""
    off = timedelta(minutes=5)
    endpoint = await desk.endpoint("/a")
    desk.receiver.script["/a"] = [status(500)]
    [id_] = await desk.store(endpoint, found())
    store = PostgresOutbox(desk.database, cap=10, lease=timedelta(minutes=1))
    [claim] = (await store.exchange(endpoint, [], [], 8)).claims
    assert abs(claim.ahead) < timedelta(seconds=5)
    async with WebhookSender(allow_private=True) as sender:
        dispatch = Dispatch(
            store, sender, clock=lambda: datetime.now(UTC) + off, chance=lambda: 0.5, attempt_max=timedelta(seconds=30)
        )
        attempt = await dispatch.deliver(msgspec.structs.replace(claim, ahead=claim.ahead + off))
    assert attempt is not None
    assert (await store.exchange(endpoint, [attempt], [], 0)).stored == [True]
    row = await desk.reaches(id_, "pending", attempts=1)
    assert row.next_attempt_at - datetime.now(UTC) < timedelta(seconds=30)


async def test_revisions_arrive_in_order_whatever_order_they_are_stored_in(desk: Desk) -> None:
    endpoint = await desk.endpoint("/a")
    await desk.store(endpoint, *[found(n, revision) for revision in (3, 1, 2) for n in range(1, 6)])
    await desk.dispatcher()
    await eventually(holds(lambda: len(desk.receiver.taken) == 15), lambda: f"{len(desk.receiver.taken)} of 15")
    for n in range(1, 6):
        mine = [t.body["data"]["revision"] for t in desk.receiver.taken if t.body["data"]["id"] == found(n).id]
        assert mine == [1, 2, 3]


async def test_an_older_revision_is_never_sent_after_a_newer_one(desk: Desk) -> None:
    endpoint = await desk.endpoint("/a")
    desk.receiver.script["/a"] = [status(500), status(200)]
    await desk.dispatcher()
    [old] = await desk.store(endpoint, found(1, 1))
    await desk.reaches(old, "pending", attempts=1)
    [new] = await desk.store(endpoint, found(1, 2))
    await desk.reaches(new, "delivered")
    row = await desk.reaches(old, "dropped")
    assert row.reason == "superseded"
    assert [taken.body["data"]["revision"] for taken in desk.receiver.taken] == [1, 2]


async def test_a_storm_is_one_summary_and_every_record_is_kept(desk: Desk) -> None:
    endpoint = await desk.endpoint("/a")
    minute = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=5)
    ids = await desk.store(endpoint, *[found(n) for n in range(1, 301)], created_at=minute + timedelta(seconds=5))
    [quiet] = await desk.store(endpoint, found(999), created_at=minute + timedelta(minutes=2))
    await desk.dispatcher(cap=20)
    await desk.reaches(quiet, "delivered")
    more = await desk.store(endpoint, *[found(n) for n in range(400, 410)], created_at=minute + timedelta(seconds=50))
    for id_ in more:
        await desk.reaches(id_, "dropped")
    await eventually(holds(lambda: len(desk.receiver.taken) >= 22), lambda: f"{len(desk.receiver.taken)}")
    await asyncio.sleep(0.3)
    kinds = [taken.body["type"] for taken in desk.receiver.taken]
    assert (kinds.count("discrepancy.storm"), kinds.count("discrepancy.raised")) == (1, 21)
    storm = next(taken for taken in desk.receiver.taken if taken.body["type"] == "discrepancy.storm")
    assert storm.body["data"]["cap"] == 20
    assert datetime.fromisoformat(storm.body["data"]["minute"]) == minute
    rows = await desk.rows()
    states = [rows[id_].state for id_ in ids]
    assert (states.count("delivered"), states.count("dropped")) == (20, 280)


async def test_during_a_rotation_the_former_secret_still_verifies(desk: Desk) -> None:
    former = secret_text(b"f" * 32)
    endpoint = await desk.endpoint("/a", previous=former)
    desk.receiver.secrets["/a"] = former
    await desk.dispatcher()
    [id_] = await desk.store(endpoint, found(1))
    await desk.reaches(id_, "delivered")
    async with desk.database.transaction(EVERY_ORG) as connection:
        await connection.execute(update(webhook_endpoints).values(previous_until=func.now()))
    [id_] = await desk.store(endpoint, found(2))
    row = await desk.reaches(id_, "pending", attempts=1)
    assert row.reason == "HTTP 500", "the receiver that knows only the former secret refuses it now"


async def test_the_queries_of_the_loop_use_their_indexes(desk: Desk) -> None:
    endpoint = await desk.endpoint("/a")
    await desk.store(endpoint, *[found(n) for n in range(2000)], state="delivered")
    await desk.store(endpoint, found(5000))
    query = "SELECT id FROM outbox WHERE endpoint_id = :e AND state = 'pending' AND next_attempt_at <= now()"
    async with desk.database.transaction(EVERY_ORG) as connection:
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        plan = (await connection.execute(text("EXPLAIN " + query), {"e": endpoint})).scalars().all()
    assert any("outbox_due_idx" in line for line in plan), plan


async def test_an_attempt_that_cannot_be_stored_is_made_again_with_the_same_id(desk: Desk, migrated_url: str) -> None:
    """Every connection breaks between the receiver's answer and its mark; listening and delivery go on by themselves."""
    endpoint = await desk.endpoint("/a")
    [id_] = await desk.store(endpoint, found())
    administrator = await asyncpg.connect(migrated_url.replace("+asyncpg", ""))
    async with administrator.transaction():
        await administrator.execute("LOCK TABLE delivery_attempts IN ACCESS EXCLUSIVE MODE")
        await desk.dispatcher(lease=timedelta(seconds=5))
        await eventually(holds(lambda: len(desk.receiver.at("/a")) == 1), lambda: "never sent")
        await asyncio.sleep(0.3)
        await administrator.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    await administrator.close()
    await desk.reaches(id_, "delivered", attempts=2)
    first, second = desk.receiver.at("/a")
    assert first.id == second.id
    await asyncio.sleep(1.5)
    [later] = await desk.store(endpoint, found(2))
    await desk.reaches(later, "delivered", attempts=1)

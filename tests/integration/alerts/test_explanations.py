"""Near misses and clusters on a real PostgreSQL: found after the sink's commit, gone when one of the pair is."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from sqlalchemy import text

from services.alerts.adapters import explanation_store
from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.adapters.directory_store import PostgresDirectory
from services.alerts.adapters.explanation_store import PostgresExplanations
from services.alerts.adapters.rows import discrepancy_of
from services.alerts.adapters.sink_store import PostgresSink
from services.alerts.adapters.triage_store import PostgresTriage
from services.alerts.domain.cluster import clusters
from services.alerts.domain.near_miss import loose_end, near_misses
from services.alerts.domain.triage import Resolve, act
from services.alerts.handlers.explainer import explain
from services.alerts.handlers.http import create_app, v1
from services.alerts.ports.sink import Batch, Found, Place
from services.alerts.ports.triage import Filter, Stored
from services.alerts.use_cases import explanations
from services.alerts.use_cases.explanations import explain_changes
from services.alerts.use_cases.keys import Keys
from services.alerts.use_cases.sink import store
from services.alerts.use_cases.triage import Triage
from shared.contracts.discrepancy import Discrepancy
from shared.telemetry.health import Health
from tests.support.loose_ends import duplicate, ended, missing
from tests.support.near_miss_example import ACROSS, replayed
from tests.support.results import START, found, log_at, uid
from tieout.cli import discrepancies as commands

pytestmark = pytest.mark.postgres
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DAY_S = 86_400


class Desk:
    """The sink, the explainer and what people see of both."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.store = PostgresExplanations(database)
        self.triage = PostgresTriage(database)

    async def sink(self, *results: Discrepancy) -> None:
        batch = Batch(spans=[], discrepancies=[Found(d, Place("discrepancies", 0), 0, START) for d in results])
        await store(PostgresSink(self.database), batch, NOW)

    async def explain(self, **limits: Any) -> None:
        while await explain_changes(self.store, **limits):
            pass

    async def take(self, *results: Discrepancy) -> None:
        await self.sink(*results)
        await self.explain()

    async def shown(self, org: str = "acme", **chosen: Any) -> dict[str, Stored]:
        listed = await self.triage.list(org, Filter(**chosen), None, 1000)
        return {stored.found.id: stored for stored in listed}

    async def pairs(self) -> dict[str, str]:
        return {id_: one.near_miss.discrepancy for id_, one in (await self.shown()).items() if one.near_miss}

    async def count(self, table: str, scope: str = EVERY_ORG) -> int:
        async with self.database.transaction(scope) as connection:
            return int((await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


A, B = missing("a", "INV-17"), missing("b", "INV-71", on="internal", after_s=4)
PAIR = {uid("a"): uid("b"), uid("b"): uid("a")}


async def test_both_of_a_pair_name_each_other(desk: Desk):
    """As the pure function says it, word for word; nobody else's."""
    await desk.take(A, B)
    shown = await desk.shown()
    assert {id_: stored.near_miss for id_, stored in shown.items()} == near_misses([A, B])
    assert shown[uid("a")].near_miss is not None
    assert shown[uid("a")].near_miss.sentence == (
        "Near miss: stripe record p_b of 120.50 EUR has the same amount under the reference INV-71 instead of INV-17, "
        f"two characters transposed (discrepancy {uid('b')})."
    )


async def test_whichever_comes_first_waits_for_the_other(desk: Desk):
    """Also when the other comes a batch later."""
    await desk.take(B)
    assert await desk.pairs() == {}
    await desk.take(A)
    assert await desk.pairs() == PAIR


@pytest.mark.parametrize("who", ["engine", "person"])
async def test_when_either_resolves_the_near_miss_goes(desk: Desk, who: str):
    """By the matcher or by a person; the other one is free for another."""
    await desk.take(A, B)
    assert await desk.pairs() == PAIR
    if who == "engine":
        await desk.sink(ended(B))
    else:
        await desk.triage.change(
            "acme", uid("b"), lambda stored: (*act(stored.standing, Resolve("accepted", None), "ann", NOW), None)
        )
    assert uid("b") not in await desk.pairs(), "hidden at once"
    await desk.explain()
    assert await desk.pairs() == {}
    third = missing("d", "inv-17", on="internal", after_s=200)
    await desk.take(third)
    assert await desk.pairs() == {uid("a"): uid("d"), uid("d"): uid("a")}
    assert await desk.count("loose_ends") == 2


async def test_a_better_pair_takes_over_and_the_lesser_one_returns_with_its_end(desk: Desk):
    """b is paired until the better c comes, and again once c has resolved."""
    mistyped = missing("b", "INV-1907", on="internal")
    best = missing("c", "INV-1270", on="internal", after_s=900)
    await desk.take(missing("a", "INV-1207"), mistyped)
    assert await desk.pairs() == PAIR
    await desk.take(best)
    assert await desk.pairs() == {uid("a"): uid("c"), uid("c"): uid("a")}
    await desk.take(ended(best))
    assert await desk.pairs() == PAIR


async def test_a_pair_without_a_reference_lasts_while_nothing_else_can_be_meant(desk: Desk):
    """Another of the same amount takes it away; once that has gone, it is back."""
    rival = missing("c", "pi_4R", on="internal", after_s=60)
    await desk.take(A, missing("b", "pi_3Q", on="internal"))
    assert await desk.pairs() == PAIR
    await desk.take(rival)
    assert await desk.pairs() == {}
    await desk.take(ended(rival))
    assert await desk.pairs() == PAIR


async def test_a_revision_with_another_amount_is_looked_at_anew(desk: Desk):
    """What was paired by its amount is paired no more, or in another way."""
    await desk.take(A, B)
    await desk.take(missing("a", "INV-17", "102.50", revision=2, offset=20))
    shown = await desk.shown()
    assert {one.near_miss.kind for one in shown.values() if one.near_miss} == {"digits_transposed"}
    await desk.take(missing("a", "INV-17", "64.10", revision=3, offset=30))
    assert await desk.pairs() == {}


async def test_organisations_never_meet(desk: Desk):
    """Not in pairs, and behind row-level security."""
    await desk.take(A, missing("b", "INV-71", on="internal", org="other"))
    assert await desk.pairs() == {}
    assert (await desk.count("loose_ends", "acme"), await desk.count("loose_ends", "other")) == (1, 1)
    assert await desk.count("loose_ends", "nobody") == 0


async def test_any_order_and_any_batches_end_in_what_the_pure_function_says(desk: Desk):
    """A hundred and twenty loose ends, some resolving, in random batches: the same pairs, every time."""
    chance = random.Random(4)
    refs = ["INV-17", "INV-71", "inv-17", "INV-1007", "INV-1070", "INV-1907"]
    ends = []
    for n in range(120):
        key, on = chance.choice([*refs, f"pi_{n}", f"record:x/{n}"]), chance.choice(["internal", "provider"])
        amount = chance.choice(["120.50", "102.50", "-120.50", "118.56", "143.40", "139.50", "77.10", "31.90"])
        currency, after_s = chance.choice(["EUR", "EUR", "EUR", "USD"]), chance.randrange(3 * DAY_S)
        ends.append(missing(f"d{n}", key, amount, currency, on=on, after_s=after_s))
    ends.append(duplicate("dup", "INV-4711", "x", "88.80"))
    gone = [ended(one) for one in chance.sample(ends, 40)]
    chance.shuffle(ends)
    steps = ends + gone
    place = 0
    while place < len(steps):
        size = chance.randrange(1, 15)
        await desk.take(*steps[place : place + size])
        place += size
    is_gone = {one.id for one in gone}
    expected = near_misses([one for one in ends if one.id not in is_gone])
    assert len(expected) > 10
    assert {id_: one.near_miss for id_, one in (await desk.shown()).items() if one.near_miss} == expected
    assert await desk.count("discrepancy_news") == 0


async def test_what_one_transaction_leaves_goes_on_in_the_next(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    """Limits on changes and steps delay and lose nothing."""
    monkeypatch.setattr(explanations, "STEPS_MAX", 3)
    ends = [missing(f"a{n}", f"SUB-4{n}-17", "9.99", after_s=n) for n in range(10)]
    ends += [missing(f"b{n}", f"SUB-4{n}-71", "9.99", on="internal", after_s=20 - n) for n in range(10)]
    await desk.sink(*ends)
    await desk.explain(changes_max=7)
    assert await desk.pairs() == {id_: one.discrepancy for id_, one in near_misses(ends).items()}


async def test_two_explainers_share_the_work(desk: Desk):
    """One organisation is worked on by one at a time; together they end in the same."""
    ends = [missing(f"{org}{n}", f"INV-1{n}", on=on, org=org, after_s=n) for org in ("acme", "other", "third")
            for n, on in ((20, "internal"), (2, "provider"), (34, "internal"), (43, "provider"))]  # fmt: skip
    await desk.sink(*ends)
    await asyncio.gather(*(desk.explain(changes_max=2) for _ in range(3)))
    await desk.explain()
    expected = near_misses([end for end in ends if end.org == "acme"])
    assert {id_: one.near_miss for id_, one in (await desk.shown()).items() if one.near_miss} == expected


async def test_the_loop_finds_them_within_a_second(desk: Desk):
    """Started first, fed later."""
    task = asyncio.create_task(explain(desk.store, Health(["database"]), poll_s=0.1, cluster_size_min=3))
    try:
        await asyncio.sleep(0.3)
        await desk.sink(A, B)
        async with asyncio.timeout(5):
            while not await desk.pairs():  # noqa: ASYNC110 - another task works on the database
                await asyncio.sleep(0.05)
    finally:
        task.cancel()
    assert await desk.pairs() == PAIR


# ---- clusters


def fees(count: int, begin: int = 0) -> list[Discrepancy]:
    """Amounts that are 2.9 % + 0.30 USD short, one a minute."""
    raised = []
    for n in range(begin, begin + count):
        gross = 100 + 10 * n
        net = f"{gross - gross * 0.029 - 0.30:.2f}"
        raised.append(
            found(
                f"f{n}",
                key=f"pay_{n}",
                side="provider",
                expected=f"{gross}.00",
                actual=net,
                difference=f"-{gross - float(net):.2f}",
                currency="USD",
                raised_at=START + timedelta(minutes=n),
            )
        )
    return raised


async def test_what_shares_a_cause_is_a_cluster_from_three_on(desk: Desk):
    """Sentence and size grow and shrink; its id stays while any of it is open."""
    await desk.take(*fees(2))
    assert all(one.cluster is None for one in (await desk.shown()).values())
    await desk.take(*fees(2, 2))
    (said,) = {one.cluster for one in (await desk.shown()).values()}
    assert said is not None
    assert (said.size, said.since) == (4, START)
    assert said.sentence == (
        "4 amounts of stripe since 2026-11-20 10:00 UTC are 2.9 % + 0.30 USD short: "
        "fees are probably booked on one side only."
    )
    await desk.take(ended(fees(1)[0]))
    (now,) = {one.cluster for one in (await desk.shown(cluster=said.id)).values()}
    assert now is not None
    assert (now.id, now.size, now.since) == (said.id, 3, START + timedelta(minutes=1))
    await desk.take(ended(fees(1, 1)[0]))
    assert await desk.shown(cluster=said.id) == {}
    assert await desk.count("clusters") == 0
    await desk.take(*(ended(one) for one in fees(2, 2)))
    await desk.take(*fees(3, 4))
    assert {one.cluster.id for one in (await desk.shown()).values() if one.cluster} == {said.id}, (
        "close to those before"
    )


async def test_clusters_are_what_the_pure_function_says(desk: Desk):
    """Of a silent feed, a fee and single faults, in small batches."""
    silent = [missing(f"m{n}", f"order {n * 7919}", f"{100 + n}.13", after_s=60 * n) for n in range(12)]
    late = [missing(f"l{n}", f"order {n * 6841}", f"{300 + n}.13", after_s=DAY_S + 60 * n) for n in range(3)]
    rows = [*silent, *late, *fees(3), found("x"), found("y", type="RecordMoved", side="provider")]
    random.Random(1).shuffle(rows)
    for place in range(0, len(rows), 4):
        await desk.take(*rows[place : place + 4])
    expected = clusters(rows)
    assert len({one.id for one in expected.values()}) == 3
    assert {id_: one.cluster for id_, one in (await desk.shown()).items() if one.cluster} == expected
    assert any("12 records of ledger since" in one.sentence for one in expected.values())


def history(org: str, chance: random.Random) -> list[Discrepancy]:
    """Return what happens to some discrepancies of an organisation: raised, of another cause, resolved, raised again."""
    lives: list[list[Discrepancy]] = []
    for n in range(24):
        name, minute = f"{org}{n}", chance.randrange(90)
        if n % 2:
            raised = missing(name, f"order {n * 7919}", f"{100 + n}.13", org=org, after_s=60 * minute)
            # The evidence of its end names the record that came late, and so another source.
            late = missing("late", "x", on="internal").sides["provider"]
            end = replace(ended(raised), sides=raised.sides | {"provider": late})
        else:
            [fee] = fees(1, minute)
            raised = replace(fee, id=uid(name), org=org, key=name)
            end = ended(raised)
        life = [raised]
        if n % 3 == 0 and not n % 2:
            life.append(replace(raised, actual="7.77"))
        if chance.random() < 0.6:
            life.append(end)
            if chance.random() < 0.2:
                life.append(raised)
        lives.append(life)
    order = [life for life in lives for _ in life]
    chance.shuffle(order)
    come: dict[int, int] = {}
    told = []
    for offset, life in enumerate(order):
        revision = come[id(life)] = come.get(id(life), 0) + 1
        told.append(replace(life[revision - 1], revision=revision, log=log_at(1000 + offset)))
    return told


async def test_clusters_do_not_depend_on_when_the_explainer_looked(desk: Desk):
    """After every result, once at the end, or at random: the same clusters and members, those of the pure function."""
    chance, seen = random.Random(7), 0
    for n, looks in enumerate([1.0, 0.0, 0.0, 0.0, 0.3, 0.3, 0.1, 0.1]):
        org = f"org{n}"
        told = history(org, chance)
        place = 0
        while place < len(told):
            size = 1 if looks else chance.randrange(1, 9)
            await desk.sink(*told[place : place + size])
            place += size
            if chance.random() < looks:
                await desk.explain()
        await desk.explain()
        expected = clusters(told)
        assert {id_: one.cluster for id_, one in (await desk.shown(org)).items() if one.cluster} == expected, org
        seen += len({one.id for one in expected.values()})
    assert seen >= 12


async def test_a_cluster_keeps_its_name_beyond_what_is_read_of_it(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    """Those raised last are counted and shown, however they came; the name is that of the first raise, which is not read."""
    monkeypatch.setattr(explanations, "MEMBERS_MAX", 3)
    told = fees(6)
    (whole,) = set(clusters(told).values())
    for one in told:
        await desk.take(one)
    shown = {id_: one.cluster for id_, one in (await desk.shown()).items() if one.cluster}
    assert {(one.id, one.size) for one in shown.values()} == {(whole.id, 3)}
    assert set(shown) == {one.id for one in told[3:]} == set(await desk.shown(cluster=whole.id))


async def test_what_was_stored_before_the_upgrade_is_looked_at_too(desk: Desk):
    """Whatever stands in the queue of the migration is explained like news; engine rows stay as they were."""
    await desk.take(A, B)
    async with desk.database.transaction(EVERY_ORG) as connection:
        rows = await connection.execute(text("SELECT *, key::text AS key, sides::text AS sides FROM discrepancies"))
        stored = {str(row["id"]): discrepancy_of(dict(row) | {"id": str(row["id"])}) for row in rows.mappings()}
    assert stored == {uid("a"): A, uid("b"): B}


async def test_the_twenty_of_the_example_through_the_sink(desk: Desk):
    """What replay says of examples/near_misses is what people see of a running system."""
    found_offline = replayed()
    for place in range(0, len(found_offline), 5):
        await desk.take(*found_offline[place : place + 5])
    shown = await desk.shown()
    assert {id_: one.near_miss for id_, one in shown.items() if one.near_miss} == near_misses(found_offline)
    assert {id_: one.cluster for id_, one in shown.items() if one.cluster} == clusters(found_offline)
    by_key = {one.found.key: one for one in shown.values()}
    assert {key for key in ACROSS if by_key[key].near_miss} == set(ACROSS)


# ---- what people are answered


@pytest.fixture
async def ask(desk: Desk) -> AsyncIterator[Callable[..., Awaitable[httpx.Response]]]:
    """Asks the API as a viewer of acme."""
    directory = PostgresDirectory(desk.database)
    key = (await Keys(directory, lambda: NOW).create("acme", "viewer", "viewer key")).key
    app = create_app(
        [v1.discrepancies_router(Triage(desk.triage, NoRules(), lambda: NOW))], directory, Health(["database"])
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tieout") as client:

        async def get(path: str, **wish: str) -> httpx.Response:
            return await client.get(path, params=wish, headers={"Authorization": f"Bearer {key}"})

        yield get


class NoRules:
    async def shape(self, org: str, pack: str, rule: str) -> None:
        return None


async def test_the_api_answers_both_and_filters_by_cluster(desk: Desk, ask: Callable[..., Awaitable[httpx.Response]]):
    """In lists and in one alone; null where there is none; another cluster has nothing, no cluster is refused."""
    silent = [missing(f"m{n}", f"order {n * 7919}", f"{100 + n}.13", after_s=60 * n) for n in range(3)]
    await desk.take(A, B, *silent, found("x"))
    rows = {row["id"]: row for row in (await ask("/v1/discrepancies")).json()["data"]}
    assert (rows[uid("x")]["near_miss"], rows[uid("x")]["cluster"]) == (None, None)
    near_miss, cluster = rows[uid("a")]["near_miss"], rows[uid("m0")]["cluster"]
    assert (near_miss["kind"], near_miss["discrepancy"], near_miss["record"], near_miss["score"]) == (
        "same_amount",
        uid("b"),
        "p_b",
        930,
    )
    assert (near_miss["key"], near_miss["amount"], near_miss["currency"]) == ("INV-71", "120.50", "EUR")
    assert cluster["size"] == 4
    shown = (await ask(f"/v1/discrepancies/{uid('a')}")).json()
    assert (shown["near_miss"], shown["cluster"]) == (near_miss, cluster)
    chosen = (await ask("/v1/discrepancies", cluster=cluster["id"])).json()["data"]
    assert {row["id"] for row in chosen} == {uid("a"), uid("m0"), uid("m1"), uid("m2")}
    assert (await ask("/v1/discrepancies", cluster=uid("none"))).json()["data"] == []
    assert (await ask("/v1/discrepancies", cluster="none")).status_code == 422


async def test_the_command_prints_both(desk: Desk, ask: Callable[..., Awaitable[httpx.Response]]):
    """`show` below the explanation, `list` below the rows and each cluster once."""
    silent = [missing(f"m{n}", f"order {n * 7919}", f"{100 + n}.13", after_s=60 * n) for n in range(3)]
    await desk.take(A, B, *silent)
    shown = list(commands._shown((await ask(f"/v1/discrepancies/{uid('a')}")).json()))
    assert shown[2].startswith("  Near miss: stripe record p_b of 120.50 EUR has the same amount under the reference")
    assert shown[3].startswith("  4 records of ledger since 2026-11-20 11:00 UTC have no provider record")
    (line,) = commands._clusters((await ask("/v1/discrepancies")).json()["data"])
    assert line.startswith("cluster ")
    assert "4 records of ledger" in line


async def test_what_becomes_a_shadow_leaves(desk: Desk):
    """A rule in force that becomes one that only watches takes its near misses and clusters along."""
    silent = [missing(f"m{n}", f"order {n * 7919}", f"{100 + n}.13", after_s=60 * n) for n in range(2)]
    await desk.take(A, B, *silent)
    assert await desk.pairs() == PAIR
    await desk.take(missing("a", "INV-17", revision=2, offset=20, shadow=True))
    assert await desk.pairs() == {}
    assert {one.cluster for one in (await desk.shown()).values()} == {None}


async def test_what_cannot_be_looked_at_keeps_nothing_else_from_it(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    """A fault in one discrepancy: it is left out and said, all others get their hints."""
    look = explanations.loose_end

    def faulty(one: Discrepancy) -> Any:
        if one.id == uid("bad"):
            raise ArithmeticError("planted")
        return look(one)

    monkeypatch.setattr(explanations, "loose_end", faulty)
    await desk.sink(missing("bad", "INV-99999"), A, B)
    task = asyncio.create_task(explain(desk.store, Health(["database"]), poll_s=0.1, cluster_size_min=3))
    try:
        async with asyncio.timeout(10):
            while await desk.pairs() != PAIR:  # noqa: ASYNC110 - another task works on the database
                await asyncio.sleep(0.05)
    finally:
        task.cancel()
    assert await desk.count("discrepancy_news") == 0


async def test_a_look_reads_by_index_behind_row_level_security(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    """Also before PostgreSQL has statistics. A NUMERIC would not: comparing one could tell of another org's rows."""
    ends = [missing(f"a{n}", f"order {n}", f"{n}.13", after_s=n) for n in range(1, 600)]
    await desk.take(*ends, missing("b", "order 7", "300.13", on="internal"))
    monkeypatch.setattr(explanation_store, "_AROUND", f"EXPLAIN {explanation_store._AROUND}")
    monkeypatch.setattr(explanation_store, "_stored_end", lambda row: row)
    end = loose_end(ends[300])
    assert end is not None
    async with desk.store.transaction() as transaction:
        fetched: list[str] = []
        fetch = transaction._driver.fetch

        async def keep(query: str, *given: Any) -> Any:
            rows = await fetch(query, *given)
            if not query.startswith("EXPLAIN"):
                return rows
            fetched.extend(row["QUERY PLAN"] for row in rows)
            return []

        monkeypatch.setattr(transaction, "_driver", SimpleNamespace(fetch=keep))
        await transaction.around(end, None)
    plan = "\n".join(fetched)
    assert "Seq Scan on loose_ends" not in plan
    assert plan.count("loose_ends_digits_idx") == 5, plan
    assert plan.count("loose_ends_signature_idx") == 1
    assert plan.count("loose_ends_size_idx") == 1

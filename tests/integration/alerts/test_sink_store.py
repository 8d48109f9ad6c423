"""Batches stored in a real PostgreSQL: what stands there afterwards, whatever was stored before."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import text

from services.alerts.adapters.database import EVERY_ORG, Database, DatabaseAway
from services.alerts.adapters.delivery.endpoints import PostgresEndpoints
from services.alerts.adapters.rows import item_of
from services.alerts.adapters.sink_store import PostgresSink
from services.alerts.domain.endpoint import Endpoint
from services.alerts.domain.settled import arrived
from services.alerts.domain.signature import secret_text
from services.alerts.domain.triage import Acknowledge, Resolve, act
from services.alerts.ports.sink import Batch, Checked, Fenced, Found, Place, Span
from services.alerts.use_cases.sink import store
from shared.contracts.discrepancy import Check, Discrepancy, LogPosition
from shared.contracts.inbox import WithdrawRequested, decode_inbox
from shared.contracts.item import Item, in_full
from shared.contracts.leg import Leg, encode_leg_record, group_key
from shared.contracts.matched_pair import PairWords, PlainMatch, encode_pair, encode_words, read_item, read_told
from tests.support.results import START, found, item, item_side, log_at, raised_on, record, resolved, side_of, uid

pytestmark = pytest.mark.postgres
NOW = datetime(2026, 11, 21, tzinfo=UTC)
DISCREPANCIES = Place("discrepancies", 0)
MATCHES = Place("matches", 0)


class Sink:
    """Stores batches one after the other, each moving both places on by what it holds."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.store = PostgresSink(database)
        self.places: dict[Place, int] = {}

    async def open(self, live: int = 0) -> "Sink":
        begin = {DISCREPANCIES: 0, MATCHES: 0}
        self.places = await self.store.open_places(begin, dict.fromkeys(begin, live))
        return self

    async def take(self, *results: Discrepancy | Item | PlainMatch, **more: Any) -> None:
        discrepancies = [r for r in results if isinstance(r, Discrepancy)]
        start = self.places[DISCREPANCIES]
        batch = Batch(
            spans=[Span(place, at, at + max(len(results), 1)) for place, at in self.places.items()],
            discrepancies=[Found(d, DISCREPANCIES, start + n, NOW) for n, d in enumerate(discrepancies)],
            items=[arrived(r) for r in results if isinstance(r, Item | PlainMatch)],
            **more,
        )
        await store(self.store, batch, NOW)
        self.places = {span.place: span.end for span in batch.spans}

    async def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        async with self.database.transaction(EVERY_ORG) as connection:
            return [dict(row) for row in (await connection.execute(text(query), values)).mappings()]

    async def one(self, query: str, **values: Any) -> dict[str, Any]:
        (row,) = await self.rows(query, **values)
        return row

    async def execute(self, query: str, **values: Any) -> None:
        async with self.database.transaction(EVERY_ORG) as connection:
            await connection.execute(text(query), values)

    async def current(self) -> dict[str, Any]:
        return await self.one("SELECT * FROM discrepancies")

    async def person(self, action: Any) -> None:
        """What the triage API does."""
        async with self.store.transaction([]) as transaction:
            (id_,) = [row["id"] for row in await transaction._driver.fetch("SELECT id::text FROM discrepancies")]
            standing = (await transaction.standings([id_]))[id_]
            after, _ = act(standing, action, "ann", NOW)
            accepted = None if after.accepted is None else msgspec.json.encode(after.accepted).decode()
            await transaction._driver.execute(
                "UPDATE discrepancies SET status = $1, reason = $2, accepted = $3", after.status, after.reason, accepted
            )


@pytest.fixture
async def sink(database: Database) -> Sink:
    return await Sink(database).open()


async def test_a_raised_discrepancy_is_stored_whole_and_open(sink: Sink):
    """Every published field is there; status is open, the log is empty."""
    await sink.take(found())
    row = await sink.current()
    assert (row["status"], row["state"], row["revision"]) == ("open", "raised", 1)
    assert (row["expected"], row["actual"], str(row["difference"])) == ("100.00", "90.00", "-10.00")
    assert row["key"] == "pay_1"
    assert list(row["sides"]) == ["internal", "provider"]
    assert await sink.rows("SELECT * FROM action_log") == []


FAR = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
ODD_ITEMS: list[dict[str, Any]] = [
    {},
    {"key": ["a\tb\\\n", 'quoted "β"'], "org": "größe", "rule": "a.β", "pack": "p\t\\."},
    {"occurred_at": None, "live": False, "status": "pending", "sides": {"internal": None, "provider": None}},
    {"at": FAR[0], "occurred_at": FAR[1], "log": LogPosition(partition=2**31 - 1, offset=2**63 - 1, time=FAR[1])},
    {"shadow": True, "confidence": "0.9312", "reasons": ["same amount", "naïve \\ \t name"]},
    {"status": "discrepant", "discrepancies": [raised_on(found()), raised_on(found("d2", side="internal"))]},
    {"sides": {"z": item_side(record("\\N", None, currency=None, status=None)), "a": None, "β": item_side(live=0)}},
]
WHOLE = """
SELECT id::text, revision, status, org, rule, pack, key::text, sides::text, discrepancies::text, at, occurred_at, live,
       log_partition, log_offset, log_time, shadow, confidence, reasons::text, reopened_offset
FROM items WHERE revision = :revision"""


@pytest.mark.parametrize("revision", [1, 2])
async def test_items_are_stored_as_they_came(sink: Sink, revision: int):
    """Whatever they say, new ones and changed ones: their rows are bytes of our own making."""
    came = [item(f"o{n}", revision, **{"key": f"o{n}"} | said) for n, said in enumerate(ODD_ITEMS)]
    if revision > 1:
        await sink.take(*(item(f"o{n}", key=f"o{n}", offset=9) for n in range(len(came))))
    await sink.take(*came)
    rows = {row["id"]: row for row in await sink.rows(WHOLE, revision=revision)}
    for one in came:
        sides = {name: side and in_full(side) for name, side in one.sides.items()}
        assert item_of(rows[one.id]) == msgspec.structs.replace(one, sides=sides)
        assert rows[one.id]["reopened_offset"] is None


async def test_a_pair_is_stored_as_its_item_and_compared_with_it(sink: Sink):
    """Two legs that agree and the same item as JSON are one: whichever comes first, the other changes nothing."""
    legs = [
        Leg("g", side, source, f"{source}_1", f"evt_{side}", 1_750_000_000_123_456, 0, 0, 1_750_000_000_999, 0, None,
            "12.50", "EUR", "succeeded")
        for side, source in enumerate(("ledger", "stripe"))
    ]  # fmt: skip
    words = encode_words(PairWords("billing", ("internal", "provider")))
    group = group_key("acme", "billing.payments", ("pay_1",))
    pair = encode_pair(words, group, 3, 70, 1_750_000_000_001, *map(encode_leg_record, legs))
    tables = "items", "item_records", "item_revisions"
    await sink.take(read_told(pair))
    first = [await sink.rows(f"SELECT * FROM {table} ORDER BY 1") for table in tables]
    assert [len(rows) for rows in first] == [1, 2, 0]
    await sink.take(read_item(pair), read_told(pair))
    assert [await sink.rows(f"SELECT * FROM {table} ORDER BY 1") for table in tables] == first
    (row,) = await sink.rows(WHOLE, revision=1)
    written = read_item(pair)
    sides = {name: side and in_full(side) for name, side in written.sides.items()}
    assert item_of(row) == msgspec.structs.replace(written, sides=sides)


async def test_the_engine_resolves_with_a_row_in_the_log(sink: Sink):
    """Status follows the engine's resolve; the log says who."""
    await sink.take(found())
    await sink.take(resolved())
    row = await sink.current()
    assert (row["status"], row["state"], row["resolution"]) == ("resolved", "resolved", "corrected")
    log = await sink.one("SELECT actor, action, from_status, to_status, reason FROM action_log")
    assert log == {
        "actor": "engine",
        "action": "engine_resolve",
        "from_status": "open",
        "to_status": "resolved",
        "reason": "corrected",
    }


async def test_several_revisions_of_one_batch_leave_the_last_and_the_whole_history(sink: Sink):
    """Raise, resolve and raise again in one batch: current is the third, history has all."""
    await sink.take(found(), resolved(), found(revision=3, offset=12))
    row = await sink.current()
    assert (row["revision"], row["status"], row["reopened"]) == (3, "open", 1)
    history = await sink.rows("SELECT revision, state FROM discrepancy_revisions ORDER BY log_offset")
    assert history == [
        {"revision": 1, "state": "raised"},
        {"revision": 2, "state": "resolved"},
        {"revision": 3, "state": "raised"},
    ]
    actions = [row["action"] for row in await sink.rows("SELECT action FROM action_log ORDER BY id")]
    assert actions == ["engine_resolve", "reopen"]


async def test_redelivered_records_change_nothing(sink: Sink):
    """A rebuild reads everything again: rows, history and log stay as they are."""
    results = (found(), resolved(), item())
    await sink.take(*results)
    before = [
        await sink.rows(f"SELECT * FROM {t}") for t in ("discrepancies", "items", "action_log", "discrepancy_revisions")
    ]
    await sink.take(*results)
    after = [
        await sink.rows(f"SELECT * FROM {t}") for t in ("discrepancies", "items", "action_log", "discrepancy_revisions")
    ]
    assert before == after


async def test_a_persons_resolve_stays_until_the_facts_change(sink: Sink):
    """A new severity leaves it resolved; a new actual reopens it with a row that says what changed."""
    await sink.take(found())
    await sink.person(Acknowledge())
    await sink.person(Resolve("accepted", "bank fee"))
    await sink.take(found(revision=2, offset=11, severity="high"))
    row = await sink.current()
    assert (row["status"], row["reason"], row["severity"]) == ("resolved", "accepted", "high")
    await sink.take(found(revision=3, offset=12, actual="80.00", difference="-20.00"))
    row = await sink.current()
    assert (row["status"], row["reason"], row["reopened"]) == ("open", None, 1)
    log = await sink.one("SELECT actor, action, notes FROM action_log")
    assert log == {
        "actor": "engine",
        "action": "reopen",
        "notes": "changed since it was resolved: actual: 90.00 -> 80.00",
    }


async def test_a_key_that_returns_after_keep_is_not_dropped(sink: Sink):
    """The same id at revision 1 with a greater log offset is newer than revision 2 before it."""
    await sink.take(found(), resolved())
    await sink.take(found(revision=1, offset=500))
    row = await sink.current()
    assert (row["revision"], row["log_offset"], row["status"]) == (1, 500, "open")


async def test_an_older_place_in_the_log_is_ignored(sink: Sink):
    """A greater revision from an earlier life of the key does not overwrite the present one."""
    await sink.take(found(revision=1, offset=500))
    await sink.take(resolved(revision=9, offset=400))
    assert (await sink.current())["state"] == "raised"


async def test_a_batch_moves_its_places_or_stores_nothing(sink: Sink):
    """A zombie holds an old place: it is fenced and leaves no row."""
    zombie = Sink(sink.database)
    zombie.places = dict(sink.places)
    await sink.take(found())
    with pytest.raises(Fenced, match="another sink has it"):
        await zombie.take(found("d2", key="pay_2"))
    assert len(await sink.rows("SELECT id FROM discrepancies")) == 1


async def test_a_failed_batch_leaves_no_trace(sink: Sink):
    """A row that PostgreSQL refuses rolls rows, log and places back together."""
    bad = msgspec.structs.replace(found("d2", key="pay_2"), id="no uuid")
    with pytest.raises(Exception, match="UUID"):
        await sink.take(found(), bad)
    assert await sink.rows("SELECT id FROM discrepancies") == []
    assert {row["next_offset"] for row in await sink.rows("SELECT next_offset FROM sink_offsets")} == {0}
    await sink.take(found())
    assert len(await sink.rows("SELECT id FROM discrepancies")) == 1


async def test_two_sinks_of_one_batch_store_it_once(sink: Sink):
    """Both start at once; one wins, the other is fenced."""
    other = Sink(sink.database)
    other.places = dict(sink.places)
    outcomes = await asyncio.gather(sink.take(found()), other.take(found()), return_exceptions=True)
    assert sorted(type(o).__name__ for o in outcomes) == ["Fenced", "NoneType"]


async def test_progress_never_falls(sink: Sink):
    """The greatest place reached stays, also when an older one is read again."""
    await sink.take(progress={MATCHES: log_at(50)})
    await sink.take(progress={MATCHES: log_at(40)})
    assert (await sink.one("SELECT log_offset FROM progress"))["log_offset"] == 50


async def test_checks_are_stored_once(sink: Sink):
    """The same topic record read twice is one check."""
    check = Check(
        org="acme", rule="r.b", pack="stack", key="acct", code="balance", result="passed", currency="EUR",
        as_of=START, expected="1.00", actual="1.00", difference="0.00", log=log_at(3),
    )  # fmt: skip
    await sink.take(checks=[Checked(Place("checks", 0), 7, check)])
    await sink.take(checks=[Checked(Place("checks", 0), 7, check)])
    assert len(await sink.rows("SELECT id FROM checks")) == 1


# Endpoints


async def endpoint(sink: Sink, name: str = "e1", **changes: Any) -> None:
    values = {"types": [], "severity_min": "low", "created_at": NOW - timedelta(days=1), "org": "acme"} | changes
    await sink.execute(
        "INSERT INTO webhook_endpoints (id, org, url, secret, types, severity_min, created_at) "
        "VALUES (CAST(:id AS uuid), :org, 'https://example.com', 's', :types, :severity_min, :created_at)",
        id=uid(name),
        **values,
    )


async def messages(sink: Sink) -> list[tuple[str, str]]:
    return [(r["type"], r["severity"]) for r in await sink.rows("SELECT type, severity FROM outbox ORDER BY id")]


async def test_endpoints_of_the_org_get_each_revision_once(sink: Sink):
    """Filters choose; another org's endpoint and one made later get nothing."""
    await endpoint(sink)
    await endpoint(sink, "high only", severity_min="high")
    await endpoint(sink, "missing only", types=["MissingProviderRecord"])
    await endpoint(sink, "other org", org="other")
    await endpoint(sink, "made later", created_at=NOW + timedelta(hours=1))
    await sink.take(found())
    await sink.take(found())
    await sink.take(resolved())
    assert await messages(sink) == [("discrepancy.raised", "medium"), ("discrepancy.resolved", "medium")]


@pytest.mark.parametrize("is_first", [True, False])
async def test_an_endpoint_made_by_a_clock_that_is_ahead_hears_from_the_start(sink: Sink, is_first: bool):
    """What was appended is told by the broker's clock: minutes must not be lost where ours is ahead of it."""
    if not is_first:
        stored = "INSERT INTO progress (topic, partition, log_time, log_offset) VALUES ('discrepancies', 0, :at, 1)"
        await sink.execute(stored, at=NOW - timedelta(seconds=1))
    ahead = Endpoint(id=uid("e1"), org="acme", url="https://e1.example/", created_at=NOW + timedelta(minutes=5))
    await PostgresEndpoints(sink.database).add(ahead, secret_text(b"s" * 32), 10)
    await sink.take(found())
    assert await messages(sink) == [("discrepancy.raised", "medium")]


async def test_what_a_person_resolved_is_not_alerted_again_unless_it_reopens(sink: Sink):
    """An update of what was accepted is silent; a changed amount is raised anew."""
    await endpoint(sink)
    await sink.take(found())
    await sink.person(Resolve("accepted"))
    await sink.take(found(revision=2, offset=11, severity="high"))
    await sink.take(found(revision=3, offset=12, actual="80.00"))
    assert await messages(sink) == [("discrepancy.raised", "medium"), ("discrepancy.raised", "medium")]


async def test_a_rebuild_tells_nobody(database: Database):
    """Below the live offset of its place a revision is stored and not sent."""
    sink = await Sink(database).open(live=1)
    await endpoint(sink)
    await sink.take(found())
    await sink.take(found("d2", key="pay_2"))
    assert len(await sink.rows("SELECT id FROM discrepancies")) == 2
    assert len(await messages(sink)) == 1


async def test_a_rebuild_tells_nobody_of_records_that_moved(database: Database):
    """The sink makes these itself, from items: it is their place that tells what was told before."""
    sink = await Sink(database).open(live=2)
    await endpoint(sink)
    await sink.take(held("a", "k1", offset=10), held("b", "k2", offset=20))
    assert (await sink.current())["type"] == "RecordMoved"
    assert await messages(sink) == []
    await sink.take(held("a", "k1", offset=30, revision=2, live=0))
    assert await messages(sink) == [("discrepancy.resolved", "high")]


# Settled groups that are repeated


def missing(name: str = "d9", *, offset: int, revision: int = 1, **changes: Any) -> Discrepancy:
    sides = {"internal": side_of(record("pay_1")), "provider": None}
    values = {"type": "MissingProviderRecord", "sides": sides, "actual": None, "side": "provider"}
    return found(name, revision, offset=offset, **values | changes)


def half(name: str = "i1", *, offset: int, revision: int = 1) -> Item:
    sides = {"internal": item_side(record("pay_1")), "provider": None}
    raised = [raised_on(missing(offset=offset))]
    return item(name, revision, offset=offset, status="discrepant", sides=sides, discrepancies=raised)


async def test_a_repeat_of_settled_records_is_stored_as_already_settled(sink: Sink):
    """The ledger delivers its event again after `keep`: no alarm, and the item stays matched."""
    await endpoint(sink)
    await sink.take(item(offset=10))
    await sink.take(half(offset=900), missing(offset=900))
    row = await sink.current()
    assert (row["state"], row["status"], row["resolution"]) == ("resolved", "resolved", "already_settled")
    assert (await sink.one("SELECT status FROM items"))["status"] == "matched"
    assert await messages(sink) == []
    await sink.take(resolved("d9", 2, offset=950, type="MissingProviderRecord"))
    assert (await sink.current())["resolution"] == "already_settled"


async def test_a_repeat_under_another_id_does_not_become_a_second_item(sink: Sink):
    """The provider's event opens the group this time: its item would count the same money twice."""
    await sink.take(item(offset=10))
    await sink.take(half("opened by the other side", offset=900))
    assert len(await sink.rows("SELECT id FROM items")) == 1


async def test_a_new_record_on_a_settled_key_is_raised(sink: Sink):
    """Trap 21: only repeats are silent."""
    await sink.take(item(offset=10))
    news = {"internal": side_of(record("pay_1b")), "provider": None}
    await sink.take(missing(offset=900, sides=news))
    assert (await sink.current())["status"] == "open"


async def test_a_newer_event_with_another_amount_on_a_settled_key_is_raised(sink: Sink):
    """The record is known, its content is not."""
    await sink.take(item(offset=10))
    changed = side_of(record("pay_1", "70.00", occurred_at=START + timedelta(hours=1)))
    await sink.take(missing(offset=900, sides={"internal": changed, "provider": None}))
    assert (await sink.current())["status"] == "open"


async def test_a_match_that_is_withdrawn_is_no_repeat(sink: Sink):
    """The next revision of a live group is stored even though its records are known."""
    await sink.take(item(offset=10))
    await sink.take(half(offset=20, revision=2))
    assert (await sink.one("SELECT status FROM items"))["status"] == "discrepant"


# Records under two keys


def held(name: str, key: Any, *, offset: int, revision: int = 1, live: int = 1, **changes: Any) -> Item:
    sides = {"internal": item_side(record("pay_7"), live=live), "provider": None}
    values = {"key": key, "sides": sides, "status": "discrepant", "live": live > 0}
    return item(name, revision, offset=offset, **values | changes)


async def test_a_record_under_two_keys_has_moved_until_it_leaves_one(sink: Sink):
    """Raised when the second key shows it live, resolved when the first lets it go."""
    await sink.take(held("a", "k1", offset=10))
    await sink.take(held("b", "k2", offset=20))
    row = await sink.current()
    assert (row["type"], row["status"], row["key"], row["severity"]) == ("RecordMoved", "open", "k2", "high")
    assert "under k1 and under k2" in row["explanation"]
    await sink.take(held("a", "k1", offset=30, revision=2, live=0))
    row = await sink.current()
    assert (row["state"], row["status"], row["revision"]) == ("resolved", "resolved", 2)
    assert len(await sink.rows("SELECT * FROM item_records WHERE live")) == 1


async def test_a_moved_record_is_seen_within_one_batch_too(sink: Sink):
    """Both items arrive at once; only one discrepancy is made."""
    await sink.take(held("a", "k1", offset=10), held("b", "k2", offset=20))
    assert (await sink.current())["type"] == "RecordMoved"


async def test_a_record_under_many_keys_is_one_discrepancy(sink: Sink):
    """A third key says nothing new; leaving a named key names the two that remain; leaving all but one resolves it."""
    await sink.take(held("a", "k1", offset=10), held("b", "k2", offset=20))
    await sink.take(held("c", "k3", offset=30))
    row = await sink.current()
    assert (row["revision"], row["expected"], row["actual"]) == (1, "k1", "k2")
    await sink.take(held("a", "k1", offset=40, revision=2, live=0))
    row = await sink.current()
    assert (row["revision"], row["state"], {row["expected"], row["actual"]}) == (2, "raised", {"k2", "k3"})
    await sink.take(held("b", "k2", offset=50, revision=2, live=0))
    row = await sink.current()
    assert (row["revision"], row["state"]) == (3, "resolved")
    await sink.take(held("d", "k4", offset=60))
    row = await sink.current()
    assert (row["revision"], row["state"], row["expected"], row["actual"]) == (4, "raised", "k3", "k4")


async def test_of_a_record_that_thousands_of_keys_hold_only_a_few_are_read(sink: Sink):
    """What a batch reads is bounded by what the batch speaks of, and it makes one discrepancy."""
    await sink.take(*(held(f"i{n}", f"k{n}", offset=10 + n) for n in range(300)))
    assert len(await sink.rows("SELECT id FROM discrepancies")) == 1
    (record_id,) = arrived(held("i0", "k0", offset=10)).records
    async with sink.store.transaction([]) as transaction:
        found = await transaction.holders_among({(record_id, uid("nowhere")), (record_id, uid("nor here"))})
        first = await transaction.holders({record_id}, 9)
    assert 2 <= len(found[record_id]) <= 4
    assert len(first[record_id]) == 9


@pytest.mark.parametrize("live", [0, 1])
async def test_a_record_that_many_keys_hold_is_withdrawn_and_named_as_any_other(sink: Sink, live: int):
    """Where not all groups are read: the keyless one is asked for, in either order, and the last two are told apart."""
    many = [held(f"i{n}", f"k{n}", offset=10 + n, live=live) for n in range(20)]
    await sink.take(*many[:10])
    await sink.take(held("a", KEYLESS, offset=100))
    assert await requests(sink) == [REQUEST]
    for one in many[10:]:
        await sink.take(one)
        assert await requests(sink) == [REQUEST]
    states = []
    for n in range(20):
        await sink.take(held(f"i{n}", f"k{n}", offset=200 + n, revision=2, live=0))
        states += [row["state"] for row in await sink.rows("SELECT state FROM discrepancies")]
    assert states == (["raised"] * 18 + ["resolved"] * 2 if live else [])


KEYLESS = "record:ledger/pay_7"
REQUEST = WithdrawRequested(org="acme", rule="billing.payments", source="ledger", record="pay_7")


async def requests(sink: Sink) -> list[Any]:
    """Take what waits for the inbox, as the publisher does, and read it."""
    rows = await sink.rows("SELECT topic, value FROM topic_outbox ORDER BY id")
    assert {row["topic"] for row in rows} <= {"inbox"}
    await sink.execute("DELETE FROM topic_outbox")
    return [decode_inbox(row["value"]) for row in rows]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("live_under_its_key", [True, False])
@pytest.mark.parametrize("keyless_first", [True, False])
async def test_a_keyless_record_that_also_has_a_key_is_withdrawn(
    sink: Sink, keyless_first: bool, live_under_its_key: bool, together: bool
):
    """In either order, in one batch or two: a record that was canceled under its key is not missing without one."""
    both = [held("a", KEYLESS, offset=10), held("b", "k2", offset=20, live=int(live_under_its_key))]
    ordered = both if keyless_first else both[::-1]
    for batch in [ordered] if together else [[part] for part in ordered]:
        assert await requests(sink) == []
        await sink.take(*batch)
    assert await requests(sink) == [REQUEST]
    assert await sink.rows("SELECT id FROM discrepancies") == []


def withdrawn(*, offset: int, revision: int) -> Item:
    """What the matcher publishes of the keyless group once the record is taken out."""
    return item(
        "a",
        revision,
        offset=offset,
        key=KEYLESS,
        status="pending",
        live=False,
        sides=dict.fromkeys(("internal", "provider")),
    )


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("revision", [3, 1])
async def test_a_keyless_event_that_comes_again_after_the_withdrawal_is_withdrawn_again(
    sink: Sink, revision: int, together: bool
):
    """In the group that is still held, or in a new one after `keep`, which begins at revision 1 again."""
    await sink.take(held("b", "k2", offset=20), held("a", KEYLESS, offset=30))
    assert await requests(sink) == [REQUEST]
    again = [withdrawn(offset=40, revision=2), held("a", KEYLESS, offset=50, revision=revision)]
    for batch in [again] if together else [[part] for part in again]:
        assert await requests(sink) == []
        await sink.take(*batch)
    assert await requests(sink) == [REQUEST]


async def test_a_record_that_left_its_keyless_group_is_asked_for_no_more(sink: Sink):
    """What changes under its key afterwards is its own matter."""
    await sink.take(held("a", KEYLESS, offset=10), held("b", "k2", offset=20))
    assert await requests(sink) == [REQUEST]
    await sink.take(withdrawn(offset=30, revision=2))
    await sink.take(held("b", "k2", offset=40, revision=2, live=0))
    await sink.take(held("c", "k3", offset=50))
    assert await requests(sink) == []
    places = await sink.rows("SELECT i.key, r.live FROM item_records r JOIN items i ON i.id = r.item_id ORDER BY i.key")
    assert places == [{"key": "k2", "live": False}, {"key": "k3", "live": True}]


async def test_a_real_key_that_looks_like_one_of_a_keyless_record_is_a_key(sink: Sink):
    """Only the record's own name stands for its absent key."""
    await sink.take(held("a", "record:ledger/pay_8", offset=10), held("b", "k2", offset=20))
    assert await requests(sink) == []
    assert (await sink.current())["type"] == "RecordMoved"


async def test_a_record_that_is_not_live_has_not_moved(sink: Sink):
    """A declined attempt under another key is no second payment."""
    await sink.take(held("a", "k1", offset=10), held("b", "k2", offset=20, live=0))
    assert await sink.rows("SELECT id FROM discrepancies") == []


async def test_a_database_that_is_away_is_said_so():
    """The error is the one that callers wait on, and names no password."""
    sink = PostgresSink(Database("postgresql://u:secret@127.0.0.1:1/x"))
    with pytest.raises(DatabaseAway, match=r"127\.0\.0\.1:1/x") as error:
        async with sink.transaction([]):
            pass
    assert "secret" not in str(error.value)


# Revisions of items


async def revisions(sink: Sink) -> list[tuple[int, str]]:
    """What the table of earlier revisions holds."""
    query = "SELECT revision, status FROM item_revisions ORDER BY log_offset, revision"
    return [(row["revision"], row["status"]) for row in await sink.rows(query)]


async def test_an_item_is_stored_once_and_what_it_was_is_kept_when_it_changes(sink: Sink):
    """The present revision stands in items alone; within a batch and between batches none is lost."""
    await sink.take(item(offset=10))
    assert await revisions(sink) == []
    await sink.take(item(revision=2, offset=20, status="pending"), item(revision=3, offset=30))
    assert (await sink.one("SELECT revision FROM items"))["revision"] == 3
    assert await revisions(sink) == [(1, "matched"), (2, "pending")]
    await sink.take(item(offset=10), item(revision=2, offset=20, status="pending"), item(revision=3, offset=30))
    assert await revisions(sink) == [(1, "matched"), (2, "pending")]


async def test_several_revisions_of_a_new_item_in_one_batch_leave_the_last_and_the_others(sink: Sink):
    """As if they had come one by one; so do its records."""
    without = {"internal": item_side(record("pay_1")), "provider": None}
    await sink.take(item(offset=10), item(revision=2, offset=20, status="pending", sides=without))
    assert (await sink.one("SELECT revision FROM items"))["revision"] == 2
    assert await revisions(sink) == [(1, "matched")]
    assert len(await sink.rows("SELECT * FROM item_records")) == 1


async def test_whoever_changes_an_item_leaves_what_it_was(sink: Sink):
    """The database keeps the revision itself; a note on the present one is no revision."""
    await sink.take(item(offset=10))
    await sink.execute("UPDATE items SET reopened_offset = 5")
    assert await revisions(sink) == []
    await sink.execute("UPDATE items SET revision = 2, log_offset = 20")
    assert await revisions(sink) == [(1, "matched")]
    with pytest.raises(Exception, match="items is append-only"):
        await sink.execute("DELETE FROM items")


async def test_an_item_that_came_from_elsewhere_is_compared_and_not_doubled(sink: Sink):
    """Where a new item is there after all (its key reads differently), the newer revision stands and history is whole."""
    await sink.take(item(offset=10), item("i2", key="pay_2", offset=11))
    sides = {"internal": item_side(record("pay_1")), "provider": item_side(record("pay_3", source="stripe"), live=0)}
    await sink.take(item(revision=2, key=["pay_1", "x"], offset=20, sides=sides), item("i3", key="pay_3", offset=21))
    rows = await sink.rows("SELECT revision, key FROM items ORDER BY log_offset")
    assert rows == [
        {"revision": 1, "key": "pay_2"},
        {"revision": 2, "key": ["pay_1", "x"]},
        {"revision": 1, "key": "pay_3"},
    ]
    assert await revisions(sink) == [(1, "matched")]


async def test_a_new_item_tells_which_of_its_records_count(sink: Sink):
    """A void record is held as well, and does not count."""
    sides = {"internal": item_side(record("pay_1"), record("pay_0", status="voided"), live=1), "provider": None}
    await sink.take(item(offset=10, sides=sides))
    assert [row["live"] for row in await sink.rows("SELECT live FROM item_records ORDER BY live")] == [False, True]


async def test_what_a_shadow_finds_is_stored_and_told_to_nobody_until_it_is_none(sink: Sink):
    """Columns say so, no message is written; the revision that leaves the shadow is told as raised."""
    await sink.execute(
        "INSERT INTO webhook_endpoints (id, org, url, secret, created_at) "
        "VALUES (gen_random_uuid(), 'acme', 'https://hook.example', 's', '2026-01-01T00:00:00Z')"
    )
    await sink.take(found(shadow=True), item(shadow=True))
    assert (await sink.current())["shadow"]
    assert (await sink.one("SELECT shadow FROM items"))["shadow"]
    assert await sink.rows("SELECT * FROM outbox") == []
    assert await sink.rows('SELECT * FROM "ReconciliationDiscrepancy"') == []
    assert await sink.rows('SELECT * FROM "ReconciliationItem"') == []
    await sink.take(found(revision=2, offset=20), item(revision=2, offset=20))
    assert [row["type"] for row in await sink.rows("SELECT type FROM outbox")] == ["discrepancy.raised"]
    assert not (await sink.current())["shadow"]
    shadows = await sink.rows("SELECT shadow FROM discrepancy_revisions ORDER BY revision")
    assert [row["shadow"] for row in shadows] == [True, False]
    assert (await sink.one("SELECT shadow FROM item_revisions"))["shadow"]
    assert len(await sink.rows('SELECT * FROM "ReconciliationDiscrepancy"')) == 1

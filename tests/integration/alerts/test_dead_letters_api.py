"""`/v1/dead-letters` over ASGI on a real PostgreSQL and Kafka: who may do what, and what each answer says."""

import asyncio
import base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.adapters.dead_letter_store import PostgresDeadLetters
from services.alerts.adapters.directory_store import PostgresDirectory
from services.alerts.adapters.inbox_reader import KafkaInbox
from services.alerts.adapters.topic_outbox import TopicOutbox
from services.alerts.domain.dead_letter import RAW_BYTES_MAX
from services.alerts.handlers.http import create_app, dead_letters
from services.alerts.use_cases.dead_letters import DeadLetters, store
from services.alerts.use_cases.keys import Keys
from shared.contracts.dead_letter import DeadLetter
from shared.kafka.client import producer
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from shared.kafka.whole_topic import read_whole
from shared.telemetry.health import Health
from tests.support.letters import letter, set_aside
from tests.support.results import START, uid
from tieout.cli import build

pytestmark = pytest.mark.postgres
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
URL = "/v1/dead-letters"
AWAY = KafkaSettings.local("127.0.0.1:1")


class Api:
    """The application and a client per key."""

    def __init__(self, database: Database, kafka: KafkaSettings) -> None:
        self.database = database
        self.directory = PostgresDirectory(database)
        self.letters = PostgresDeadLetters(database)
        routers = [dead_letters.router(DeadLetters(self.letters, KafkaInbox(kafka), lambda: NOW))]
        self.app = create_app(routers, self.directory, Health(["database"]))
        self.secrets: dict[str, str] = {}

    async def add_keys(self) -> "Api":
        keys = Keys(self.directory, lambda: NOW)
        for role in ("owner", "manager", "viewer", "ingest"):
            self.secrets[role] = (await keys.create("acme", role, f"{role} key")).key
        self.secrets["stranger"] = (await keys.create("other", "owner", "other's key")).key
        return self

    async def ask(self, method: str, path: str, key: str | None = "manager", **more: Any) -> httpx.Response:
        headers = {} if key is None else {"Authorization": f"Bearer {self.secrets.get(key, key)}"}
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://tieout") as client:
            return await client.request(method, path, headers=headers, **more)

    async def add(self, *arrived: DeadLetter) -> None:
        await store(self.letters, arrived, NOW)

    async def rows(self, query: str) -> list[dict[str, Any]]:
        async with self.database.transaction(EVERY_ORG) as connection:
            return [dict(row) for row in (await connection.execute(text(query))).mappings()]


@pytest.fixture
async def api(database: Database) -> Api:
    """Without Kafka: everything but a replay works."""
    return await Api(database, AWAY).add_keys()


def problem(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """The body of an error, checked for what every error has."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (body["type"], body["status"]) == (f"urn:tieout:problem:{slug}", status)
    assert body["title"]
    assert body["detail"]
    return body


def one(name: str, action: str = "") -> str:
    return f"{URL}/{uid(name)}{action}"


async def test_the_list_says_what_and_why_and_what_to_do(api: Api):
    """Everything but the raw body, which the one letter shows."""
    await api.add(letter())
    assert (await api.ask("GET", URL, "viewer")).json() == {
        "data": [
            {
                "id": uid("l1"),
                "source": "ledger",
                "reason": "no match key",
                "detail": "ledger event l1: refs.payment_id is empty, so nothing can be matched with it",
                "hint": "Send a newer event of the same record with the key.",
                "rule": "billing.payments",
                "event": "l1",
                "inbox_partition": 0,
                "inbox_offset": 7,
                "received_at": "2026-11-20T10:00:00Z",
                "first_seen_at": "2026-11-21T12:00:00Z",
                "raw_bytes": 29,
                "state": "open",
                "state_by": None,
                "state_reason": None,
                "state_at": None,
            }
        ],
        "next_cursor": None,
    }
    shown = (await api.ask("GET", one("l1"), "viewer")).json()
    assert (shown["raw"], shown["raw_encoding"], shown["raw_truncated"], shown["changes"]) == (
        '{"id": "x", "amount": "1.00"}',
        "utf-8",
        False,
        [],
    )


async def test_filters_and_pages(api: Api):
    """Each filter alone and together; a cursor goes on where the page ended."""
    await api.add(
        letter("a", reason="refused", source="stripe", rule=None, received_at=START + timedelta(seconds=3)),
        letter("b", received_at=START + timedelta(seconds=2)),
        letter("c", rule="billing.refunds", received_at=START + timedelta(seconds=1)),
        letter("d"),
    )
    await api.ask("POST", one("d", "/dismiss"), json={"reason": "known"})

    async def events(**wanted: Any) -> list[str]:
        return [found["event"] for found in (await api.ask("GET", URL, params=wanted)).json()["data"]]

    assert await events() == ["a", "b", "c", "d"]
    assert await events(state="open") == ["a", "b", "c"]
    assert await events(state="dismissed") == ["d"]
    assert await events(reason="refused") == ["a"]
    assert await events(source="ledger", rule="billing.payments") == ["b", "d"]
    assert await events(rule="billing.refunds", state="replayed") == []

    first = (await api.ask("GET", URL, params={"limit": 3})).json()
    assert [found["event"] for found in first["data"]] == ["a", "b", "c"]
    rest = (await api.ask("GET", URL, params={"limit": 3, "cursor": first["next_cursor"]})).json()
    assert ([found["event"] for found in rest["data"]], rest["next_cursor"]) == (["d"], None)

    counted = (await api.ask("GET", "/v1/dead-letter-counts", "viewer")).json()["data"]
    assert [(c["state"], c["reason"], c["source"], c["rule"], c["count"]) for c in counted] == [
        ("dismissed", "no match key", "ledger", "billing.payments", 1),
        ("open", "no match key", "ledger", "billing.payments", 1),
        ("open", "no match key", "ledger", "billing.refunds", 1),
        ("open", "refused", "stripe", None, 1),
    ]


@pytest.mark.parametrize(
    ("wanted", "slug"),
    [
        ({"state": "lost"}, "invalid-request"),
        ({"reason": "because"}, "invalid-request"),
        ({"source": "a\x00"}, "invalid-request"),
        ({"limit": 0}, "invalid-request"),
        ({"cursor": "made up"}, "bad-cursor"),
    ],
)
async def test_a_wrong_filter_is_422(api: Api, wanted: dict[str, Any], slug: str):
    problem(await api.ask("GET", URL, params=wanted), 422, slug)


async def test_a_dismissed_letter_says_who_when_and_why(api: Api):
    """On the letter, and as a line of its history; a second time is 409 with the state."""
    await api.add(letter())
    answer = await api.ask("POST", one("l1", "/dismiss"), json={"reason": "  vendor's test event "})
    assert answer.status_code == 200
    body = answer.json()
    who = body["state_by"]
    assert who.startswith("manager key (tk_")
    assert (body["state"], body["state_reason"], body["state_at"]) == (
        "dismissed",
        "vendor's test event",
        "2026-11-21T12:00:00Z",
    )
    shown = (await api.ask("GET", one("l1"))).json()
    assert shown["changes"] == [
        {
            "at": "2026-11-21T12:00:00Z",
            "actor": who,
            "action": "dismiss",
            "from_state": "open",
            "to_state": "dismissed",
            "reason": "vendor's test event",
        }
    ]
    again = problem(
        await api.ask("POST", one("l1", "/dismiss"), json={"reason": "once more"}), 409, "no-such-transition"
    )
    assert (again["current_state"], again["action"]) == ("dismissed", "dismiss")
    assert len(await api.rows("SELECT id FROM dead_letter_changes")) == 1


@pytest.mark.parametrize(
    "body",
    [None, {}, {"reason": ""}, {"reason": "  "}, {"reason": 1}, {"reason": "x", "more": 1}, {"reason": "x" * 4_001}],
)
async def test_a_dismissal_needs_a_reason(api: Api, body: Any):
    await api.add(letter())
    problem(await api.ask("POST", one("l1", "/dismiss"), json=body), 422, "invalid-request")
    assert [row["state"] for row in await api.rows("SELECT state FROM dead_letters")] == ["open"]


WRITES = [("POST", "/dismiss", {"reason": "known"}), ("POST", "/replay", None)]
READS = [URL, one("l1"), "/v1/dead-letter-counts"]


@pytest.mark.parametrize(("method", "action", "body"), WRITES)
async def test_acting_is_for_owners_and_managers_of_the_same_org(api: Api, method: str, action: str, body: Any):
    """401 without or with a wrong key, 403 for other roles, 404 for another organisation; nothing changes."""
    await api.add(letter())
    path = one("l1", action)
    problem(await api.ask(method, path, None, json=body), 401, "unauthorized")
    problem(await api.ask(method, path, "tk_abc_def", json=body), 401, "unauthorized")
    assert problem(await api.ask(method, path, "viewer", json=body), 403, "forbidden")["role"] == "viewer"
    problem(await api.ask(method, path, "ingest", json=body), 403, "forbidden")
    problem(await api.ask(method, path, "stranger", json=body), 404, "not-found")
    assert [row["state"] for row in await api.rows("SELECT state FROM dead_letters")] == ["open"]


@pytest.mark.parametrize("path", READS)
async def test_reading_is_for_everybody_but_senders(api: Api, path: str):
    """The ingest role sends events and sees nothing; another organisation sees nothing of this one."""
    await api.add(letter(), letter("nobodys", org=None))
    problem(await api.ask("GET", path, None), 401, "unauthorized")
    problem(await api.ask("GET", path, "ingest"), 403, "forbidden")
    for role in ("owner", "manager", "viewer"):
        answer = await api.ask("GET", path, role)
        assert answer.status_code == 200
        assert uid("nobodys") not in answer.text
    stranger = await api.ask("GET", path, "stranger")
    assert stranger.status_code == 404 if path == one("l1") else stranger.json() == {"data": [], "next_cursor": None}


@pytest.mark.parametrize("id_", [uid("nothing"), uid("nobodys"), "no-id", "%00"])
async def test_an_unknown_letter_is_404(api: Api, id_: str):
    """Also one that names no organisation, and what can be no id at all."""
    await api.add(letter("nobodys", org=None))
    problem(await api.ask("GET", f"{URL}/{id_}"), 404, "not-found")
    problem(await api.ask("POST", f"{URL}/{id_}/dismiss", json={"reason": "x"}), 404, "not-found")
    problem(await api.ask("POST", f"{URL}/{id_}/replay"), 404, "not-found")


async def test_a_raw_body_is_shown_as_it_is_and_cut_between_characters(api: Api):
    """Markup stays text, what is no text is base64, and a cut never makes a broken character."""
    euros = "€" * RAW_BYTES_MAX
    await api.add(
        letter("markup", raw=b"<script>alert(1)</script>"),
        letter("binary", raw=b"\xff\xfe\x00"),
        letter("long", raw=euros.encode()),
        letter("none", raw=b""),
    )
    shown = {name: (await api.ask("GET", one(name))).json() for name in ("markup", "binary", "long", "none")}
    assert shown["markup"]["raw"] == "<script>alert(1)</script>"
    assert (shown["binary"]["raw_encoding"], base64.b64decode(shown["binary"]["raw"])) == ("base64", b"\xff\xfe\x00")
    assert (shown["long"]["raw_truncated"], shown["long"]["raw_bytes"]) == (True, 3 * RAW_BYTES_MAX)
    assert shown["long"]["raw"] == "€" * (RAW_BYTES_MAX // 3)
    assert (shown["none"]["raw"], shown["none"]["raw_bytes"]) == ("", 0)


async def test_a_replay_while_kafka_is_away_is_503_and_changes_nothing(api: Api):
    await api.add(letter())
    answer = await api.ask("POST", one("l1", "/replay"))
    assert problem(answer, 503, "unavailable")["detail"].startswith("Kafka is away")
    assert await api.rows("SELECT id FROM dead_letter_changes") == []


async def test_openapi_shows_the_routes_with_their_errors(api: Api):
    paths = api.app.openapi()["paths"]
    assert {"/v1/dead-letters", "/v1/dead-letters/{dead_letter_id}", "/v1/dead-letter-counts"} <= set(paths)
    replay = paths["/v1/dead-letters/{dead_letter_id}/replay"]["post"]["responses"]
    assert {"202", "401", "403", "404", "409", "503"} <= set(replay)


async def records_of(kafka: KafkaSettings, topic: str) -> list[tuple[int, bytes, bytes]]:
    return [(record.partition, record.key, record.value) async for record in read_whole(kafka, topic)]


async def fill(kafka: KafkaSettings, topic: str, values: Sequence[bytes]) -> list[tuple[int, int]]:
    """Write values under one key; return their places."""
    client = producer(kafka)
    await client.start()
    try:
        sent = [await client.send_and_wait(topic, value, key=b"pay_1") for value in values]
    finally:
        await client.stop()
    return [(one.partition, one.offset) for one in sent]


@pytest.mark.kafka
async def test_a_replay_sends_the_same_record_through_inbox_again(
    kafka_settings: KafkaSettings, topics: Topics, database: Database
):
    """Same key, value and partition; again and after a dismissal too; every time with its line."""
    api = await Api(database, kafka_settings).add_keys()
    places = await fill(kafka_settings, topics.inbox, [b"before", b"the one", b"after"])
    partition, offset = places[1]
    await api.add(letter(inbox_partition=partition, inbox_offset=offset))
    outbox = TopicOutbox(database, kafka_settings)
    try:
        while await outbox.publish_once():  # the directory's own entries
            pass
        answer = await api.ask("POST", one("l1", "/replay"))
        assert (answer.status_code, answer.json()["state"], answer.json()["state_reason"]) == (202, "replayed", None)
        await api.ask("POST", one("l1", "/dismiss"), json={"reason": "still wrong"})
        assert (await api.ask("POST", one("l1", "/replay"), "owner")).json()["state"] == "replayed"
        assert await outbox.publish_once() == 2
    finally:
        await outbox.close()
    records = await records_of(kafka_settings, topics.inbox)
    assert [value for _, _, value in records] == [b"before", b"the one", b"after", b"the one", b"the one"]
    assert {(place, key) for place, key, _ in records} == {(partition, b"pay_1")}
    changes = (await api.ask("GET", one("l1"))).json()["changes"]
    assert [(c["from_state"], c["to_state"]) for c in changes] == [
        ("open", "replayed"),
        ("replayed", "dismissed"),
        ("dismissed", "replayed"),
    ]


@pytest.mark.kafka
async def test_a_record_that_is_gone_is_409_and_the_letter_stays_open(
    kafka_settings: KafkaSettings, topics: Topics, database: Database
):
    """No such offset, no such partition, and a letter that came from no record of inbox."""
    api = await Api(database, kafka_settings).add_keys()
    await fill(kafka_settings, topics.inbox, [b"another"])
    await api.add(
        letter("offset", inbox_offset=4_711), letter("partition", inbox_partition=99), letter("none", inbox_offset=-1)
    )
    for name in ("offset", "partition", "none"):
        gone = problem(await api.ask("POST", one(name, "/replay")), 409, "record-gone")
        assert "send the event again from its source" in gone["detail"]
    assert {row["state"] for row in await api.rows("SELECT state FROM dead_letters")} == {"open"}


async def command(*words: str) -> tuple[int, str]:
    """Run `tieout …`, which makes an event loop of its own; return exit code and output."""
    answer = await asyncio.to_thread(CliRunner().invoke, build(), words)
    return answer.exit_code, answer.output


@pytest.mark.kafka
async def test_the_command_replays_from_the_topic_without_alerts(
    kafka_settings: KafkaSettings, topics: Topics, monkeypatch: pytest.MonkeyPatch
):
    """`tieout dead-letters` reads the topic and sends the record again; one that is gone is said."""
    monkeypatch.setenv("TIEOUT_KAFKA_BOOTSTRAP_SERVERS", kafka_settings.bootstrap_servers)
    monkeypatch.setenv("TIEOUT_KAFKA_TOPIC_PREFIX", kafka_settings.topic_prefix)
    ((partition, offset),) = await fill(kafka_settings, topics.inbox, [b"the one"])
    await set_aside(
        kafka_settings,
        letter("there", inbox_partition=partition, inbox_offset=offset),
        letter("gone", inbox_partition=partition, inbox_offset=99),
    )
    code, output = await command("dead-letters", "list", "--org", "acme")
    assert (code, output.count("no match key")) == (0, 2)
    code, output = await command("dead-letters", "replay", uid("there"), uid("gone"))
    assert "1 records sent through again" in output
    assert code != 0
    assert [value for _, _, value in await records_of(kafka_settings, topics.inbox)] == [b"the one"] * 2

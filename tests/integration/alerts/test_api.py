"""The triage and directory API over ASGI on a real PostgreSQL: every route with its answers and its refusals."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.adapters.directory_store import PostgresDirectory
from services.alerts.adapters.sink_store import PostgresSink
from services.alerts.adapters.triage_store import PostgresTriage
from services.alerts.domain.adjustment import RuleShape
from services.alerts.domain.settled import arrived
from services.alerts.handlers.http import billing, create_app, v1
from services.alerts.ports.sink import Batch, Found, Place
from services.alerts.use_cases.keys import Keys
from services.alerts.use_cases.sink import store
from services.alerts.use_cases.triage import Triage
from shared.contracts.directory import KeyEntry, OrgEntry, decode_entry
from shared.contracts.inbox import RowReceived, decode_inbox
from shared.telemetry.health import Health
from tests.support.results import START, found, item, uid

pytestmark = pytest.mark.postgres
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
BILLING = "/billing/reconciliation/discrepancies"


class Rules:
    """The rules in force: payments between ledger and stripe."""

    async def shape(self, org: str, pack: str, rule: str) -> RuleShape | None:
        if rule != "billing.payments":
            return None
        return RuleShape(key_fields=("refs.payment_id",), sources={"internal": "ledger", "provider": "stripe"})


class Api:
    """The application and a client per key."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.directory = PostgresDirectory(database)
        self.keys = Keys(self.directory, lambda: NOW)
        triage = Triage(PostgresTriage(database), Rules(), lambda: NOW)
        routers = [
            billing.router(triage),
            v1.discrepancies_router(triage),
            v1.items_router(triage),
            v1.directory_router(self.directory, self.keys),
        ]
        health = Health(["database"])
        health.set_ready("database")
        self.app = create_app(routers, self.directory, health)
        self.secrets: dict[str, str] = {}

    async def ask(
        self, method: str, path: str, key: str | None = "owner", type_: str | None = None, **more: Any
    ) -> httpx.Response:
        headers = {} if key is None else {"Authorization": f"Bearer {self.secrets.get(key, key)}"}
        headers |= {} if type_ is None else {"Content-Type": type_}
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://tieout") as client:
            return await client.request(method, path, headers=headers, **more)

    async def add(self, *results: Any) -> None:
        batch = Batch(spans=[], discrepancies=[Found(d, Place("discrepancies", 0), 0, START) for d in results])
        await store(PostgresSink(self.database), batch, NOW)

    async def rows(self, query: str) -> list[dict[str, Any]]:
        async with self.database.transaction(EVERY_ORG) as connection:
            return [dict(row) for row in (await connection.execute(text(query))).mappings()]


@pytest.fixture
async def api(database: Database) -> Api:
    api = Api(database)
    for role in ("owner", "manager", "viewer", "ingest"):
        api.secrets[role] = (await api.keys.create("acme", role, f"{role} key")).key
    api.secrets["stranger"] = (await api.keys.create("other", "owner", "other's key")).key
    return api


def problem(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """The body of an error, checked for what every error has."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (body["type"], body["status"]) == (f"urn:tieout:problem:{slug}", status)
    assert body["title"]
    assert body["detail"]
    return body


D1 = uid("d1")
ACTIONS = [
    ("PATCH", f"/{D1}/acknowledge", None),
    ("PATCH", f"/{D1}/assign", {"assignee": "ann"}),
    ("PATCH", f"/{D1}/resolve", {"reason": "accepted", "notes": "bank fee"}),
    ("POST", f"/{D1}/notes", {"text": "asked Stripe"}),
]


@pytest.mark.parametrize("base", [BILLING, "/v1/discrepancies"])
async def test_the_whole_triage_of_one_discrepancy(api: Api, base: str):
    """Acknowledge, assign, note, resolve: each answers the new standing and leaves its line in the log."""
    await api.add(found())
    for method, path, body in ACTIONS:
        answer = await api.ask(method, base + path, "manager", json=body)
        assert answer.status_code in (200, 201), answer.text
    listed = (await api.ask("GET", base, "manager")).json()["data"]
    assert [(d["status"], d["state"], d["assignee"], d["reason"]) for d in listed] == [
        ("resolved", "raised", "ann", "accepted")
    ]
    shown = (await api.ask("GET", f"/v1/discrepancies/{D1}", "viewer")).json()
    assert [(a["action"], a["from_status"], a["to_status"], a["notes"]) for a in shown["actions"]] == [
        ("acknowledge", "open", "acknowledged", None),
        ("assign", "acknowledged", "acknowledged", None),
        ("resolve", "acknowledged", "resolved", "bank fee"),
        ("note", "resolved", "resolved", "asked Stripe"),
    ]
    assert shown["actions"][0]["actor"].startswith("manager key (tk_")
    assert [r["revision"] for r in shown["history"]] == [1]


async def test_what_is_published_is_answered_letter_for_letter(api: Api):
    """Amounts, sides in their order, key, log place: as on the topic."""
    await api.add(found())
    body = (await api.ask("GET", BILLING)).json()["data"][0]
    assert (body["expected"], body["actual"], body["difference"], body["currency"]) == (
        "100.00",
        "90.00",
        "-10.00",
        "EUR",
    )
    assert list(body["sides"]) == ["internal", "provider"]
    assert (body["key"], body["log"]["offset"]) == ("pay_1", 10)


@pytest.mark.parametrize(
    ("before", "method", "path", "body", "status"),
    [
        (["acknowledge"], *ACTIONS[0], "acknowledged"),
        (["resolve"], *ACTIONS[0], "resolved"),
        (["resolve"], *ACTIONS[1], "resolved"),
        (["resolve"], *ACTIONS[2], "resolved"),
    ],
)
async def test_a_transition_that_does_not_exist_is_409_with_the_status(
    api: Api, before: list[str], method: str, path: str, body: Any, status: str
):
    """The body says where it stands, and nothing is written."""
    await api.add(found())
    for name in before:
        await api.ask("PATCH", f"{BILLING}/{D1}/{name}", json={"reason": "timing"} if name == "resolve" else None)
    lines = len(await api.rows("SELECT id FROM action_log"))
    answer = problem(await api.ask(method, BILLING + path, json=body), 409, "no-such-transition")
    assert answer["current_status"] == status
    assert len(await api.rows("SELECT id FROM action_log")) == lines


@pytest.mark.parametrize("base", [BILLING, "/v1/discrepancies"])
@pytest.mark.parametrize(("method", "path", "body"), ACTIONS)
async def test_actions_need_a_manager_of_the_same_org(api: Api, base: str, method: str, path: str, body: Any):
    """401 without or with a wrong key, 403 for other roles, 404 for another organisation."""
    await api.add(found())
    problem(await api.ask(method, base + path, None, json=body), 401, "unauthorized")
    problem(await api.ask(method, base + path, "tk_abc_def", json=body), 401, "unauthorized")
    assert problem(await api.ask(method, base + path, "viewer", json=body), 403, "forbidden")["role"] == "viewer"
    problem(await api.ask(method, base + path, "ingest", json=body), 403, "forbidden")
    problem(await api.ask(method, base + path, "stranger", json=body), 404, "not-found")
    assert await api.rows("SELECT id FROM action_log") == []


async def test_the_billing_list_is_for_owners_and_managers_only(api: Api):
    """REQUIREMENTS 1; the general list is for viewers too."""
    problem(await api.ask("GET", BILLING, "viewer"), 403, "forbidden")
    assert (await api.ask("GET", BILLING, "manager")).status_code == 200
    assert (await api.ask("GET", "/v1/discrepancies", "viewer")).status_code == 200


@pytest.mark.parametrize("id_", [uid("nothing"), "no-id", "5b6c3a52", "%00", D1 + "0"])
async def test_an_unknown_discrepancy_is_404(api: Api, id_: str):
    """Also what can be no id at all."""
    problem(await api.ask("PATCH", f"{BILLING}/{id_}/acknowledge"), 404, "not-found")
    problem(await api.ask("GET", f"/v1/discrepancies/{id_}"), 404, "not-found")


async def test_the_billing_api_does_not_touch_other_packs(api: Api):
    """Neither lists nor acts on them."""
    await api.add(found(pack="stack"))
    assert (await api.ask("GET", BILLING)).json() == {"data": [], "next_cursor": None}
    problem(await api.ask("PATCH", f"{BILLING}/{D1}/acknowledge"), 404, "not-found")


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("assign", {}, "assignee"),
        ("assign", {"assignee": "  "}, "assignee"),
        ("assign", {"assignee": "ann", "extra": 1}, "extra"),
        ("resolve", {"reason": "because"}, "reason"),
        ("resolve", {"reason": "accepted", "notes": "x" * 4001}, "notes"),
    ],
)
async def test_a_wrong_body_is_422_and_names_the_field(api: Api, path: str, body: Any, field: str):
    """Nothing happens to the discrepancy."""
    await api.add(found())
    answer = problem(await api.ask("PATCH", f"{BILLING}/{D1}/{path}", json=body), 422, "invalid-request")
    assert [e["field"] for e in answer["errors"]] == [field]


async def test_broken_json_and_an_oversized_body_are_refused(api: Api):
    """422 and 413, both as problems."""
    await api.add(found())
    path, broken = f"{BILLING}/{D1}/assign", b'{"assignee": '
    refused = problem(await api.ask("PATCH", path, content=broken, type_="application/json"), 422, "invalid-request")
    assert refused["detail"] == "body: is not valid JSON"
    untyped = problem(await api.ask("PATCH", path, content=broken), 422, "invalid-request")
    assert untyped["detail"] == "body: must be a JSON object, sent with Content-Type: application/json"
    huge = json.dumps({"text": "x" * 300_000})
    problem(await api.ask("POST", f"{BILLING}/{D1}/notes", content=huge), 413, "body-too-large")


async def test_paths_and_methods_that_do_not_exist_are_problems_too(api: Api):
    """404 and 405."""
    missing = problem(await api.ask("GET", "/nothing"), 404, "not-found")
    assert missing["detail"] == "there is no such page: see /docs"
    problem(await api.ask("PUT", BILLING), 405, "method-not-allowed")


async def test_pages_hold_every_row_once_though_rows_are_added(api: Api):
    """The cursor stands for a place, so a newer row does not shift the pages."""
    times = {f"d{n}": START + timedelta(minutes=n // 2) for n in range(7)}
    await api.add(*[found(name, key=name, raised_at=at) for name, at in times.items()])
    seen: list[str] = []
    cursor = None
    for turn in range(5):
        params = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await api.ask("GET", "/v1/discrepancies", params=params)).json()
        seen += [d["key"] for d in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        await api.add(found(f"new {turn}", key=f"new {turn}", raised_at=START + timedelta(days=1)))
    assert sorted(seen) == sorted(times)
    assert len(seen) == 7


@pytest.mark.parametrize("cursor", ["x", "W10", "WyJhIiwiYiJd", "%%%"])
async def test_a_made_up_cursor_is_422(api: Api, cursor: str):
    """Not a 500, and not the first page again."""
    problem(await api.ask("GET", BILLING, params={"cursor": cursor}), 422, "bad-cursor")


async def test_a_page_size_outside_its_limits_is_422(api: Api):
    """1 to 200."""
    for limit in (0, 201, "many"):
        problem(await api.ask("GET", BILLING, params={"limit": limit}), 422, "invalid-request")


@pytest.mark.parametrize(
    ("params", "keys"),
    [
        ({"status": "open"}, ["a", "b"]),
        ({"status": "resolved"}, ["c"]),
        ({"state": "resolved"}, ["c"]),
        ({"type": "StatusMismatch"}, ["b"]),
        ({"rule": "billing.refunds"}, ["c"]),
        ({"severity": "high"}, ["a"]),
        ({"key": "b"}, ["b"]),
        ({"since": "2026-11-20T12:00:00Z"}, ["b", "c"]),
        ({"assignee": "ann"}, []),
    ],
)
async def test_filters_choose(api: Api, params: dict[str, str], keys: list[str]):
    """Each filter alone."""
    late = START + timedelta(hours=3)
    await api.add(
        found("a", key="a", severity="high"),
        found(
            "b", key="b", type="StatusMismatch", expected="succeeded", actual="failed", difference=None, raised_at=late
        ),
        found(
            "c",
            key="c",
            rule="billing.refunds",
            state="resolved",
            resolution="corrected",
            resolved_at=late,
            raised_at=late,
        ),
    )
    for path in (BILLING, "/v1/discrepancies"):
        data = (await api.ask("GET", path, params=params)).json()["data"]
        assert sorted(d["key"] for d in data) == keys


async def test_a_key_of_several_fields_is_found_by_its_json_list(api: Api):
    """And a text that looks like a list but is a one-field key is found as well."""
    await api.add(found("a", key=["x", "y"]), found("b", key="[x"))
    listed = await api.ask("GET", "/v1/discrepancies", params={"key": '["x", "y"]'})
    assert [d["key"] for d in listed.json()["data"]] == [["x", "y"]]
    listed = await api.ask("GET", "/v1/discrepancies", params={"key": "[x"})
    assert [d["key"] for d in listed.json()["data"]] == ["[x"]


@pytest.mark.parametrize(
    "params", [{"status": "closed"}, {"since": "yesterday"}, {"since": "2026-11-20T12:00:00"}, {"key": "\x00"}]
)
async def test_a_wrong_filter_is_422(api: Api, params: dict[str, str]):
    """A time without zone is one; the answer names the parameter, and how a time is written."""
    detail = problem(await api.ask("GET", BILLING, params=params), 422, "invalid-request")["detail"]
    assert detail.startswith(f"{next(iter(params))}: ")
    assert ("RFC 3339" in detail) == ("since" in params)


# Adjustments

ENTRY = {"source": "ledger", "amount": "-10.00", "currency": "EUR", "reason": "rounding", "notes": "see 77"}


async def test_an_adjustment_is_stored_and_sent_to_the_matcher(api: Api):
    """A new signed entry with the discrepancy and the match key; nothing else is written."""
    await api.add(found())
    answer = await api.ask("POST", f"/v1/discrepancies/{D1}/adjustments", json=ENTRY)
    assert answer.status_code == 201, answer.text
    outbox = await api.rows("SELECT value FROM topic_outbox WHERE topic = 'inbox'")
    posted = decode_inbox(outbox[0]["value"])
    assert isinstance(posted, RowReceived)
    event = json.loads(posted.row)
    assert (event["source"], event["type"], event["amount"], event["currency"]) == (
        "ledger",
        "adjustment.posted",
        "-10.00",
        "EUR",
    )
    assert event["refs"] == {"discrepancy": D1, "payment_id": "pay_1"}
    shown = (await api.ask("GET", f"/v1/discrepancies/{D1}")).json()
    assert [(a["amount"], a["posted_by"].split(" (")[0]) for a in shown["adjustments"]] == [("-10.00", "owner key")]
    assert [a["action"] for a in shown["actions"]] == ["adjust"]
    assert (shown["status"], shown["expected"]) == ("open", "100.00")


@pytest.mark.parametrize(
    ("change", "status", "slug"),
    [
        ({"source": "bank"}, 422, "adjustment-refused"),
        ({"amount": "1e3"}, 422, "invalid-request"),
        ({"amount": -10.0}, 422, "invalid-request"),
        ({"amount": "0.00"}, 422, "invalid-request"),
        ({"currency": "EURO"}, 422, "invalid-request"),
        ({"reason": ""}, 422, "invalid-request"),
    ],
)
async def test_a_wrong_adjustment_is_refused(api: Api, change: dict[str, Any], status: int, slug: str):
    """A source that is no side, a float, nothing to adjust, an unknown currency, no reason."""
    await api.add(found())
    problem(await api.ask("POST", f"/v1/discrepancies/{D1}/adjustments", json=ENTRY | change), status, slug)
    assert await api.rows("SELECT id FROM adjustments") == []


async def test_an_adjustment_needs_its_rule_a_manager_and_a_discrepancy(api: Api):
    """409 when the rule is gone, 403 for a viewer, 404 for nothing."""
    await api.add(found(rule="billing.gone"))
    problem(await api.ask("POST", f"/v1/discrepancies/{D1}/adjustments", json=ENTRY), 409, "rule-gone")
    problem(await api.ask("POST", f"/v1/discrepancies/{D1}/adjustments", "viewer", json=ENTRY), 403, "forbidden")
    problem(await api.ask("POST", f"/v1/discrepancies/{uid('none')}/adjustments", json=ENTRY), 404, "not-found")


# Items


async def test_items_are_listed_by_status_and_key(api: Api):
    """With their sides in the rule's order."""
    await store(
        PostgresSink(api.database),
        Batch(spans=[], items=[arrived(item()), arrived(item("i2", key="k2", status="pending", offset=11))]),
        NOW,
    )
    listed = (await api.ask("GET", "/v1/items", "viewer")).json()["data"]
    assert [i["key"] for i in listed] == ["k2", "pay_1"]
    assert list(listed[0]["sides"]) == ["internal", "provider"]
    listed = (await api.ask("GET", "/v1/items", params={"status": "pending", "key": "k2", "limit": 1})).json()
    assert [i["key"] for i in listed["data"]] == ["k2"]
    problem(await api.ask("GET", "/v1/items", "ingest"), 403, "forbidden")


# Directory


async def test_a_key_is_shown_once_and_works_until_it_is_revoked(api: Api):
    """Made by an owner; the list never shows it; after the revoke it is refused and the directory says so."""
    made = await api.ask("POST", "/v1/keys", json={"role": "viewer", "name": "dashboard"})
    assert made.status_code == 201
    key, id_ = made.json()["key"], made.json()["id"]
    assert (await api.ask("GET", "/v1/discrepancies", key)).status_code == 200
    listed = await api.ask("GET", "/v1/keys")
    assert key.rsplit("_", 1)[1] not in listed.text
    assert (await api.ask("DELETE", f"/v1/keys/{id_}")).json()["revoked_at"] is not None
    problem(await api.ask("GET", "/v1/discrepancies", key), 401, "unauthorized")
    entries = [decode_entry(row["value"]) for row in await api.rows("SELECT value FROM topic_outbox ORDER BY id")]
    of_key = [e for e in entries if isinstance(e, KeyEntry) and e.id == id_]
    assert [e.revoked for e in of_key] == [False, True]
    assert OrgEntry(org="acme", zone="UTC") in entries


async def test_no_secret_of_a_key_is_in_the_database(api: Api):
    """Only the digest is."""
    secret = api.secrets["owner"].split("_", 2)[2]
    dump = str(await api.rows("SELECT * FROM api_keys")) + str(
        await api.rows("SELECT convert_from(value, 'utf8') FROM topic_outbox")
    )
    assert secret not in dump


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/keys", {"role": "viewer", "name": "x"}),
        ("DELETE", "/v1/keys/abc", None),
        ("PUT", "/v1/sources/ledger", {}),
        ("PUT", "/v1/orgs/acme", {"zone": "UTC"}),
    ],
)
async def test_the_directory_is_written_by_owners_only(api: Api, method: str, path: str, body: Any):
    """A manager is refused, a request without key too."""
    problem(await api.ask(method, path, "manager", json=body), 403, "forbidden")
    problem(await api.ask(method, path, None, json=body), 401, "unauthorized")


async def test_sources_and_the_zone_are_set_and_read(api: Api):
    """Own organisation only; a made-up zone is refused."""
    assert (await api.ask("PUT", "/v1/sources/stripe", json={"provider": "stripe"})).json()["provider"] == "stripe"
    assert [s["source"] for s in (await api.ask("GET", "/v1/sources", "viewer")).json()["data"]] == ["stripe"]
    assert (await api.ask("PUT", "/v1/orgs/acme", json={"zone": "Europe/Berlin"})).json()["zone"] == "Europe/Berlin"
    assert [o["org"] for o in (await api.ask("GET", "/v1/orgs")).json()["data"]] == ["acme"]
    problem(await api.ask("PUT", "/v1/orgs/other", json={"zone": "UTC"}), 404, "not-found")
    problem(await api.ask("PUT", "/v1/orgs/acme", json={"zone": "Mars/Base"}), 422, "invalid-request")
    problem(await api.ask("PUT", "/v1/sources/sp ace", json={}), 422, "invalid-request")
    problem(await api.ask("DELETE", "/v1/keys/nothing"), 404, "not-found")


async def test_health_metrics_and_openapi_need_no_key(api: Api):
    """OpenAPI names every error body as problem+json and gives an example."""
    for path in ("/health/live", "/health/ready", "/metrics"):
        assert (await api.ask("GET", path, None)).status_code == 200
    schema = (await api.ask("GET", "/openapi.json", None)).json()
    conflict = schema["paths"][BILLING + "/{discrepancyId}/acknowledge"]["patch"]["responses"]["409"]
    assert "application/problem+json" in conflict["content"]
    assert schema["components"]["schemas"]["DiscrepancyBody"]["example"]["type"] == "AmountMismatch"


async def test_while_the_database_is_away_the_answer_is_503(api: Api):
    """With Retry-After, and without a word about the address."""
    away = Api(Database("postgresql://u:secret@127.0.0.1:1/x"))
    answer = await away.ask("GET", BILLING, api.secrets["owner"])
    problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "5"
    assert "127.0.0.1" not in answer.text


async def test_open_discrepancies_are_counted_by_severity_over_all_orgs(api: Api):
    """What people resolved, or the engine, is not open."""
    await api.add(
        found("a", key="a"),
        found("b", key="b", org="other"),
        found("c", key="c", severity="high"),
        found("d", key="d", state="resolved", resolution="corrected"),
    )
    await api.ask("PATCH", f"{BILLING}/{uid('c')}/resolve", json={"reason": "timing"})
    assert await PostgresTriage(api.database).count_open() == {"medium": 2}


@pytest.mark.parametrize(("wish", "ids"), [("", ["a"]), ("?shadow=false", ["a"]), ("?shadow=true", ["b"]), ("?shadow=any", ["a", "b"])])  # fmt: skip
async def test_what_shadow_rules_found_is_listed_only_when_asked_for(api: Api, wish: str, ids: list[str]):
    """The list is what somebody has to look at; a shadow's finding is marked, and found by its id."""
    await api.add(found("a"), found("b", shadow=True))
    for path in ("/v1/discrepancies", BILLING):
        rows = (await api.ask("GET", path + wish)).json()["data"]
        assert sorted(row["id"] for row in rows) == sorted(map(uid, ids))
        assert {row["id"]: row["shadow"] for row in rows} == {uid(name): name == "b" for name in ids}
    one = (await api.ask("GET", f"/v1/discrepancies/{uid('b')}")).json()
    assert (one["shadow"], one["history"][0]["shadow"]) == (True, True)

"""Webhook endpoints and deliveries over the API, as owners and managers use them."""

import asyncio
import hashlib
import secrets
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from services.alerts.adapters.delivery.endpoints import PostgresEndpoints
from services.alerts.adapters.directory_store import PostgresDirectory
from services.alerts.handlers.http import create_app
from services.alerts.handlers.http.endpoints import router
from services.alerts.use_cases.endpoints import Endpoints
from shared.contracts.directory import KeyEntry, Role
from shared.telemetry.health import Health
from tests.support.delivery_desk import Desk, delivery_desk, eventually, found, holds
from tests.support.webhook_receiver import status

pytestmark = pytest.mark.postgres
ROOT = "/v1/webhooks/endpoints"


@dataclass
class Office:
    """A desk and clients of its API, one per role."""

    desk: Desk
    client: httpx.AsyncClient
    allow_private: bool = True

    async def key(self, role: Role, org: str = "acme") -> dict[str, str]:
        id_ = uuid.uuid4().hex[:12]
        key = f"tk_{id_}_{secrets.token_hex(16)}"
        entry = KeyEntry(
            org=org,
            id=id_,
            sha256=hashlib.sha256(key.encode()).hexdigest(),
            role=role,
            name=role,
            created_at=datetime.now(UTC),
        )
        await PostgresDirectory(self.desk.database).add_key(entry, None)
        return {"Authorization": f"Bearer {key}"}

    async def create(self, headers: dict[str, str], path: str = "/a", **more: Any) -> dict[str, Any]:
        answer = await self.client.post(ROOT, headers=headers, json={"url": self.desk.receiver.url(path), **more})
        assert answer.status_code == 201, answer.text
        body = answer.json()
        self.desk.receiver.secrets[path] = body["secret"]
        return body


async def _office(desk: Desk, *, allow_private: bool) -> AsyncIterator[Office]:
    endpoints = Endpoints(
        PostgresEndpoints(desk.database),
        clock=lambda: datetime.now(UTC),
        random_bytes=secrets.token_bytes,
        allow_private=allow_private,
    )
    app = create_app([router(endpoints)], PostgresDirectory(desk.database), Health(["database"]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://alerts") as client:
        yield Office(desk, client)


@pytest.fixture
async def desk(migrated_url: str) -> AsyncIterator[Desk]:
    async with delivery_desk(migrated_url) as made:
        yield made


@pytest.fixture
async def office(desk: Desk) -> AsyncIterator[Office]:
    async for made in _office(desk, allow_private=True):
        yield made


@pytest.fixture
async def strict_office(desk: Desk) -> AsyncIterator[Office]:
    async for made in _office(desk, allow_private=False):
        yield made


async def test_the_secret_is_shown_once(office: Office) -> None:
    owner = await office.key("owner")
    made = await office.create(owner, types=["AmountMismatch"], severity_min="medium", description="finance")
    assert made["secret"].startswith("whsec_")
    listed = (await office.client.get(ROOT, headers=owner)).json()["data"]
    one = (await office.client.get(f"{ROOT}/{made['id']}", headers=owner)).json()
    assert listed == [one]
    assert one == {name: value for name, value in made.items() if name != "secret"}
    assert (one["enabled"], one["types"], one["severity_min"]) == (True, ["AmountMismatch"], "medium")


async def test_a_test_message_arrives_and_its_attempt_is_visible(office: Office) -> None:
    owner = await office.key("owner")
    made = await office.create(owner)
    await office.desk.dispatcher()
    queued = await office.client.post(f"{ROOT}/{made['id']}/test", headers=owner)
    assert queued.status_code == 202
    id_ = queued.json()["delivery_id"]
    await office.desk.reaches(id_, "delivered")
    [taken] = office.desk.receiver.at("/a")
    assert taken.body["type"] == "endpoint.test"
    shown = (await office.client.get(f"/v1/webhooks/deliveries/{id_}", headers=owner)).json()
    assert (shown["state"], shown["webhook_id"], shown["next_attempt_at"]) == ("delivered", taken.id, None)
    [attempt] = shown["attempts_made"]
    assert (attempt["attempt"], attempt["status_code"], attempt["error"]) == (1, 204, None)


async def test_after_a_rotation_both_secrets_sign_and_then_only_the_new_one(office: Office) -> None:
    owner = await office.key("owner")
    made = await office.create(owner)
    await office.desk.dispatcher()
    rotated = await office.client.post(f"{ROOT}/{made['id']}/rotate-secret", headers=owner)
    assert rotated.status_code == 200
    assert rotated.json()["secret"] != made["secret"]
    await office.desk.store(made["id"], found(1))
    await eventually(holds(lambda: bool(office.desk.receiver.taken)), lambda: "the former secret is refused")
    assert office.desk.receiver.taken[0].headers["webhook-signature"].count("v1,") == 2
    again = await office.client.post(f"{ROOT}/{made['id']}/rotate-secret", headers=owner, json={"overlap_hours": 0})
    office.desk.receiver.secrets["/a"] = again.json()["secret"]
    await office.desk.store(made["id"], found(2))
    await eventually(holds(lambda: len(office.desk.receiver.taken) == 2), lambda: "the new secret is refused")
    assert office.desk.receiver.taken[1].headers["webhook-signature"].count("v1,") == 1


async def test_disabling_drops_what_waits_and_a_replay_after_enabling_sends_it(office: Office) -> None:
    owner = await office.key("owner")
    made = await office.create(owner)
    [id_] = await office.desk.store(made["id"], found())
    url = f"{ROOT}/{made['id']}"
    disabled = (await office.client.patch(url, headers=owner, json={"enabled": False})).json()
    assert disabled["enabled"] is False
    assert "disabled by owner" in disabled["disabled_reason"]
    await office.desk.dispatcher()
    await office.desk.reaches(id_, "dropped")
    refused = await office.client.post(f"/v1/webhooks/deliveries/{id_}/replay", headers=owner)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:tieout:problem:not-now")
    assert (await office.client.post(f"{url}/test", headers=owner)).status_code == 409
    assert (await office.client.patch(url, headers=owner, json={"enabled": True})).json()["disabled_at"] is None
    assert (await office.client.post(f"/v1/webhooks/deliveries/{id_}/replay", headers=owner)).status_code == 202
    await office.desk.reaches(id_, "delivered")


async def test_a_replay_carries_the_same_webhook_id(office: Office) -> None:
    owner = await office.key("manager")
    made = await office.create(owner)
    await office.desk.dispatcher(poll_s=60)
    [id_] = await office.desk.store(made["id"], found())
    await office.desk.reaches(id_, "delivered")
    replayed = await office.client.post(f"/v1/webhooks/deliveries/{id_}/replay", headers=owner)
    assert (replayed.status_code, replayed.json()["state"]) == (202, "pending")
    await office.desk.reaches(id_, "delivered")
    first, second = office.desk.receiver.at("/a")
    assert first.id == second.id
    shown = (await office.client.get(f"/v1/webhooks/deliveries/{id_}", headers=owner)).json()
    assert len(shown["attempts_made"]) == 2


async def test_a_range_is_replayed_in_order_without_what_was_overtaken(office: Office) -> None:
    owner = await office.key("owner")
    made = await office.create(owner)
    long_ago, now = datetime.now(UTC) - timedelta(days=2), datetime.now(UTC)
    await office.desk.store(made["id"], found(1, 1), state="failed", created_at=now)
    await office.desk.store(made["id"], found(1, 2), state="delivered", created_at=now)
    await office.desk.store(made["id"], *[found(2, n) for n in (2, 1)], state="failed", created_at=now)
    await office.desk.store(made["id"], found(3), state="dropped", reason="storm", created_at=now)
    await office.desk.store(made["id"], found(4), state="failed", created_at=long_ago)
    await office.desk.dispatcher()
    wish = {"since": (now - timedelta(hours=1)).isoformat(), "until": (now + timedelta(hours=1)).isoformat()}
    answer = await office.client.post(f"{ROOT}/{made['id']}/replay", headers=owner, json=wish)
    assert (answer.status_code, answer.json()) == (202, {"replayed": 3, "more": False})
    await eventually(holds(lambda: len(office.desk.receiver.taken) == 3), lambda: "not all replayed")
    sent = [(taken.body["data"]["id"], taken.body["data"]["revision"]) for taken in office.desk.receiver.taken]
    assert sorted(sent) == [(found(2).id, 1), (found(2).id, 2), (found(3).id, 1)]
    assert [revision for id_, revision in sent if id_ == found(2).id] == [1, 2]
    await eventually(_nothing_waits(office.desk), lambda: "an outcome is not stored")
    everything = wish | {"states": ["delivered", "failed"]}
    answer = await office.client.post(f"{ROOT}/{made['id']}/replay", headers=owner, json=everything)
    assert answer.json()["replayed"] == 5


def _nothing_waits(desk: Desk) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return all(row.state != "pending" for row in (await desk.rows()).values())

    return look


async def test_a_deleted_endpoint_gets_nothing_and_its_deliveries_stay(office: Office) -> None:
    owner = await office.key("owner")
    made = await office.create(owner)
    [id_] = await office.desk.store(made["id"], found())
    assert (await office.client.delete(f"{ROOT}/{made['id']}", headers=owner)).status_code == 204
    assert (await office.client.delete(f"{ROOT}/{made['id']}", headers=owner)).status_code == 404
    await office.desk.dispatcher()
    await asyncio.sleep(0.3)
    assert office.desk.receiver.taken == []
    shown = (await office.client.get(f"/v1/webhooks/deliveries/{id_}", headers=owner)).json()
    assert (shown["state"], shown["reason"]) == ("dropped", "endpoint deleted")
    refused = await office.client.post(f"/v1/webhooks/deliveries/{id_}/replay", headers=owner)
    assert (refused.status_code, refused.json()["detail"]) == (409, "its endpoint was deleted")


async def test_deliveries_are_listed_newest_first_page_by_page_with_filters(office: Office) -> None:
    owner = await office.key("owner")
    first, second = await office.create(owner, "/a"), await office.create(owner, "/b")
    ids = await office.desk.store(first["id"], *[found(n) for n in range(5)], state="failed", reason="HTTP 500")
    ids += await office.desk.store(second["id"], found(9), state="delivered")
    seen, cursor = [], None
    while True:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        body = (await office.client.get("/v1/webhooks/deliveries", headers=owner, params=params)).json()
        seen += [row["id"] for row in body["data"]]
        cursor = body["next_cursor"]
        if cursor is None:
            break
    assert seen == sorted(ids, reverse=True)
    for params, count in (
        ({"endpoint_id": second["id"]}, 1),
        ({"state": "failed"}, 5),
        ({"discrepancy_id": found(9).id}, 1),
        ({"state": "pending"}, 0),
    ):
        body = (await office.client.get("/v1/webhooks/deliveries", headers=owner, params=params)).json()
        assert len(body["data"]) == count, params


@pytest.mark.parametrize("role", ["viewer", "ingest"])
async def test_only_owners_and_managers_may(office: Office, role: Role) -> None:
    headers = await office.key(role)
    for method, path in (("GET", ROOT), ("POST", ROOT), ("GET", "/v1/webhooks/deliveries")):
        body = {"url": office.desk.receiver.url("/a")} if method == "POST" else None
        answer = await office.client.request(method, path, headers=headers, json=body)
        assert answer.status_code == 403
    assert (await office.client.get(ROOT)).status_code == 401


async def test_another_organisation_sees_and_changes_nothing(office: Office) -> None:
    owner, stranger = await office.key("owner"), await office.key("owner", org="other")
    made = await office.create(owner)
    [id_] = await office.desk.store(made["id"], found(), state="failed")
    for method, path, body in (
        ("GET", f"{ROOT}/{made['id']}", None),
        ("PATCH", f"{ROOT}/{made['id']}", {"enabled": False}),
        ("DELETE", f"{ROOT}/{made['id']}", None),
        ("POST", f"{ROOT}/{made['id']}/rotate-secret", None),
        ("POST", f"{ROOT}/{made['id']}/test", None),
        ("GET", f"/v1/webhooks/deliveries/{id_}", None),
        ("POST", f"/v1/webhooks/deliveries/{id_}/replay", None),
    ):
        answer = await office.client.request(method, path, headers=stranger, json=body)
        assert answer.status_code == 404, path
    assert (await office.client.get("/v1/webhooks/deliveries", headers=stranger)).json()["data"] == []
    assert (await office.client.get(f"{ROOT}/{made['id']}", headers=owner)).json()["enabled"] is True


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"url": "http://hooks.example.com/"}, "https://"),
        ({"url": "https://127.0.0.1/"}, "loopback"),
        ({"url": "https://[::ffff:169.254.169.254]/"}, "link-local"),
        ({"url": "https://user:hunter2@example.com/"}, "password"),
        ({"url": "https://example.com/", "severity_min": "urgent"}, "severity_min"),
        ({"url": "https://example.com/", "types": ["no spaces"]}, "types"),
        ({"url": "https://example.com/", "secret": "mine"}, "secret"),
        ({}, "url"),
    ],
)
async def test_a_wrong_endpoint_is_refused_with_the_reason(strict_office: Office, body: dict, says: str) -> None:
    owner = await strict_office.key("owner")
    answer = await strict_office.client.post(ROOT, headers=owner, json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert says in answer.json()["detail"]
    assert "hunter2" not in answer.text


async def test_a_change_is_checked_as_a_new_endpoint_is(strict_office: Office) -> None:
    owner = await strict_office.key("owner")
    made = (await strict_office.client.post(ROOT, headers=owner, json={"url": "https://example.com/"})).json()
    answer = await strict_office.client.patch(f"{ROOT}/{made['id']}", headers=owner, json={"url": "https://10.0.0.1/"})
    assert answer.status_code == 422
    assert (await strict_office.client.get(f"{ROOT}/{made['id']}", headers=owner)).json()["url"] == made["url"]


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"since": "2026-11-20T00:00:00", "until": "2026-11-21T00:00:00Z"}, "since"),
        ({"since": "2026-11-21T00:00:00Z", "until": "2026-11-20T00:00:00Z"}, "before"),
        ({"since": "2026-11-20T00:00:00Z", "until": "2026-11-21T00:00:00Z", "states": []}, "states"),
    ],
)
async def test_a_wrong_range_is_refused(office: Office, wish: dict, says: str) -> None:
    owner = await office.key("owner")
    made = await office.create(owner)
    answer = await office.client.post(f"{ROOT}/{made['id']}/replay", headers=owner, json=wish)
    assert answer.status_code == 422
    assert says in answer.json()["detail"]


@pytest.mark.parametrize("cursor", ["x", "WyJhIl0", "WyIxIiwiMiJd"])
async def test_a_made_up_cursor_is_refused(office: Office, cursor: str) -> None:
    owner = await office.key("owner")
    for path in (ROOT, "/v1/webhooks/deliveries"):
        answer = await office.client.get(path, headers=owner, params={"cursor": cursor})
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:tieout:problem:bad-cursor")


async def test_there_is_a_limit_on_endpoints_even_for_requests_at_once(office: Office) -> None:
    owner = await office.key("owner")
    body = {"url": office.desk.receiver.url("/a")}
    answers = [await office.client.post(ROOT, headers=owner, json=body) for _ in range(46)]
    answers += await asyncio.gather(*[office.client.post(ROOT, headers=owner, json=body) for _ in range(8)])
    codes = [answer.status_code for answer in answers]
    assert (codes.count(201), codes.count(409)) == (50, 4)


async def test_a_failing_endpoint_shows_why_and_when_it_is_tried_again(office: Office) -> None:
    owner = await office.key("owner")
    made = await office.create(owner)
    office.desk.receiver.script["/a"] = [status(503)]
    await office.desk.dispatcher()
    [id_] = await office.desk.store(made["id"], found())
    await office.desk.reaches(id_, "pending", attempts=1)
    shown = (await office.client.get(f"/v1/webhooks/deliveries/{id_}", headers=owner)).json()
    assert (shown["reason"], shown["attempts"]) == ("HTTP 503", 1)
    assert datetime.fromisoformat(shown["next_attempt_at"]) > datetime.now(UTC)


async def test_a_secret_made_here_is_one_for_the_reference_library(office: Office) -> None:
    owner = await office.key("owner")
    made = await office.create(owner)
    assert Webhook(made["secret"]).sign("msg_1", datetime.now(UTC), "{}").startswith("v1,")

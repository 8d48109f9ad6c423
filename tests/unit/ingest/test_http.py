"""The HTTP surface, with the inbox in memory: statuses, bodies, and that nothing refused is kept."""

import gzip
import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from services.ingest.adapters.secrets import FileSecrets
from services.ingest.domain.directory import Directory
from services.ingest.handlers.http import Ingest, http_app
from services.ingest.ports import Appended, InboxAway
from services.ingest.settings import IngestSettings
from shared.contracts.inbox import RowReceived, WebhookReceived, decode_inbox
from shared.telemetry.health import Health
from tests.support.ingest import ACME, KEY, STRIPE_SECRET, ledger_event, signed

AUTHORIZED = {"authorization": f"Bearer {KEY}"}
NOW = 1_795_168_860.0


class InboxInMemory:
    """Keeps what is appended; `away` makes it Kafka that does not answer."""

    def __init__(self) -> None:
        self.kept: list[Appended] = []
        self.rounds = 0
        self.away = False

    async def append(self, records: Any) -> None:
        if self.away:
            raise InboxAway("Kafka has not acknowledged within 5 s")
        self.rounds += 1
        self.kept += records


@pytest.fixture
def inbox() -> InboxInMemory:
    return InboxInMemory()


@pytest.fixture
def ingest(inbox: InboxInMemory) -> Ingest:
    directory = Directory()
    for entry in ACME:
        directory.put(entry)
    directory.complete = True
    settings = IngestSettings(ingest_body_bytes_max=300_000, ingest_webhook_bytes_max=2048, ingest_rows_max=1500)
    secrets = FileSecrets(None, {"TIEOUT_WEBHOOK_SECRET__ACME__STRIPE": f"whsec_old,{STRIPE_SECRET}"})
    return Ingest(settings, inbox, directory, secrets, Health(["started"]), clock=lambda: NOW)


@pytest.fixture
def client(ingest: Ingest) -> TestClient:
    return TestClient(http_app(ingest), raise_server_exceptions=False)


def post(client: TestClient, body: Any, content_type: str = "application/json", **headers: str) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post("/v1/events", content=raw, headers=AUTHORIZED | {"content-type": content_type} | headers)


def rows(inbox: InboxInMemory) -> list[dict[str, Any]]:
    return [json.loads(r.row) for a in inbox.kept if isinstance(r := decode_inbox(a.value), RowReceived)]


def assert_problem(answer: Any, status: int, slug: str, says: str) -> None:
    document = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, document["status"]) == (status, status)
    assert document["type"] == f"urn:tieout:problem:{slug}"
    assert document["title"]
    assert says in document["detail"]


# ---- shapes


ENVELOPE = {
    "specversion": "1.0",
    "id": "evt_1",
    "source": "ledger",
    "type": "payment.succeeded",
    "time": "2026-11-20T10:00:00Z",
}
DATA = {"amount": "1.00", "currency": "EUR"}
SHAPES = [
    ("application/json", ledger_event(1), ["evt_1"]),
    ("application/json; charset=utf-8", [ledger_event(1), ledger_event(2)], ["evt_1", "evt_2"]),
    (
        "application/x-ndjson",
        b"\n".join(json.dumps(ledger_event(n)).encode() for n in (1, 2)) + b"\r\n\n",
        ["evt_1", "evt_2"],
    ),
    ("application/cloudevents+json", ENVELOPE | {"data": DATA}, ["evt_1"]),
    ("application/cloudevents+json", ENVELOPE | {"data": DATA | {"id": "own"}}, ["own"]),
    (
        "application/cloudevents-batch+json",
        [ENVELOPE | {"data": DATA}, ENVELOPE | {"id": "b", "data_base64": "e30="}],
        ["evt_1", "b"],
    ),
]


@pytest.mark.parametrize(("content_type", "body", "ids"), SHAPES)
def test_every_shape_is_accepted_row_by_row(
    client: TestClient, inbox: InboxInMemory, content_type: str, body: Any, ids: list[str]
):
    answer = post(client, body, content_type)
    assert answer.status_code == 202
    assert answer.json() == {
        "accepted": len(ids),
        "refused": 0,
        "results": [{"index": at, "status": "accepted", "id": id_} for at, id_ in enumerate(ids)],
    }
    assert [row["id"] for row in rows(inbox)] == ids


def test_a_thousand_rows_take_one_round_of_acknowledgements(client: TestClient, inbox: InboxInMemory):
    assert post(client, [ledger_event(n) for n in range(1000)]).json()["accepted"] == 1000
    assert (inbox.rounds, len(inbox.kept)) == (1, 1000)


def test_rows_of_one_record_share_a_key(client: TestClient, inbox: InboxInMemory):
    post(client, [ledger_event(1), ledger_event(1, id="evt_1b"), ledger_event(2)])
    assert [appended.key for appended in inbox.kept] == [b'["acme","ledger","pay_1"]'] * 2 + [
        b'["acme","ledger","pay_2"]'
    ]


def test_a_mixed_batch_is_answered_per_row_with_207(client: TestClient, inbox: InboxInMemory):
    answer = post(client, [ledger_event(1), ledger_event(2, amount=1.5), ledger_event(3)])
    assert answer.status_code == 207
    document = answer.json()
    assert (document["accepted"], document["refused"]) == (2, 1)
    assert document["results"][1] == {
        "index": 1,
        "status": "refused",
        "field": "amount",
        "error": document["results"][1]["error"],
    }
    assert '"120.50"' in document["results"][1]["error"]
    assert [row["id"] for row in rows(inbox)] == ["evt_1", "evt_3"]


def test_an_empty_array_is_fine_and_keeps_nothing(client: TestClient, inbox: InboxInMemory):
    assert (post(client, []).status_code, inbox.kept) == (202, [])


# ---- bad input


BAD_ROWS = [
    (ledger_event(amount=1.5), "amount"),
    (ledger_event(amount=2), "amount"),
    (ledger_event(amount="1e3"), "amount"),
    (ledger_event(amount="-1.00"), "negative"),
    (ledger_event(amount="1" * 39), "amount"),
    (ledger_event(currency="XXQ"), "currency"),
    (ledger_event(occurred_at="2026-11-20T10:00:00"), "zone"),
    (ledger_event(occurred_at="2099-01-01T00:00:00Z"), "ahead"),
    (ledger_event(occurred_at=1700000000), "occurred_at"),
    (ledger_event(received_at="2026-11-20T10:00:00Z"), "received_at"),
    (ledger_event(id=""), "id"),
    (ledger_event(source="../x"), "source"),
    (ledger_event(type="Payment"), "type"),
    (ledger_event(refs={"payment_id": 7}), "refs"),
    (ledger_event(refs=[]), "refs"),
    (ledger_event(surprise=True), "surprise"),
    ({}, "source"),
    (7, "object"),
    (None, "object"),
    ([[]], "object"),
]


@pytest.mark.parametrize(("row", "says"), BAD_ROWS)
def test_a_row_that_breaks_the_contract_is_422_with_the_reason(
    client: TestClient, inbox: InboxInMemory, row: Any, says: str
):
    answer = post(client, row)
    assert_problem(answer, 422, "nothing-accepted", says)
    assert answer.json()["results"][0]["status"] == "refused"
    assert inbox.kept == []


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b"{broken"),
        ("application/json", b"[{}, "),
        ("application/json", b""),
        ("application/json", b" \n "),
        ("application/json", b"\xff\xfe{}"),
        ("application/json", b"[" * 100_000),
        ("application/json", b'{"a":' * 50_000),
        ("application/cloudevents+json", b"{"),
        ("application/cloudevents-batch+json", b"{}"),
    ],
)
def test_a_body_that_is_not_json_is_400_and_keeps_nothing(
    client: TestClient, inbox: InboxInMemory, content_type: str, body: bytes
):
    assert_problem(post(client, body, content_type), 400, "body-unreadable", "Nothing was accepted")
    assert inbox.kept == []


@pytest.mark.parametrize(
    ("envelope", "says"),
    [
        (ENVELOPE | {"specversion": "0.3", "data": DATA}, "specversion"),
        (ENVELOPE, "data"),
        (ENVELOPE | {"data": "text"}, "data"),
        (ENVELOPE | {"data_base64": "!!"}, "data_base64"),
        ([ENVELOPE], "object"),
        (ENVELOPE | {"source": "/uri/like", "data": DATA}, "source"),
    ],
)
def test_a_cloud_event_of_another_kind_is_refused_with_its_field(client: TestClient, envelope: Any, says: str):
    assert_problem(post(client, envelope, "application/cloudevents+json"), 422, "nothing-accepted", says)


def test_one_broken_line_of_ndjson_does_not_take_the_others_down(client: TestClient, inbox: InboxInMemory):
    body = b"\n".join([json.dumps(ledger_event(1)).encode(), b"{broken", json.dumps(ledger_event(2)).encode()])
    answer = post(client, body, "application/x-ndjson")
    assert (answer.status_code, answer.json()["accepted"]) == (207, 2)
    assert "not valid JSON" in answer.json()["results"][1]["error"]


def test_a_body_too_large_is_413_whether_announced_or_not(client: TestClient, inbox: InboxInMemory):
    big = [ledger_event(n) for n in range(1400)]
    assert_problem(post(client, big), 413, "body-too-large", "300000 bytes")
    raw = json.dumps(big).encode()
    parts = (raw[at : at + 1000] for at in range(0, len(raw), 1000))
    answer = client.post("/v1/events", content=parts, headers=AUTHORIZED | {"content-type": "application/json"})
    assert_problem(answer, 413, "body-too-large", "TIEOUT_INGEST_BODY_BYTES_MAX")
    assert inbox.kept == []


def test_too_many_rows_are_413(client: TestClient):
    assert_problem(post(client, [{}] * 1501), 413, "too-many-rows", "1500")


def test_other_content_types_and_encodings_are_415(client: TestClient):
    assert_problem(post(client, b"a;b", "text/csv"), 415, "content-type", "application/x-ndjson")
    zipped = gzip.compress(json.dumps(ledger_event()).encode())
    assert_problem(post(client, zipped, **{"content-encoding": "gzip"}), 415, "content-encoding", "gzip")


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer ",
        f"Basic {KEY}",
        KEY,
        f"Bearer {KEY}x",
        "Bearer tk_nobody_0123456789",
        "Bearer tk_revoked1_0123456789abcdef",
        "Bearer " + "x" * 5000,
    ],
)
def test_without_a_valid_key_it_is_401(client: TestClient, inbox: InboxInMemory, authorization: str):
    answer = client.post("/v1/events", json=ledger_event(), headers={"authorization": authorization})
    assert_problem(answer, 401, "not-authenticated", "key")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert KEY not in answer.text
    assert inbox.kept == []


def test_a_viewer_may_not_post_and_nobody_for_another_org(client: TestClient, inbox: InboxInMemory):
    viewer = {"authorization": "Bearer tk_viewer1_0123456789abcdef"}
    assert_problem(client.post("/v1/events", json=ledger_event(), headers=viewer), 403, "role", "viewer")
    assert_problem(post(client, ledger_event(org="other")), 403, "other-org", "'other'")
    assert inbox.kept == []


def test_kafka_away_is_503_with_retry_after_and_never_2xx(client: TestClient, inbox: InboxInMemory):
    inbox.away = True
    body = json.dumps(ledger_event()).encode()
    for answer in (
        post(client, body),
        client.post("/webhooks/acme/stripe", content=body, headers=signed(body, at=NOW)),
    ):
        assert_problem(answer, 503, "kafka-away", "again")
        assert answer.headers["retry-after"] == "5"


def test_before_the_directory_is_read_nobody_is_told_that_he_is_unknown(ingest: Ingest, client: TestClient):
    ingest.directory.complete = False
    assert_problem(post(client, ledger_event()), 503, "starting", "directory")
    assert_problem(client.post("/webhooks/acme/stripe", content=b"{}"), 503, "starting", "directory")


# ---- webhooks


def test_a_signed_webhook_is_kept_as_it_came(client: TestClient, inbox: InboxInMemory):
    body = b'{"id": "evt_1",  "object": "event"}'
    answer = client.post("/webhooks/acme/stripe", content=body, headers=signed(body, at=NOW))
    assert (answer.status_code, answer.json()) == (200, {"status": "accepted", "delivery": "evt_1"})
    (kept,) = inbox.kept
    assert kept.key == b'["acme","stripe","evt_1"]'
    assert decode_inbox(kept.value) == WebhookReceived(
        org="acme", source="stripe", provider="stripe", delivery_id="evt_1", body=body, verdict="verified stripe v1"
    )


def test_a_delivery_that_comes_again_is_accepted_again(client: TestClient, inbox: InboxInMemory):
    body = b'{"id": "evt_1"}'
    answers = [client.post("/webhooks/acme/stripe", content=body, headers=signed(body, at=NOW)) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert len(inbox.kept) == 2


def test_a_signed_body_without_id_is_named_by_its_digest(client: TestClient, inbox: InboxInMemory):
    answer = client.post("/webhooks/acme/stripe", content=b"text", headers=signed(b"text", at=NOW))
    assert len(answer.json()["delivery"]) == 64
    assert len(inbox.kept) == 1


@pytest.mark.parametrize(
    ("headers", "slug"),
    [
        ({}, "signature-missing"),
        ({"stripe-signature": "nonsense"}, "signature-malformed"),
        (signed(b"{}", "whsec_other", NOW), "signature-mismatch"),
        (signed(b"{ }", at=NOW), "signature-mismatch"),
        (signed(b"{}", at=NOW - 301), "signature-stale"),
        (signed(b"{}", at=NOW + 301), "signature-stale"),
    ],
)
def test_a_wrong_or_stale_signature_is_401_and_nothing_is_kept(
    client: TestClient, inbox: InboxInMemory, headers: dict[str, str], slug: str
):
    answer = client.post("/webhooks/acme/stripe", content=b"{}", headers=headers)
    assert_problem(answer, 401, slug, "Nothing of the request was kept")
    assert inbox.kept == []
    assert "whsec" not in answer.text


def test_unknown_orgs_and_sources_are_404(client: TestClient):
    for path in ("/webhooks/acme/nothing", "/webhooks/nobody/stripe"):
        assert_problem(client.post(path, content=b"{}"), 404, "unknown-source", "check the address")


def test_a_source_without_secret_says_which_setting_is_missing(client: TestClient):
    answer = client.post("/webhooks/acme/unsigned", content=b"{}", headers=signed(b"{}"))
    assert_problem(answer, 503, "not-configured", "TIEOUT_WEBHOOK_SECRETS_FILE")


def test_a_webhook_too_large_is_413(client: TestClient, inbox: InboxInMemory):
    body = b"x" * 3000
    answer = client.post("/webhooks/acme/stripe", content=body, headers=signed(body, at=NOW))
    assert_problem(answer, 413, "body-too-large", "2048 bytes")
    assert inbox.kept == []


# ---- the rest


def test_other_pages_and_methods_are_problems_too(client: TestClient):
    assert_problem(client.get("/nothing"), 404, "no-such-page", "/docs")
    assert_problem(client.get("/v1/events"), 405, "method-not-allowed", "/docs")


@pytest.mark.parametrize(
    "path", ["/v1/events%0A", "/v1/events/", "/v1//events", "/webhooks/acme/stripe/", "/webhooks/acme/"]
)
def test_a_post_beside_the_paths_is_never_accepted(client: TestClient, inbox: InboxInMemory, path: str):
    """The framework's patterns let a line end pass; whoever posts there must not hear that it was kept."""
    answer = client.post(path, json=ledger_event("e1"), headers=AUTHORIZED, follow_redirects=False)
    assert answer.status_code in (307, 404)
    assert inbox.kept == []


def test_what_breaks_here_is_a_problem_and_not_silence(ingest: Ingest, inbox: InboxInMemory):
    """Never a 2xx: the sender tries again."""
    inbox.append = None  # type: ignore[method-assign, assignment]  # a fault that nobody thought of
    answer = post(TestClient(http_app(ingest), raise_server_exceptions=False), ledger_event("e1"))
    assert (answer.status_code, answer.json()["type"]) == (500, "urn:tieout:problem:internal")


def test_the_api_is_described_with_examples(client: TestClient):
    document = client.get("/openapi.json").json()
    events = document["paths"]["/v1/events"]["post"]
    assert set(events["requestBody"]["content"]) == {
        "application/json",
        "application/x-ndjson",
        "application/cloudevents+json",
        "application/cloudevents-batch+json",
    }
    assert {"202", "207", "400", "401", "403", "413", "415", "422", "503"} <= set(events["responses"])
    assert events["security"] == [{"apiKey": []}]
    example = events["requestBody"]["content"]["application/json"]["examples"]["one"]["value"]
    assert post(client, example).status_code == 202


def test_health_and_metrics_answer(client: TestClient):
    body = b"{}"
    client.post("/webhooks/acme/stripe", content=body, headers=signed(body, at=NOW - 999))
    assert client.get("/health/live").status_code == 200
    assert client.get("/health/ready").status_code == 503
    assert 'tieout_ingest_webhooks_total{source="stripe",verdict="stale"}' in client.get("/metrics").text

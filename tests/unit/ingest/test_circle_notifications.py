"""Circle Mint's notifications: an SNS envelope that signs itself, with a JSON string inside."""

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from fastapi.testclient import TestClient

from services.ingest.adapters.certificates import SnsCertificates
from services.ingest.adapters.secrets import FileSecrets
from services.ingest.domain.directory import Directory
from services.ingest.domain.providers import Mapped, MappingOptions, Unmapped
from services.ingest.domain.providers.circle_notifications import read
from services.ingest.handlers.http import Ingest, http_app
from services.ingest.ports import Appended, CertificateAway
from services.ingest.settings import IngestSettings
from shared.contracts.directory import OrgEntry, SourceEntry
from shared.contracts.inbox import WebhookReceived, decode_inbox
from shared.telemetry.health import Health

TOPIC = "arn:aws:sns:us-east-1:908968368384:sandbox_platform-notifications-topic"
CERTIFICATE_URL = "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-01d088a6f77103d0fe307c0069e40ed6.pem"
SENT_AT = datetime(2026, 11, 20, 16, 47, 26, 916000, tzinfo=UTC)
NOW = SENT_AT.timestamp() + 2


def rsa() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


def certificate_of(key: RSAPrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(SENT_AT - timedelta(days=1)).not_valid_after(SENT_AT + timedelta(days=1))
    return made.sign(key, SHA256()).public_bytes(Encoding.PEM)


KEY = rsa()
CERTIFICATE = certificate_of(KEY)


def transfer(**fields: Any) -> dict[str, Any]:
    return {
        "id": "317c3ae9-79e2-3c9a-a14c-f341cfebf780",
        "source": {"type": "blockchain", "chain": "MATIC"},
        "destination": {"type": "wallet", "id": "1016606173", "address": "0xfe0f"},
        "amount": {"amount": "10.00", "currency": "USD"},
        "transactionHash": "0xa2a9",
        "status": "complete",
        "createDate": "2026-11-20T16:42:09.595Z",
        **fields,
    }


def message(kind: str = "transfers", **objects: Any) -> str:
    return json.dumps({"clientId": "6c2bcca2", "notificationType": kind, "version": 1, **objects})


def envelope(text: str, **fields: Any) -> dict[str, Any]:
    return {
        "Type": "Notification",
        "MessageId": "49e77e2a-3dcd-5d40-a42b-23af199310a0",
        "TopicArn": TOPIC,
        "Message": text,
        "Timestamp": "2026-11-20T16:47:26.916Z",
        "SignatureVersion": "1",
        "SigningCertURL": CERTIFICATE_URL,
        "UnsubscribeURL": "https://sns.us-east-1.amazonaws.com/?Action=Unsubscribe",
        **fields,
    }


def signed(document: dict[str, Any], key: RSAPrivateKey = KEY) -> bytes:
    """Sign as Amazon's page says: names and values, a line each, by the names' alphabet."""
    names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
    if document["Type"] != "Notification":
        names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    text = "".join(f"{name}\n{document[name]}\n" for name in names if name in document)
    digest = SHA1() if document["SignatureVersion"] == "1" else SHA256()
    signature = base64.b64encode(key.sign(text.encode(), PKCS1v15(), digest)).decode()
    return json.dumps(document | {"Signature": signature}).encode()


def confirmation() -> dict[str, Any]:
    return envelope(
        "You have chosen to subscribe.\nTo confirm, visit the SubscribeURL.",
        Type="SubscriptionConfirmation",
        Token="2336412f",
        SubscribeURL="https://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription&Token=2336412f",
    )


class Inbox:
    def __init__(self) -> None:
        self.kept: list[Appended] = []

    async def append(self, records: Any) -> None:
        self.kept += records


class Certificates:
    def __init__(self, pem: bytes | None = CERTIFICATE) -> None:
        self.asked: list[str] = []
        self._pem = pem

    async def pem(self, url: str) -> bytes:
        self.asked.append(url)
        if self._pem is None:
            raise CertificateAway("the signing certificate cannot be fetched")
        return self._pem


def post(body: bytes, certificates: Certificates | None = None, topic: str = TOPIC, now: float = NOW) -> Any:
    """Return the answer and what was kept."""
    inbox, directory = Inbox(), Directory()
    directory.put(OrgEntry(org="acme"))
    directory.put(SourceEntry(org="acme", source="circle", provider="circle"))
    directory.complete = True
    ingest = Ingest(
        IngestSettings(),
        inbox,
        directory,
        FileSecrets(None, {"TIEOUT_WEBHOOK_SECRET__ACME__CIRCLE": topic}),
        Health(["started"]),
        clock=lambda: now,
        certificates=certificates or Certificates(),
    )
    # SNS says text/plain, though it sends JSON.
    answer = TestClient(http_app(ingest)).post(
        "/webhooks/acme/circle", content=body, headers={"content-type": "text/plain; charset=UTF-8"}
    )
    return answer, [decode_inbox(one.value) for one in inbox.kept]


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("subject", [{}, {"Subject": "Ümläut"}])
def test_a_signed_message_is_kept_as_it_is(version: str, subject: dict[str, str]) -> None:
    """SHA-1 and SHA-256, with and without a subject; the delivery is the message's id."""
    body = signed(envelope(message(transfer=transfer()), SignatureVersion=version, **subject))
    answer, (kept,) = post(body)
    assert answer.status_code == 200
    assert isinstance(kept, WebhookReceived)
    assert (kept.body, kept.provider, kept.verdict) == (body, "circle", f"verified sns v{version}")
    assert kept.delivery_id == "49e77e2a-3dcd-5d40-a42b-23af199310a0"


def test_a_confirmation_is_no_event_and_its_address_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Trap 9: it is signed by other fields, becomes nothing, and somebody has to open the address."""
    body = signed(confirmation())
    answer, kept = post(body)
    assert (answer.status_code, len(kept)) == (200, 1)
    assert read(body, "circle", MappingOptions()) == Mapped("SubscriptionConfirmation", [], [])
    assert "Action=ConfirmSubscription" in capsys.readouterr().out


def test_a_changed_message_is_refused() -> None:
    """Each signed field counts."""
    good = json.loads(signed(envelope(message(transfer=transfer()))))
    for name in ("Message", "MessageId", "Timestamp"):
        changed = good | {name: good[name].replace("2", "3")}
        answer, kept = post(json.dumps(changed).encode())
        assert (answer.status_code, answer.json()["type"]) == (401, "urn:tieout:problem:signature-mismatch"), name
        assert kept == []


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.us-east-1.amazonaws.com/SimpleNotificationService-01d088a6f771.pem",
        "https://evil.example/SimpleNotificationService-01d088a6f771.pem",
        "https://sns.us-east-1.amazonaws.com.evil.example/SimpleNotificationService-01d088a6f771.pem",
        "https://sns.us-east-1.amazonaws.com@evil.example/SimpleNotificationService-01d088a6f771.pem",
        "https://sns.us-east-1.amazonaws.com:8443/SimpleNotificationService-01d088a6f771.pem",
        "https://my-bucket.s3.amazonaws.com/SimpleNotificationService-01d088a6f771.pem",
        "https://sns.us-east-1.amazonaws.com/?Action=Something.pem",
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-01d088a6f771.pem?x=1",
        "https://[",
    ],
)
def test_a_certificate_from_elsewhere_is_never_fetched(url: str) -> None:
    """Who chooses the certificate signs what they like."""
    strange, certificates = rsa(), Certificates()
    answer, kept = post(signed(envelope(message(transfer=transfer()), SigningCertURL=url), strange), certificates)
    assert (answer.status_code, kept, certificates.asked) == (401, [], [])


def test_somebody_elses_topic_is_refused() -> None:
    """SNS signs for all of its customers."""
    certificates = Certificates()
    body = signed(envelope(message(transfer=transfer()), TopicArn=TOPIC.replace("908968368384", "111111111111")))
    answer, kept = post(body, certificates)
    assert (answer.status_code, kept, certificates.asked) == (401, [], [])


def test_another_key_and_other_words_are_refused() -> None:
    """A key that is not the certificate's; a version that is not known; no SNS message at all."""
    body = signed(envelope(message(transfer=transfer())), rsa())
    assert post(body)[0].status_code == 401
    assert post(json.dumps(json.loads(body) | {"SignatureVersion": "3"}).encode())[0].status_code == 401
    assert post(json.dumps(json.loads(body) | {"Signature": "%%%"}).encode())[0].status_code == 401
    assert post(body, Certificates(b"no certificate"))[0].status_code == 401
    assert post(b'{"notificationType": "transfers"}')[0].status_code == 401
    assert post(b"no json")[0].status_code == 401


@pytest.mark.parametrize(("late_s", "status"), [(3000, 200), (4000, 401), (-200, 200), (-400, 401)])
def test_a_repeat_keeps_its_time(late_s: int, status: int) -> None:
    """SNS tries for an hour with the message's first time."""
    assert (
        post(signed(envelope(message(transfer=transfer()))), now=SENT_AT.timestamp() + late_s)[0].status_code == status
    )


def test_what_an_operator_has_to_do() -> None:
    """A certificate that cannot be fetched now, and a "secret" that is no topic."""
    answer, kept = post(signed(confirmation()), Certificates(None))
    assert (answer.status_code, kept) == (503, [])
    assert answer.headers["retry-after"]
    answer, kept = post(signed(confirmation()), topic="whsec_abc")
    assert (answer.status_code, kept) == (503, [])
    assert "ARN" in answer.json()["detail"]


def test_circle_looks_whether_the_address_answers() -> None:
    """HEAD before the first delivery."""
    ingest = Ingest(IngestSettings(), Inbox(), Directory(), FileSecrets(None, {}), Health(["started"]))
    assert TestClient(http_app(ingest)).head("/webhooks/acme/circle").status_code == 200


def event(kind: str = "transfers", **objects: Any) -> Any:
    mapped = read(signed(envelope(message(kind, **objects))), "circle", MappingOptions())
    assert mapped.refused == []
    (found,) = mapped.events
    return found


def test_a_transfer_from_outside_is_a_deposit() -> None:
    """In the words that the stack pack's rules look for; USD in a wallet is USDC."""
    found = event(transfer=transfer())
    assert (found.type, found.record, found.amount, found.currency) == (
        "deposit.updated",
        "317c3ae9-79e2-3c9a-a14c-f341cfebf780",
        "10.00",
        "USDC",
    )
    assert (found.status, found.sequence, found.account) == ("complete", 3, "circle:1016606173")
    assert found.refs == {"deposit_id": found.record, "transaction_hash": "0xa2a9"}
    assert found.attrs == {"provider_status": "complete", "chain": "MATIC"}
    assert found.id == "49e77e2a-3dcd-5d40-a42b-23af199310a0"


def test_a_transfer_to_the_outside_is_a_withdrawal_and_between_wallets_neither() -> None:
    wallet, outside = {"type": "wallet", "id": "1"}, {"type": "blockchain", "chain": "ETH"}
    found = event(transfer=transfer(source=wallet, destination=outside, status="running"))
    assert (found.type, found.status, found.account) == ("withdrawal.updated", "processing", "circle:1")
    assert found.refs["withdrawal_id"] == found.record
    assert event(transfer=transfer(source=wallet, destination=wallet)).type == "transfer.updated"
    assert event("payouts", payout=transfer(source=None, destination=None)).type == "withdrawal.updated"
    assert event("deposits", deposit=transfer(source=None)).type == "deposit.updated"


def test_later_states_are_newer_though_the_date_stays() -> None:
    """A notification carries the date when the transfer was made; unknown words go through."""
    told = [event(transfer=transfer(status=status)) for status in ("pending", "running", "complete", "failed")]
    assert len({one.occurred_at for one in told}) == 1
    assert [one.sequence for one in told] == [1, 2, 3, 4]
    assert event(transfer=transfer(status="frozen")).status == "frozen"


def test_a_number_keeps_its_text() -> None:
    """Should Circle ever write one."""
    body = signed(envelope(message(transfer=transfer(amount={"amount": "AMOUNT", "currency": "EUR"}))))
    found = read(body.replace(b'\\"AMOUNT\\"', b"90071992547409.930001"), "circle", MappingOptions()).events[0]
    assert (found.amount, found.currency) == ("90071992547409.930001", "EURC")


@pytest.mark.parametrize(
    "text",
    [
        "plain words",
        message("transfers"),
        message(transfer={"id": "x"}),
        message(transfer=transfer(source=None, destination=None)),
    ],
)
def test_what_cannot_be_understood_is_a_dead_letter(text: str) -> None:
    """A movement without what makes it one is never dropped."""
    with pytest.raises(Unmapped):
        read(signed(envelope(text)), "circle", MappingOptions())


def test_what_is_no_movement_makes_no_event() -> None:
    mapped = read(signed(envelope(message("wire", wire={"id": "x"}))), "circle", MappingOptions())
    assert mapped == Mapped("wire", [], [])
    refused = read(
        signed(envelope(message(transfer=transfer(amount={"amount": "NaN", "currency": "USD"})))),
        "circle",
        MappingOptions(),
    )
    assert (refused.events, [one.field for one in refused.refused]) == ([], ["amount"])


async def test_a_certificate_is_fetched_once() -> None:
    """And one that cannot be fetched is told and not remembered."""
    from aiohttp import web

    asked: list[str] = []

    async def certificate(request: web.Request) -> web.Response:
        asked.append(request.path)
        status = {"/good.pem": 200, "/moved.pem": 302}.get(request.path, 500)
        return web.Response(body=CERTIFICATE, status=status, headers={"Location": "/good.pem"})

    app = web.Application()
    app.add_routes([web.get("/{name}", certificate)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        certificates = SnsCertificates()
        url = f"http://{host}:{port}"
        assert [await certificates.pem(f"{url}/good.pem") for _ in range(2)] == [CERTIFICATE, CERTIFICATE]
        assert asked == ["/good.pem"]
        for name in ("bad", "moved"):
            with pytest.raises(CertificateAway):
                await certificates.pem(f"{url}/{name}.pem")
    finally:
        await asyncio.wait_for(runner.cleanup(), 5)
    with pytest.raises(CertificateAway):
        await SnsCertificates().pem("http://127.0.0.1:9/good.pem")

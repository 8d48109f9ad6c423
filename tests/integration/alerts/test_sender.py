"""The HTTP client of webhooks against real servers, TLS included; no database."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web

from services.alerts.adapters.delivery.sender import WebhookSender
from services.alerts.domain.delivery import Claim

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def claim(url: str, traceparent: str | None = None) -> Claim:
    return Claim(
        id=1, org="acme", endpoint_id="e", url=url, secrets=("s",), message_id="msg_1", type="endpoint.test",
        payload=b"{}", attempt=1, created_at=NOW, until=NOW + timedelta(minutes=1), traceparent=traceparent,
    )  # fmt: skip


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for localhost that only its own file vouches for, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    chain, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-out", chain, "-keyout", key], check=True, capture_output=True)
    return chain, key


@pytest.fixture
async def secure_url(certificate: tuple[Path, Path]) -> AsyncIterator[tuple[str, Path]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    async def take(_: web.Request) -> web.StreamResponse:
        return web.Response(status=202)

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    yield f"https://localhost:{port}/", certificate[0]
    await runner.cleanup()


async def test_a_certificate_that_nobody_vouches_for_is_not_accepted(secure_url: tuple[str, Path]) -> None:
    async with WebhookSender(allow_private=True) as sender:
        answer = await sender.send(claim(secure_url[0]), {})
    assert answer.status is None
    assert "certificate" in (answer.error or "")


async def test_it_delivers_over_tls(secure_url: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    url, certificate = secure_url
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with WebhookSender(allow_private=True) as sender:
        # aiohttp reads the system's authorities once, at import.
        sender._session.connector._ssl = ssl.create_default_context()
        answer = await sender.send(claim(url), {})
    assert (answer.status, answer.error) == (202, None)


async def test_a_port_where_nobody_listens_is_unreachable(unused_tcp_port: int) -> None:
    async with WebhookSender(allow_private=True) as sender:
        answer = await sender.send(claim(f"http://127.0.0.1:{unused_tcp_port}/"), {})
    assert (answer.error or "").startswith("unreachable: ")


async def test_a_name_that_does_not_exist_is_unreachable() -> None:
    async with WebhookSender(allow_private=True) as sender:
        answer = await sender.send(claim("http://no-such-name.invalid/"), {})
    assert answer.error == "unreachable: the name does not resolve"


@pytest.mark.parametrize(
    "answered", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 20_000 + b"\r\n\r\n"]
)
async def test_what_is_no_http_answer_is_a_failure(answered: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(answered)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, WebhookSender(allow_private=True) as sender:
        answer = await sender.send(claim(f"http://127.0.0.1:{port}/"), {})
    assert answer.status is None
    assert (answer.error or "").startswith("unreachable: ")


async def test_a_name_outside_ascii_and_a_broken_url_are_failures_not_crashes() -> None:
    async with WebhookSender(allow_private=False) as sender:
        for url in (
            "https://exa mple.com/",
            "https://[::1",
            "https://\N{SNOWMAN}" + "x" * 70 + ".invalid/",
            "https://.invalid/",
        ):
            answer = await sender.send(claim(url), {})
            assert answer.error, url

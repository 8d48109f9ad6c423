"""The operator's pages over HTTP, on a real server."""

import asyncio
import contextlib
import signal
import socket

import httpx
import pytest
from fastapi import FastAPI

from shared.telemetry.health import Health
from shared.telemetry.ops import (
    CannotListen,
    OpsEndpoints,
    PortInUse,
    StartFailed,
    listen,
    ops_app,
    serve_ops,
)


@pytest.fixture
def health():
    return Health(["kafka"])


@contextlib.asynccontextmanager
async def serving(app):
    """A client of `app`, served on a free port."""
    listener = listen("127.0.0.1", 0)
    address = "http://{}:{}".format(*listener.getsockname())
    task = asyncio.create_task(serve_ops(app, "127.0.0.1", 0, listener))
    async with httpx.AsyncClient(base_url=address) as client:
        try:
            yield client
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_ready_follows_its_conditions(health):
    async with serving(ops_app(health)) as client:
        before = await client.get("/health/ready")
        health.set_ready("kafka")
        after = await client.get("/health/ready")
    assert (before.status_code, before.json()) == (503, {"status": "failing", "checks": {"kafka": "not yet"}})
    assert (after.status_code, after.json()) == (200, {"status": "ok", "checks": {"kafka": "ok"}})


async def test_live_tells_of_a_broken_part(health):
    async with serving(ops_app(health)) as client:
        before = await client.get("/health/live")
        health.fail("loop", "stuck")
        after = await client.get("/health/live")
    assert (before.status_code, after.status_code) == (200, 503)
    assert after.json() == {"status": "failing", "checks": {"loop": "stuck"}}


@pytest.mark.parametrize("path", ["/metrics", "/metrics/"])
async def test_metrics_answer_without_a_redirect(health, path):
    async with serving(ops_app(health)) as client:
        answer = await client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert "python_info" in answer.text


async def test_head_has_no_body_and_post_is_refused(health):
    async with serving(ops_app(health)) as client:
        head, post, other = await client.head("/metrics"), await client.post("/metrics"), await client.get("/x")
    assert (head.status_code, head.content) == (200, b"")
    assert (post.status_code, post.headers["allow"]) == (405, "GET, HEAD")
    assert (other.status_code, other.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize("way", ["in front", "middleware", "mounted"])
async def test_pages_stand_beside_a_fastapi_application(health, way):
    started = []

    @contextlib.asynccontextmanager
    async def lifespan(_):
        started.append("up")
        yield
        started.append("down")

    inner = FastAPI(lifespan=lifespan)
    inner.get("/v1/x")(lambda: {"x": 1})
    if way == "middleware":
        inner.add_middleware(OpsEndpoints, health=health)
    if way == "mounted":
        inner.mount("/ops", ops_app(health))
    prefix = "/ops" if way == "mounted" else ""
    async with serving(OpsEndpoints(inner, health) if way == "in front" else inner) as client:
        answers = [await client.get(p) for p in (f"{prefix}/metrics", f"{prefix}/health/ready", "/v1/x", "/nope")]
    assert [a.status_code for a in answers] == [200, 503, 200, 404]
    assert started == ["up", "down"]


async def test_port_in_use_is_one_line_that_says_what_to_do(health):
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse) as refused:
            await serve_ops(ops_app(health), "127.0.0.1", port)
    assert str(refused.value) == (
        f"127.0.0.1:{port} is in use by another program: stop that program, "
        "or set TIEOUT_HTTP_PORT to a free port (0 takes any)"
    )
    assert (refused.value.host, refused.value.port, refused.value.exit_code) == ("127.0.0.1", port, 2)


def test_address_of_another_machine_is_refused():
    with pytest.raises(CannotListen) as refused:
        listen("192.0.2.1", 0)
    assert str(refused.value) == (
        "cannot listen on 192.0.2.1:0: Cannot assign requested address: check TIEOUT_HTTP_HOST and TIEOUT_HTTP_PORT"
    )


async def test_signals_stay_with_the_service(health):
    before = signal.getsignal(signal.SIGTERM)
    async with serving(ops_app(health)) as client:
        await client.get("/health/live")
        assert signal.getsignal(signal.SIGTERM) is before


async def test_port_is_free_again_after_the_end(health):
    async with serving(ops_app(health)) as client:
        await client.get("/health/live")
        port = client.base_url.port
    with socket.socket() as caller, pytest.raises(ConnectionRefusedError):
        caller.connect(("127.0.0.1", port))
    listen("127.0.0.1", port).close()


async def test_application_that_cannot_start_ends_only_its_server():
    @contextlib.asynccontextmanager
    async def lifespan(_):
        raise RuntimeError("no")
        yield

    with pytest.raises(StartFailed):
        await serve_ops(FastAPI(lifespan=lifespan), "127.0.0.1", 0)


def test_answers_do_not_wait_for_the_clients_acknowledgement():
    """Head and body are two writes: with Nagle's algorithm each answer would take 40 ms."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

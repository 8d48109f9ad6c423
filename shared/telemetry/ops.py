"""`/health/live`, `/health/ready` and `/metrics`, alone or in front of a service's own application.

`/metrics` and `/metrics/` both answer: a redirect would lose scrapers that do not follow it.
"""

import asyncio
import errno
import json
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Final

from shared.errors import UsageError
from shared.telemetry.health import Health, Verdict
from shared.telemetry.metrics import render_metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

LISTEN_BACKLOG: Final = 2048
SHUTDOWN_SECONDS_MAX: Final = 5
"""How long open requests may take to end once the server is to stop; below the 10 s of `docker stop`."""


class CannotListen(UsageError):
    """The address cannot be listened on; the message is one line that says why and what to do."""


class PortInUse(CannotListen):
    """Another program listens on the port."""

    def __init__(self, host: str, port: int, setting: str) -> None:
        super().__init__(
            f"{_address(host, port)} is in use by another program: stop that program, "
            f"or set {setting} to a free port (0 takes any)"
        )
        self.host = host
        self.port = port


class StartFailed(RuntimeError):
    """The application refused to start; its own log line tells why."""


class OpsEndpoints:
    """ASGI: answers the three paths, and hands everything else to `app` where there is one.

    Its arguments are those of a middleware, so `fastapi_app.add_middleware(OpsEndpoints, health=health)` works.
    """

    def __init__(self, app: AsgiApp | None, health: Health) -> None:
        self._app = app
        self._health = health

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (answer := self._answer(scope)) is not None:
            await _send(send, scope["method"], *answer)
        elif self._app is not None:
            await self._app(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _follow_lifespan(receive, send)
        elif scope["type"] == "http":
            await _send(
                send, scope["method"], *_problem(404, "No such page: see /health/live, /health/ready, /metrics")
            )
        else:
            raise ValueError(f"{scope['type']} is not served here")

    def _answer(self, scope: Scope) -> "_Answer | None":
        path = str(scope["path"])
        page = _PAGES.get(path.removeprefix(scope.get("root_path", "")).rstrip("/"))
        if page is None:
            return None
        if scope["method"] not in ("GET", "HEAD"):
            return _problem(405, "Only GET and HEAD")
        return page(self._health, scope)


def ops_app(health: Health) -> AsgiApp:
    """The three paths as an application of its own, for a service that has no other HTTP."""
    return OpsEndpoints(None, health)


_Answer = tuple[int, str, bytes]


def _live(health: Health, _scope: Scope) -> _Answer:
    return _health_answer(health.live())


def _ready(health: Health, _scope: Scope) -> _Answer:
    return _health_answer(health.ready())


def _metrics(_health: Health, scope: Scope) -> _Answer:
    accepted = [value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"]
    body, content_type = render_metrics(",".join(accepted))
    return 200, content_type, body


_PAGES: Final[dict[str, Callable[[Health, Scope], _Answer]]] = {
    "/health/live": _live,
    "/health/ready": _ready,
    "/metrics": _metrics,
}


def _health_answer(verdict: Verdict) -> _Answer:
    body = {"status": "ok" if verdict.ok else "failing", "checks": verdict.reasons}
    return 200 if verdict.ok else 503, "application/json", json.dumps(body).encode()


def _problem(status: int, title: str) -> _Answer:
    return status, "application/problem+json", json.dumps({"title": title, "status": status}).encode()


async def _send(send: Send, method: str, status: int, content_type: str, body: bytes) -> None:
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    if status == 405:
        headers.append((b"allow", b"GET, HEAD"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})


async def _follow_lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def listen(host: str, port: int, setting: str = "TIEOUT_HTTP_PORT") -> socket.socket:
    """A listening socket; port 0 takes a free one (`getsockname()` tells which). Do this before anything else starts.

    Raises:
        PortInUse: another program has the port.
        CannotListen: the address is not of this machine, or the port needs rights we do not have.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=LISTEN_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(host, port, setting) from error
        # create_server appends the address to the text.
        reason = error.strerror.partition(" (while")[0] if error.strerror else type(error).__name__
        raise CannotListen(
            f"cannot listen on {_address(host, port)}: {reason}: check TIEOUT_HTTP_HOST and {setting}"
        ) from error
    # Connections inherit it. asyncio sets it only on sockets that name their protocol, which `create_server` does not;
    # without it every answer (head and body are two writes) waits 40 ms for the client's delayed acknowledgement.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def serve_ops(app: AsgiApp, host: str, port: int, listener: socket.socket | None = None) -> None:
    """Serve `app` in the running loop until cancelled; takes no signals, for those are the service's to handle.

    With `listener` (from `listen`) host and port are not used. When cancelled, open requests may end first, within
    `SHUTDOWN_SECONDS_MAX`.

    Raises:
        PortInUse, CannotListen: see `listen`.
        StartFailed: the application's own start failed.
    """
    import uvicorn

    class ServerWithoutSignals(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    config = uvicorn.Config(
        app,
        log_config=None,  # configure_logging has decided
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=SHUTDOWN_SECONDS_MAX,
    )
    server = ServerWithoutSignals(config)
    with listener or listen(host, port) as sock:
        serving = asyncio.create_task(_serve(server.serve(sockets=[sock])))
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            server.should_exit = True
            await serving
            raise


async def _serve(serving: Awaitable[None]) -> None:
    try:
        await serving
    except SystemExit as error:
        # uvicorn leaves the whole process so; the other tasks must get to end properly.
        raise StartFailed("the application did not start; the log line above tells why") from error

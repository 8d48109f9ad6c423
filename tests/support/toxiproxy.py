"""Shopify's toxiproxy as a process of a test: a TCP proxy per server, and toxics that are put in and taken out.

`go install github.com/Shopify/toxiproxy/v2/cmd/server@v2.5.0` builds it; it is called `server` then, or
`toxiproxy-server` where a distribution has it.
"""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tieout.local.places import free_ports, listens

HOW = "go install github.com/Shopify/toxiproxy/v2/cmd/server@v2.5.0"
START_S = 20.0


def program() -> str | None:
    """Where it is; `TIEOUT_TOXIPROXY` names another place."""
    named = os.environ.get("TIEOUT_TOXIPROXY") or shutil.which("toxiproxy-server")
    built = Path(os.environ.get("GOBIN") or Path.home() / "go" / "bin") / "server"
    return named or (str(built) if built.exists() else None)


class Toxiproxy:
    """Its HTTP interface."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def proxy(self, name: str, listen: int, upstream: int) -> None:
        """Begin to pass on connections."""
        body = {"name": name, "listen": f"127.0.0.1:{listen}", "upstream": f"127.0.0.1:{upstream}", "enabled": True}
        self._ask("POST", "/proxies", body)

    def enabled(self, name: str, on: bool) -> None:
        """Off: connections are ended and refused."""
        self._ask("POST", f"/proxies/{name}", {"enabled": on})

    @asynccontextmanager
    async def toxic(
        self, name: str, type_: str, stream: str = "downstream", toxicity: float = 1.0, **attributes: Any
    ) -> AsyncIterator[None]:
        """`latency jitter bandwidth slow_close timeout reset_peer slicer limit_data`, for a part of the connections."""
        body = {"name": "toxic", "type": type_, "stream": stream, "toxicity": toxicity, "attributes": attributes}
        await asyncio.to_thread(self._ask, "POST", f"/proxies/{name}/toxics", body)
        try:
            yield
        finally:
            await asyncio.to_thread(self._ask, "DELETE", f"/proxies/{name}/toxics/toxic", None)

    @asynccontextmanager
    async def away(self, name: str) -> AsyncIterator[None]:
        """No connection at all."""
        await asyncio.to_thread(self.enabled, name, False)
        try:
            yield
        finally:
            await asyncio.to_thread(self.enabled, name, True)

    def _ask(self, method: str, path: str, body: Any) -> None:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=10):
            pass


@contextlib.contextmanager
def toxiproxy() -> Iterator[Toxiproxy]:
    """A running one; a test that needs it fails loudly where it is not installed."""
    found = program()
    if found is None:
        pytest.fail(f"NOT RUN: toxiproxy is not installed. Get it with: {HOW}")
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [found, "-port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        _wait(port)
        yield Toxiproxy(port)
    finally:
        process.kill()
        process.wait()


def _wait(port: int) -> None:
    import time

    until = time.monotonic() + START_S
    while not listens(port):
        assert time.monotonic() < until, "toxiproxy does not answer"
        time.sleep(0.05)

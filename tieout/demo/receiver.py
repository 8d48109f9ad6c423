"""A small receiver of tieout's webhooks: verifies each signature and keeps what came."""

import base64
import hashlib
import hmac
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiohttp import web

TOLERANCE_S = 300
BODY_BYTES_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Delivered:
    """One webhook whose signature was right."""

    id: str
    body: dict[str, Any]
    signature: str


class Receiver:
    """Listens on a free port of this machine while its block runs; `secret` is what tieout gave out (`whsec_…`)."""

    def __init__(self) -> None:
        self.secret = ""
        self.delivered: list[Delivered] = []
        self.refused = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_post("/tieout", self._receive)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/tieout"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        raw = await request.read()
        id_ = request.headers.get("webhook-id", "")
        if not self._is_signed(id_, request.headers, raw):
            self.refused += 1
            return web.Response(status=401, text="wrong signature")
        body = await request.json()
        self.delivered.append(Delivered(id_, body, request.headers["webhook-signature"].split()[0]))
        return web.Response(status=204)

    def _is_signed(self, id_: str, headers: Any, raw: bytes) -> bool:
        """Check the Standard Webhooks signature (standardwebhooks.com) the way a customer would."""
        timestamp = headers.get("webhook-timestamp", "")
        if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > TOLERANCE_S or not self.secret:
            return False
        key = base64.b64decode(self.secret.removeprefix("whsec_"))
        digest = hmac.digest(key, f"{id_}.{timestamp}.".encode() + raw, hashlib.sha256)
        wanted = "v1," + base64.b64encode(digest).decode()
        return any(hmac.compare_digest(wanted, given) for given in headers.get("webhook-signature", "").split())

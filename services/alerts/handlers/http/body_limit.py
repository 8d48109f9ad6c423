"""Refuses bodies above a limit before they are held in memory: 413."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from services.alerts.handlers.http.problem import TYPE_PREFIX

BODY_BYTES_MAX = 256 * 1024
"""Triage bodies are a few lines; more is a mistake."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class _TooLarge(Exception):
    pass


class BodyLimit:
    """ASGI middleware; counts what arrives, whatever `Content-Length` says."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _declared(scope) > BODY_BYTES_MAX:
            await _refuse(send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > BODY_BYTES_MAX:
                raise _TooLarge
            return message

        try:
            await self._app(scope, counted, send)
        except _TooLarge:
            await _refuse(send)


def _declared(scope: MutableMapping[str, Any]) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0


async def _refuse(send: Send) -> None:
    body = json.dumps(
        {
            "type": f"{TYPE_PREFIX}body-too-large",
            "title": "Content Too Large",
            "status": 413,
            "detail": f"the body is larger than {BODY_BYTES_MAX} bytes",
        }
    ).encode()
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})

"""The demo's and the drill's sender: what is not answered is sent again, for events have ids."""

from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tieout.demo import sender
from tieout.demo.sender import Sender
from tieout.demo.stream import Post

PAYMENT = Post(at_s=0.0, channel="stripe", body={"id": "evt_1"})


async def _sent(monkeypatch: pytest.MonkeyPatch, answers: list[int | None]) -> tuple[Sender, int]:
    """Send one webhook to a server that answers so, one after the other; None: it hangs up."""
    monkeypatch.setattr(sender, "PAUSE_S", 0.0)
    came = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal came
        status = answers[min(came, len(answers) - 1)]
        came += 1
        if status is None:
            assert request.transport
            request.transport.abort()
        return web.Response(status=status or 200)

    app = web.Application()
    app.router.add_post("/webhooks/acme/stripe", answer)
    server: Any = TestServer(app)
    async with server, Sender(str(server.make_url("/")).rstrip("/"), "acme", "key", "secret") as made:
        await made.send([PAYMENT])
    return made, came


@pytest.mark.parametrize("first", [None, 503])
async def test_what_is_not_acknowledged_is_sent_again(first: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    made, came = await _sent(monkeypatch, [first, first, 200])

    assert (made.accepted, made.refused, came) == (1, 0, 3)


async def test_what_is_never_answered_counts_as_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made, came = await _sent(monkeypatch, [None])

    assert (made.accepted, made.refused) == (0, 1)
    assert came >= sender.RETRIES

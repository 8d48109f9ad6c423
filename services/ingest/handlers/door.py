"""The two posts, taken before the framework's routing, models and middleware: these cost more than the posts themselves."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from services.ingest.handlers.problems import Problem, response_of, unexpected
from shared.telemetry.ops import AsgiApp, Receive, Scope, Send

EVENTS = "/v1/events"
WEBHOOKS = "webhooks"
_WEBHOOK_PARTS = 4
"""Of `/webhooks/{org}/{source}`: nothing, the word, org, source."""

PostEvents = Callable[[Request], Awaitable[Response]]
PostWebhook = Callable[[str, str, Request], Awaitable[Response]]


class Door:
    """ASGI: answers the two posts and hands everything else to `app`."""

    def __init__(self, app: AsgiApp, post_events: PostEvents, post_webhook: PostWebhook) -> None:
        self._app = app
        self._post_events = post_events
        self._post_webhook = post_webhook

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answering = self._answering(scope, receive)
        if answering is None:
            await self._app(scope, receive, send)
            return
        try:
            answer = await answering
        except Problem as problem:
            answer = response_of(problem)
        except Exception:
            await unexpected()(scope, receive, send)
            raise  # the server logs it
        await answer(scope, receive, send)

    def _answering(self, scope: Scope, receive: Receive) -> Awaitable[Response] | None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return None
        path = scope["path"]
        if path == EVENTS:
            return self._post_events(Request(scope, receive))
        parts = path.split("/")
        if len(parts) != _WEBHOOK_PARTS or parts[1] != WEBHOOKS or not (parts[2] and parts[3]):
            return None
        return self._post_webhook(parts[2], parts[3], Request(scope, receive))

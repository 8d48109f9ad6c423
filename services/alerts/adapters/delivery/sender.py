"""The HTTP client of outgoing webhooks: strict about where it connects, how long it waits and how much it reads."""

import socket
import time
from collections.abc import Mapping
from typing import Any, Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver
from opentelemetry.trace import SpanKind

from services.alerts.domain.address import AddressRefused, UrlRefused, check_url, refused_address
from services.alerts.domain.delivery import Answer, Claim
from shared.telemetry.traces import TRACEPARENT, extract_http_context, inject_http_headers, span

TOTAL_TIMEOUT_S: Final = 15.0
"""A receiver should store and answer; what takes longer is tried again later."""
CONNECT_TIMEOUT_S: Final = 5.0
"""Name, TCP and TLS: an address that does not answer within this is away."""
ANSWER_BYTES_MAX: Final = 16_384
"""Answers are read only so that the connection can be used again; a longer one closes it."""
HEADER_BYTES_MAX: Final = 8_190
KEEPALIVE_S: Final = 4.0
"""Below the 5 s after which common servers close: a request on a connection just closed would count as a failed try."""
DNS_TTL_S: Final = 10
USER_AGENT: Final = "tieout-webhooks"


class WebhookSender:
    """Sends signed messages. Use as an async context manager, inside a running event loop.

    Args:
        allow_private: let endpoints be in private networks and use http; for tests, demos and closed networks.
        total_timeout_s: longest duration of a request.
        resolver: only for tests of what names resolve to.
    """

    def __init__(
        self,
        *,
        allow_private: bool,
        total_timeout_s: float = TOTAL_TIMEOUT_S,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._allow_private = allow_private
        self._timeout = aiohttp.ClientTimeout(
            total=total_timeout_s, connect=min(CONNECT_TIMEOUT_S, total_timeout_s), ceil_threshold=total_timeout_s + 1
        )
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            limit=0,  # each endpoint has its own few places: a common limit would let slow ones delay the others
            ttl_dns_cache=DNS_TTL_S,
            keepalive_timeout=KEEPALIVE_S,
            resolver=self._resolver,
            socket_factory=self._open_socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # a small answer may unpack into a huge one
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            trust_env=False,  # a proxy would connect for us, past the address check
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    def _open_socket(self, address_info: tuple[Any, ...]) -> socket.socket:
        """Make the socket for one resolved address, unless webhooks may not go there."""
        family, type_, protocol, _, address = address_info
        reason = None if self._allow_private else refused_address(address[0])
        if reason:
            raise AddressRefused(f"address refused: {reason}; webhooks go to public addresses only")
        return socket.socket(family=family, type=type_, proto=protocol)

    async def send(self, claim: Claim, headers: Mapping[str, str]) -> Answer:
        """Post the claim's payload; every failure is an `Answer` with an error."""
        begun = time.monotonic()
        try:
            check_url(claim.url, allow_private=self._allow_private)
            with span(
                "webhook deliver",
                parent=extract_http_context({TRACEPARENT: claim.traceparent} if claim.traceparent else {}),
                kind=SpanKind.CLIENT,
                attributes={"http.request.method": "POST", "tieout.webhook_id": claim.message_id},
            ):
                status, retry_after = await self._post(claim, headers)
        except TimeoutError:
            return _failed(begun, f"timeout: no complete answer within {self._timeout.total:g} s")
        except (UrlRefused, OSError, aiohttp.ClientError, ValueError) as error:
            return _failed(begun, _words(error))
        return Answer(status=status, error=None, duration_ms=_since(begun), retry_after=retry_after)

    async def _post(self, claim: Claim, headers: Mapping[str, str]) -> tuple[int, str | None]:
        assert self._session is not None, "used outside its context"
        async with self._session.post(
            claim.url,
            data=claim.payload,
            headers={
                "content-type": "application/json",
                "user-agent": USER_AGENT,
                **headers,
                **_trace_headers(claim),
            },
            allow_redirects=False,
        ) as response:
            await _read_small(response)
            return response.status, response.headers.get("retry-after")


async def _read_small(response: aiohttp.ClientResponse) -> None:
    """Read a short answer to its end; a longer one is cut off with its connection."""
    read = 0
    async for chunk in response.content.iter_chunked(ANSWER_BYTES_MAX):
        read += len(chunk)
        if read > ANSWER_BYTES_MAX:
            response.close()
            return


def _trace_headers(claim: Claim) -> dict[str, str]:
    """Return the current span's context; while tracing is off here, the one that came with the message."""
    headers = inject_http_headers()
    if headers or claim.traceparent is None:
        return headers
    return {TRACEPARENT: claim.traceparent}


def _words(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "unreachable: the name does not resolve"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"unreachable: its certificate is not accepted: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        inner = str(error.os_error)
        return inner if inner.startswith("address refused") else f"unreachable: {inner}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "unreachable: the connection was closed without an answer"
    return f"unreachable: {type(error).__name__}: {error}"


def _failed(begun: float, error: str) -> Answer:
    return Answer(status=None, error=error, duration_ms=_since(begun))


def _since(begun: float) -> int:
    return round((time.monotonic() - begun) * 1000)

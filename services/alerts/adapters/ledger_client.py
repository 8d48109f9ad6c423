"""The ledger's address for adjustment entries: HTTP POST with an idempotency key, retried, limited in time and size."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
import msgspec
import stamina
from pydantic import SecretStr
from yarl import URL

from services.alerts.domain.correction import Attempt
from services.alerts.ports.corrections import LedgerRefused, LedgerUnavailable

ATTEMPTS_MAX = 3
WAIT_INITIAL_S = 0.5
WAIT_MAX_S = 5.0
"""A ledger that restarts is back in seconds; the attempt as a whole is tried again later."""
ANSWER_BYTES_MAX = 16_384
SAID_LENGTH_MAX = 300
"""Characters of the ledger's own words that are kept."""
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_WORDS = ("detail", "message", "error", "reason", "title", "id", "entry_id", "reference")
"""Members of an answer that say something to people, the most telling first."""


@dataclass(frozen=True, slots=True)
class LedgerAddress:
    """Where one organisation's ledger takes entries."""

    url: URL
    key: SecretStr | None
    timeout_s: float


class _Busy(Exception):
    """Worth another try."""


class HttpLedgers:
    """`Ledger` over HTTP: the address depends on the organisation. Use as an async context manager."""

    def __init__(self, addresses: Mapping[str, LedgerAddress]) -> None:
        self._addresses = addresses
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # A proxy of the environment would see entries and key.
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def post(self, attempt: Attempt) -> str:
        """See `ports.Ledger`."""
        address = self._addresses.get(attempt.org)
        if address is None:
            # The file was changed while the attempt was open.
            raise LedgerRefused("there is no address of a ledger any more")
        try:
            async for tried in stamina.retry_context(
                on=_Busy, attempts=ATTEMPTS_MAX, timeout=None, wait_initial=WAIT_INITIAL_S, wait_max=WAIT_MAX_S
            ):
                with tried:
                    return await self._once(address, attempt)
        except _Busy as busy:
            raise LedgerUnavailable(str(busy)) from None
        raise AssertionError("stamina either returns or raises")

    async def _once(self, address: LedgerAddress, attempt: Attempt) -> str:
        assert self._session is not None, "used outside its context"
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Idempotency-Key": attempt.id}
        if address.key is not None:
            headers["Authorization"] = f"Bearer {address.key.get_secret_value()}"
        try:
            async with self._session.post(
                address.url,
                data=msgspec.json.encode(attempt.body),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=address.timeout_s),
                allow_redirects=False,
            ) as response:
                said = _words(await _limited(response))
                status = response.status
        except TimeoutError:
            raise _Busy(f"the ledger did not answer within {address.timeout_s:g} s") from None
        except aiohttp.ClientError as error:
            # Only its kind: some of these errors print the request, and with it the key.
            raise _Busy(f"the ledger cannot be reached: {type(error).__name__}") from None
        if 200 <= status < 300:
            return f"HTTP {status}{said}"
        if status in TRANSIENT:
            raise _Busy(f"the ledger is busy: HTTP {status}{said}")
        if 300 <= status < 400:
            raise LedgerRefused(f"HTTP {status}: redirects are not followed; set ledger.url to its final address")
        raise LedgerRefused(f"the ledger refused it: HTTP {status}{said}")


async def _limited(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(ANSWER_BYTES_MAX):
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            response.close()
            return b""
    return bytes(body)


def _words(body: bytes) -> str:
    """Return what an answer says to people, with a colon before; empty where it is not JSON or says nothing."""
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
    if not isinstance(found, dict):
        return ""
    said = [str(found[name]) for name in _WORDS if isinstance(found.get(name), str | int)]
    return f": {said[0][:SAID_LENGTH_MAX]}" if said else ""

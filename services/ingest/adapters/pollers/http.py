"""GET requests to a provider: paced, retried, limited in time and size; credentials never leave its host."""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import aiohttp
import stamina
from yarl import URL

from services.ingest.domain.balances import ReadFailed

BODY_BYTES_MAX = 16 * 1024 * 1024
"""A page of a thousand accounts has about 1 MB."""
ATTEMPTS_MAX = 5
WAIT_INITIAL_S = 0.5
WAIT_MAX_S = 10.0
RETRY_AFTER_MAX_S = 60.0
"""A provider that asks for more is asked again at the next interval."""
DATE_AGE_MAX = timedelta(minutes=5)
"""How old an answer may be by its own `Date` and `Age`: an older one comes from a cache or a replica that stands still."""
TRANSIENT = frozenset({429, 500, 502, 503, 504})
CHUNK_BYTES = 64 * 1024


class Answer(NamedTuple):
    """A 200."""

    body: bytes
    next: URL | None
    """Where the provider's `Link` header says that more follows."""


class _Busy(Exception):
    """Worth another try."""

    def __init__(self, failed: ReadFailed, retry_after_s: float | None = None) -> None:
        super().__init__(str(failed))
        self.failed = failed
        self.retry_after_s = retry_after_s


def _worth_waiting(error: Exception) -> bool | float:
    """Tell stamina whether to try again, and after how long where the provider says so."""
    if not isinstance(error, _Busy):
        return False
    if error.retry_after_s is None:
        return True
    return error.retry_after_s if error.retry_after_s <= RETRY_AFTER_MAX_S else False


class _Pace:
    """Lets requests through at most so often."""

    def __init__(self, requests_per_s: float) -> None:
        self._pause_s = 1 / requests_per_s
        self._next_at = 0.0

    async def wait(self) -> None:
        now = time.monotonic()
        at = max(now, self._next_at)
        self._next_at = at + self._pause_s
        if at > now:
            await asyncio.sleep(at - now)


class ProviderHttp:
    """One provider's address and credentials, for the length of one read."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: URL,
        headers: Mapping[str, str],
        *,
        requests_per_s: float,
        timeout_s: float,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._session = session
        self._base_url = base_url
        self._headers = dict(headers)
        self._pace = _Pace(requests_per_s)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._timeout_s = timeout_s
        self._clock = clock

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Answer:
        """Ask once, and again while that may help.

        Raises:
            ReadFailed: with what the provider said last.
        """
        try:
            async for attempt in stamina.retry_context(
                on=_worth_waiting,
                attempts=ATTEMPTS_MAX,
                timeout=None,
                wait_initial=WAIT_INITIAL_S,
                wait_max=WAIT_MAX_S,
            ):
                with attempt:
                    return await self._once(path, params)
        except _Busy as busy:
            raise busy.failed from None
        raise AssertionError("stamina either returns or raises")

    async def _once(self, path: str, params: Mapping[str, str] | None) -> Answer:
        await self._pace.wait()
        url = self._base_url.joinpath(path.lstrip("/"))
        try:
            async with self._session.get(
                url, params=params, headers=self._headers, timeout=self._timeout, allow_redirects=False
            ) as response:
                self._check_status(response, path)
                self._check_age(response, path)
                body = await _limited_body(response, path)
                found = response.links.get("next")
                following = found.get("url") if found else None
                return Answer(body, URL(str(following)) if following is not None else None)
        except TimeoutError:
            raise _Busy(ReadFailed("timeout", f"GET {path}: no answer within {self._timeout_s:g} s")) from None
        except aiohttp.ClientError as error:
            # Only its kind: some of these errors print the request, and with it the credentials.
            raise _Busy(ReadFailed("unavailable", f"GET {path}: {type(error).__name__}")) from None

    def _check_status(self, response: aiohttp.ClientResponse, path: str) -> None:
        status = response.status
        if status == 200:
            return
        if status == 429:
            wait_s = _retry_after_s(response.headers.get("Retry-After"), self._clock())
            said = f", which asks to wait {wait_s:g} s" if wait_s is not None else ""
            raise _Busy(ReadFailed("rate_limited", f"GET {path}: 429 from the provider{said}"), wait_s)
        if status in TRANSIENT:
            wait_s = _retry_after_s(response.headers.get("Retry-After"), self._clock())
            raise _Busy(ReadFailed("unavailable", f"GET {path}: {status} from the provider"), wait_s)
        if status in {401, 403}:
            raise ReadFailed(
                "unauthorised",
                f"GET {path}: {status}; the key is wrong, belongs to the other environment, or may not read this",
            )
        raise ReadFailed("refused", f"GET {path}: {status} from the provider; is base_url right?")

    def _check_age(self, response: aiohttp.ClientResponse, path: str) -> None:
        now = self._clock()
        age = response.headers.get("Age", "")
        aged_s = int(age) if age.isascii() and age.isdigit() else 0
        dated = _http_date(response.headers.get("Date"))
        if dated is None or abs(now - dated) <= DATE_AGE_MAX:
            if aged_s <= DATE_AGE_MAX.total_seconds():
                return
            dated = now - timedelta(seconds=aged_s)
        raise ReadFailed(
            "stale",
            f"GET {path}: the answer is dated {dated:%Y-%m-%d %H:%M:%S}Z, and it is {now:%Y-%m-%d %H:%M:%S}Z here",
        )


async def _limited_body(response: aiohttp.ClientResponse, path: str) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise ReadFailed("unreadable", f"GET {path}: the answer has more than {BODY_BYTES_MAX} bytes")
    return bytes(body)


def _retry_after_s(text: str | None, now: datetime) -> float | None:
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return float(text)
    at = _http_date(text)
    return max(0.0, (at - now).total_seconds()) if at else None


def _http_date(text: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(text) if text else None
    except ValueError:
        return None
    if found is None:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)

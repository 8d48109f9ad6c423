"""Bitget's private API through ccxt: signed, paced and retried by it and by us, exact, and silent about keys.

ccxt's unified methods turn amounts into floats and load all markets first; its raw methods leave the answer's text.
"""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import stamina

from tieout.bots.exchange.account_map import Account, Credentials
from tieout.bots.exchange.holdings import (
    Holding,
    ProbeFailed,
    ProbeStatus,
    Share,
    equity,
    position,
    price,
    spot_holding,
    spot_share,
    swap_share,
    unified_holding,
)
from tieout.bots.exchange.settings import ExchangeSettings

UNIFIED_CODE = "40085"
"""Bitget's answer to requests of the classic API for a unified account."""
PRODUCT_TYPE = "USDT-FUTURES"
WAIT_INITIAL_S = 0.5
WAIT_MAX_S = 10.0
ANSWER_AGE_MAX_S = 300.0
"""An answer that is older by its own `requestTime` comes from a cache, or this machine's clock is off."""
PROBES_MAX = 8
"""Accounts looked at at once: Bitget's limits are per account for holdings, and far away for prices."""
_CODE = re.compile(r'"code"\s*:\s*"?([0-9]{3,6})')
_TRANSIENT: frozenset[ProbeStatus] = frozenset({"timeout", "unavailable", "rate_limited"})

Call = Callable[[], Awaitable[Any]]


class Redirected(aiohttp.ClientError):
    """Whoever answers sends the request elsewhere, and the key would go along."""


async def _refuse_redirect(*_: object) -> None:
    raise Redirected


@asynccontextmanager
async def exchange_session() -> AsyncIterator[aiohttp.ClientSession]:
    """Open a connection for any number of accounts: no cookies, no redirects."""
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_refuse_redirect)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trace_configs=[trace]) as session:
        yield session


class Bitget:
    """One look at any number of accounts; prices are asked once per pair."""

    def __init__(self, settings: ExchangeSettings, session: aiohttp.ClientSession) -> None:
        self._settings = settings
        self._session = session
        self._prices: dict[tuple[str, str], asyncio.Task[Any]] = {}
        self._clients: list[Any] = []
        self._public = self._client(None)
        self._probes = asyncio.Semaphore(PROBES_MAX)

    async def share(self, account: Account, credentials: Credentials) -> tuple[Share, Holding]:
        """Return the base asset's share of an account, and what it holds.

        Raises:
            ProbeFailed: with what became of it.
        """
        async with self._probes:
            client = self._client(credentials)
            if account.market == "swap":
                return await self._swap(client, account)
            base, quote = account.trading_pair.split("-")
            if account.market == "unified":
                holding = unified_holding(await self._ask(client.privateUtaGetV3AccountAssets), base, quote)
            else:
                holding = spot_holding(await self._ask(client.privateSpotGetV2SpotAccountAssets), base, quote)
            return spot_share(holding, await self._price(account)), holding

    def leave(self) -> None:
        """End what nobody waits for any more; the session stays the caller's."""
        for task in self._prices.values():
            task.cancel()
        for client in self._clients:
            # ccxt's own close waits a while for every client; there is nothing else of theirs to close.
            client.session = None

    async def _swap(self, client: Any, account: Account) -> tuple[Share, Holding]:
        quote = account.trading_pair.split("-")[1]
        asked = {"symbol": _symbol(account), "productType": PRODUCT_TYPE, "marginCoin": quote}
        worth = equity(await self._ask(lambda: client.privateMixGetV2MixAccountAccount(asked)))
        rows = await self._ask(lambda: client.privateMixGetV2MixPositionSinglePosition(asked))
        size = position(rows, account.trading_pair)
        return swap_share(size, await self._price(account), worth), Holding(size, worth)

    async def _price(self, account: Account) -> Any:
        market = "swap" if account.market == "swap" else "spot"
        place = (market, account.trading_pair)
        if place not in self._prices:
            self._prices[place] = asyncio.create_task(self._ask_price(market, _symbol(account)))
        # Shielded: an account whose time is over must not take the price from the others.
        return await asyncio.shield(self._prices[place])

    async def _ask_price(self, market: str, symbol: str) -> Any:
        if market == "swap":
            asked = {"symbol": symbol, "productType": PRODUCT_TYPE}
            return price(await self._ask(lambda: self._public.publicMixGetV2MixMarketTicker(asked)), "markPrice")
        return price(
            await self._ask(lambda: self._public.publicSpotGetV2SpotMarketTickers({"symbol": symbol})), "lastPr"
        )

    async def _ask(self, call: Call) -> Any:
        """Return `data` of an answer; asked again while that may help."""
        retried = stamina.retry_context(
            on=_worth_another_try,
            attempts=self._settings.snapshot_attempts,
            timeout=None,
            wait_initial=WAIT_INITIAL_S,
            wait_max=WAIT_MAX_S,
        )
        async for attempt in retried:
            with attempt:
                return _data(await self._once(call))
        raise AssertionError("stamina either returns or raises")

    async def _once(self, call: Call) -> Any:
        import ccxt

        try:
            return await call()
        except Redirected:
            raise ProbeFailed("refused", "who answers is not Bitget: it redirects; is the address right?") from None
        except ccxt.BaseError as error:
            # Never its text: it may quote the request or the answer.
            raise self._failed(ccxt, error) from None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise ProbeFailed("unavailable", f"Bitget cannot be read: {type(error).__name__}") from None

    def _failed(self, ccxt: Any, error: Exception) -> ProbeFailed:
        found = _CODE.search(str(error))
        code = f" (code {found[1]})" if found else ""
        kind = type(error).__name__
        told: tuple[tuple[type[Exception] | tuple[type[Exception], ...], ProbeStatus, str], ...] = (
            # In this order: the first ones are kinds of later ones.
            (ccxt.InvalidNonce, "clock_off", f"Bitget finds the request's time wrong{code}: set this machine's clock"),
            (
                ccxt.PermissionDenied,
                "no_permission",
                f"Bitget does not let the key read this{code}: it needs the right to read, and this machine on its list",
            ),
            (
                ccxt.AuthenticationError,
                "wrong_key",
                f"Bitget refuses the key{code}: check API key, secret and passphrase",
            ),
            (ccxt.RequestTimeout, "timeout", f"no answer within {self._settings.snapshot_timeout_sec:g} s"),
            (
                (ccxt.DDoSProtection, ccxt.RateLimitExceeded),
                "rate_limited",
                f"Bitget wants fewer requests{code}: lengthen the interval",
            ),
            (ccxt.NetworkError, "unavailable", f"Bitget is away{code}: {kind}"),
        )
        if found and found[1] == UNIFIED_CODE:
            return ProbeFailed("refused", f'this is a unified account{code}: the map should say "market": "unified"')
        for kinds, status, detail in told:
            if isinstance(error, kinds):
                return ProbeFailed(status, detail)
        return ProbeFailed("refused", f"Bitget refuses the request{code}: {kind}")

    def _client(self, credentials: Credentials | None) -> Any:
        # Takes seconds to import, so only who asks waits for it.
        import ccxt.async_support

        # At debug level ccxt logs whole requests, keys included.
        logging.getLogger("ccxt").setLevel(logging.WARNING)
        keys = (
            {}
            if credentials is None
            else {
                "apiKey": credentials.key.get_secret_value(),
                "secret": credentials.secret.get_secret_value(),
                "password": credentials.passphrase.get_secret_value(),
            }
        )
        client = ccxt.async_support.bitget(
            {
                **keys,
                "session": self._session,
                "enableRateLimit": True,
                "timeout": int(self._settings.snapshot_timeout_sec * 1000),
            }
        )
        if self._settings.snapshot_base_url is not None:
            base = str(self._settings.snapshot_base_url).rstrip("/")
            client.urls["api"] = dict.fromkeys(client.urls["api"], base)
        self._clients.append(client)
        return client


def _symbol(account: Account) -> str:
    return account.trading_pair.replace("-", "")


def _worth_another_try(error: Exception) -> bool:
    return isinstance(error, ProbeFailed) and error.status in _TRANSIENT


def _data(answer: Any) -> Any:
    if not isinstance(answer, dict) or answer.get("code") != "00000":
        raise ProbeFailed("unreadable", "the answer is not of Bitget's form")
    told = answer.get("requestTime")
    if isinstance(told, (int, str)) and str(told).isdecimal() and len(str(told)) <= 15:
        age_s = time.time() - int(told) / 1000
        if abs(age_s) > ANSWER_AGE_MAX_S:
            raise ProbeFailed("stale", f"the answer's own time is {age_s:.0f} s off: a cache, or this machine's clock")
    return answer.get("data")

"""Bitget's private API on a local port: checks signature, passphrase and time, answers in the documented shapes."""

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

REQUEST_AGE_MAX_S = 30
"""Bitget refuses what is older."""


@dataclass
class BitgetAccount:
    secret: str
    passphrase: str
    assets: list[dict[str, Any]] = field(default_factory=list)
    equity: str = "0"
    positions: list[dict[str, Any]] = field(default_factory=list)
    may_read: bool = True
    unified: bool = False
    delay_s: float = 0.0
    """Before the answer."""
    drips: bool = False
    """A byte now and then: no read ever times out, and the answer never ends."""
    statuses: list[int] = field(default_factory=list)
    """HTTP statuses of the next answers."""
    redirect: str | None = None
    body: bytes | None = None
    """Instead of the answer."""
    request_time_s: float | None = None
    """What the answers say the time is."""


@dataclass
class Bitget:
    accounts: dict[str, BitgetAccount] = field(default_factory=dict)
    prices: dict[str, str] = field(default_factory=lambda: {"BTCUSDT": "50000.00", "ETHUSDT": "2500"})
    url: str = ""
    requests: list[str] = field(default_factory=list)
    """Method and path of what came, in order."""


def asset(coin: str, available: str, frozen: str = "0", locked: str = "0") -> dict[str, Any]:
    return {
        "coin": coin,
        "available": available,
        "limitAvailable": "0",
        "frozen": frozen,
        "locked": locked,
        "uTime": "1699937566000",
    }


@asynccontextmanager
async def bitget_server() -> AsyncIterator[Bitget]:
    """Run until the block ends; `accounts` are by API key and may change meanwhile."""
    state = Bitget()
    app = web.Application()

    async def answer(request: web.Request) -> web.StreamResponse:
        return await _answer(state, request)

    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    state.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield state
    finally:
        await runner.cleanup()


async def _answer(state: Bitget, request: web.Request) -> web.StreamResponse:
    state.requests.append(f"{request.method} {request.path}")
    if request.path == "/api/v2/spot/market/tickers":
        return _ticker(state, request.query.get("symbol", ""), "lastPr")
    if request.path == "/api/v2/mix/market/ticker":
        return _ticker(state, request.query.get("symbol", ""), "markPrice")
    refused, account = _signed(state, request)
    if account is None:
        return refused
    if account.delay_s:
        await asyncio.sleep(account.delay_s)
    if account.statuses:
        status = account.statuses.pop(0)
        return web.Response(text="<html>", status=status)
    if account.redirect is not None:
        raise web.HTTPTemporaryRedirect(account.redirect)
    if account.body is not None:
        return web.Response(body=account.body, content_type="application/json")
    if account.drips:
        return await _drip(request)
    if not account.may_read:
        return _error("40014", "Incorrect permissions, need spot read permissions")
    return _holdings(account, request.path)


def _signed(state: Bitget, request: web.Request) -> tuple[web.Response, BitgetAccount | None]:
    """Say what Bitget says of a request that is not signed as it should be."""
    headers = request.headers
    account = state.accounts.get(headers.get("ACCESS-KEY", ""))
    if account is None:
        return _error("40037", "Apikey does not exist"), None
    stamp = headers.get("ACCESS-TIMESTAMP", "")
    if not stamp.isdecimal() or abs(time.time() - int(stamp) / 1000) > REQUEST_AGE_MAX_S:
        return _error("40008", "Request timestamp expired"), None
    said = f"{stamp}{request.method}{request.raw_path}".encode()
    signature = base64.b64encode(hmac.new(account.secret.encode(), said, hashlib.sha256).digest()).decode()
    if not hmac.compare_digest(signature, headers.get("ACCESS-SIGN", "")):
        return _error("40009", "sign signature error"), None
    if headers.get("ACCESS-PASSPHRASE") != account.passphrase:
        return _error("40012", "apikey/password is incorrect"), None
    return web.Response(), account


def _holdings(account: BitgetAccount, path: str) -> web.Response:
    if account.unified != path.startswith("/api/v3/"):
        return _error("40085", "You are in Unified Account mode, and the Classic Account API is not supported")
    data: dict[str, Any] = {
        "/api/v2/spot/account/assets": account.assets,
        "/api/v2/mix/account/account": {"marginCoin": "USDT", "accountEquity": account.equity},
        "/api/v2/mix/position/single-position": account.positions,
        "/api/v3/account/assets": {"accountEquity": "1", "assets": account.assets},
    }
    if path not in data:
        return _error("40404", "Request URL NOT FOUND", 404)
    return _fine(data[path], account.request_time_s)


async def _drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.05)


def _ticker(state: Bitget, symbol: str, field_name: str) -> web.Response:
    if symbol not in state.prices:
        return _error("40034", f"Parameter {symbol} does not exist")
    return _fine([{"symbol": symbol, field_name: state.prices[symbol]}], None)


def _fine(data: Any, request_time_s: float | None) -> web.Response:
    at = time.time() if request_time_s is None else request_time_s
    return web.json_response({"code": "00000", "msg": "success", "requestTime": int(at * 1000), "data": data})


def _error(code: str, message: str, status: int = 400) -> web.Response:
    body = {"code": code, "msg": message, "requestTime": int(time.time() * 1000), "data": None}
    return web.json_response(body, status=status)

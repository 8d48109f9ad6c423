"""Circle Wallets and Alpaca's Broker API on a local port, with the response shapes that their documentation shows."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

CIRCLE_KEY = "TEST_API_KEY:id-of-the-key:secret-of-the-key"
ALPACA_KEY = "CK0123456789:alpaca-secret"
USDC_ID = "5797fbd6-3795-519d-84ca-ec4c5f80c3b1"
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def rfc3339(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def wallet(number: int, ref_id: str | None = None) -> dict[str, Any]:
    return {
        "id": f"w{number:03}",
        "state": "LIVE",
        "walletSetId": "0189bc61-7fe4-70f3-8a1b-0d14426397cb",
        "custodyType": "DEVELOPER",
        "address": f"0x{number:040x}",
        "blockchain": "MATIC-AMOY",
        "accountType": "EOA",
        "createDate": rfc3339(EPOCH + timedelta(minutes=number)),
        "updateDate": rfc3339(EPOCH + timedelta(minutes=number)),
        **({"refId": ref_id} if ref_id else {}),
    }


def token_balance(amount: Any, symbol: str = "USDC", id_: str = USDC_ID) -> dict[str, Any]:
    return {
        "token": {
            "id": id_,
            "blockchain": "MATIC-AMOY",
            "name": symbol,
            "symbol": symbol,
            "decimals": 6,
            "isNative": False,
            "updateDate": "2026-06-29T02:37:14Z",
            "createDate": "2026-06-29T02:37:14Z",
        },
        "amount": amount,
        "updateDate": "2026-07-17T21:25:19Z",
    }


def account(number: int, status: str = "ACTIVE", created_at: datetime | None = None) -> dict[str, Any]:
    return {
        "id": f"a{number:03}",
        "account_number": f"9{number:08}",
        "status": status,
        "currency": "USD",
        "created_at": rfc3339(created_at or EPOCH + timedelta(minutes=number)),
        "last_equity": "1500.65",
        "account_type": "trading",
    }


def trading_account(number: int, **figures: Any) -> dict[str, Any]:
    return {
        "id": f"a{number:03}",
        "account_number": f"9{number:08}",
        "status": "ACTIVE",
        "currency": "USD",
        "buying_power": "100.25",
        "cash": "50.125",
        "equity": "50.125",
        "pattern_day_trader": False,
        "created_at": rfc3339(EPOCH),
        "balance_asof": str(datetime.now(UTC).date() - timedelta(days=1)),
        "daytrade_count": 0,
        **figures,
    }


class Provider:
    """What both have in common: a key, and faults that a test plants."""

    key_header: str

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.faults: list[web.StreamResponse] = []
        """Given instead of answers, first come first served."""
        self.headers: dict[str, str] = {}
        """Added to every answer."""
        self.hold: Any = None

    @web.middleware
    async def guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append(request.path_qs)
        if request.headers.get("Authorization") != self.key_header:
            return web.json_response({"code": 401, "message": "Invalid credentials."}, status=401)
        if self.hold is not None:
            await self.hold
        if self.faults:
            return self.faults.pop(0)
        response: web.StreamResponse = await handler(request)
        response.headers.update(self.headers)
        return response

    @asynccontextmanager
    async def served(self, routes: list[web.RouteDef]) -> AsyncIterator[str]:
        app = web.Application(middlewares=[self.guard])
        app.add_routes(routes)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        try:
            yield f"http://{host}:{port}"
        finally:
            await runner.cleanup()


class Circle(Provider):
    """`/v1/w3s/wallets` and `/v1/w3s/wallets/{id}/balances`, paged by `pageAfter` with a `Link` header."""

    key_header = f"Bearer {CIRCLE_KEY}"

    def __init__(self, balances: list[Any], page_max: int = 50) -> None:
        super().__init__()
        self.wallets = [wallet(number) for number in range(len(balances))]
        self.balances = {
            one["id"]: held if isinstance(held, list) else [token_balance(held)]
            for one, held in zip(self.wallets, balances, strict=True)
        }
        self.page_max = page_max
        self.ignores_cursor = False
        self.skips: set[str] = set()
        """Left out of the first list, not of the second."""
        self.links = True
        self._lists = 0

    def serve(self) -> Any:
        return self.served(
            [web.get("/v1/w3s/wallets", self._list), web.get("/v1/w3s/wallets/{id}/balances", self._balances)]
        )

    async def _list(self, request: web.Request) -> web.Response:
        after = request.query.get("pageAfter")
        if after is None:
            self._lists += 1
        listed = [one for one in self.wallets if self._lists > 1 or one["id"] not in self.skips]
        page, following = self._page(request, listed, lambda one: one["id"])
        return self._answer(request, {"data": {"wallets": page}}, following)

    async def _balances(self, request: web.Request) -> web.Response:
        held = self.balances[request.match_info["id"]]
        page, following = self._page(request, held, lambda one: one["token"]["id"])
        return self._answer(request, {"data": {"tokenBalances": page}}, following)

    def _page(self, request: web.Request, items: list[Any], name: Any) -> tuple[list[Any], str | None]:
        size = min(int(request.query["pageSize"]), self.page_max)
        after = None if self.ignores_cursor else request.query.get("pageAfter")
        start = 0 if after is None else next(n for n, one in enumerate(items) if name(one) == after) + 1
        page = items[start : start + size]
        return page, name(page[-1]) if start + size < len(items) else None

    def _answer(self, request: web.Request, body: Any, following: str | None) -> web.Response:
        headers = {}
        if following and self.links:
            # Another host on purpose: a client that follows the address would hand its key to strangers.
            headers["Link"] = f'<https://elsewhere.invalid{request.path}?pageAfter={following}&pageSize=2>; rel="next"'
        return web.json_response(body, headers=headers)


class Alpaca(Provider):
    """`/v1/accounts`, a thousand at most (here fewer), by `created_after`; `/v1/trading/accounts/{id}/account`."""

    key_header = f"Basic {base64.b64encode(ALPACA_KEY.encode()).decode()}"

    def __init__(self, accounts: list[dict[str, Any]], page_max: int = 1000) -> None:
        super().__init__()
        self.accounts = accounts
        self.trading = {one["id"]: trading_account(int(one["id"][1:])) for one in accounts}
        self.page_max = page_max
        self.ignores_cursor = False
        self.inclusive = True

    def serve(self) -> Any:
        return self.served(
            [web.get("/v1/accounts", self._list), web.get("/v1/trading/accounts/{id}/account", self._trading)]
        )

    async def _list(self, request: web.Request) -> web.Response:
        assert request.query["sort"] == "asc"
        after = request.query.get("created_after")
        listed = sorted(self.accounts, key=lambda one: one["created_at"])
        if after and not self.ignores_cursor:
            since = datetime.fromisoformat(after)
            listed = [one for one in listed if self._follows(datetime.fromisoformat(one["created_at"]), since)]
        return web.json_response(listed[: self.page_max])

    def _follows(self, created_at: datetime, since: datetime) -> bool:
        return created_at >= since if self.inclusive else created_at > since

    async def _trading(self, request: web.Request) -> web.Response:
        found = self.trading.get(request.match_info["id"])
        if isinstance(found, str):
            return web.Response(text=found, content_type="application/json")
        return web.json_response(found) if found else web.json_response({"message": "not found"}, status=404)

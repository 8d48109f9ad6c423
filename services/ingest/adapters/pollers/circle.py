"""Circle Wallets: every wallet of the entity, and what each holds."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TypeVar

from services.ingest.adapters.pollers.concurrent import in_parallel
from services.ingest.adapters.pollers.http import ProviderHttp
from services.ingest.domain.balances import (
    Holding,
    ReadFailed,
    Reading,
    check_count,
    check_listings,
    counted,
)
from services.ingest.domain.providers.circle import Options, TokenBalance, Wallet, holdings, read_balances, read_wallets

PAGE_SIZE = 50
"""The most that Circle gives."""
PAGES_MAX = 20_000
"""A million wallets; more is paging that never ends."""

T = TypeVar("T")


class CircleBalances:
    """Lists the wallets, reads the balances of each, and lists them again to see that none was skipped."""

    def __init__(self, http: ProviderHttp, options: Options, accounts_min: int) -> None:
        self._http = http
        self._options = options
        self._accounts_min = accounts_min

    async def read(self) -> Reading:
        """See `ports.BalanceSource`."""
        began_at = datetime.now(UTC)
        wallets = await self._wallets()
        check_count(len(wallets), self._accounts_min)
        found = await in_parallel(wallets, self._holdings)
        again = await self._wallets()
        check_listings(
            {one.id: one.create_date for one in wallets}, {one.id: one.create_date for one in again}, began_at
        )
        held = [holding for part, _ in found for holding in part]
        return Reading(began_at, len(wallets), held, counted([why for _, reasons in found for why in reasons]))

    async def _wallets(self) -> list[Wallet]:
        return await self._pages("/v1/w3s/wallets", read_wallets, lambda wallet: wallet.id)

    async def _holdings(self, wallet: Wallet) -> tuple[list[Holding], list[str]]:
        path = f"/v1/w3s/wallets/{wallet.id}/balances"

        def page(body: bytes) -> list[TokenBalance]:
            return read_balances(body, wallet.id)

        # Circle hides tokens that its console does not monitor. Where the genuine ones are named, all are asked for.
        every = {"includeAll": "true"} if self._options.token_ids else {}
        found = await self._pages(path, page, lambda balance: balance.key, every)
        return holdings(wallet, found, self._options)

    async def _pages(
        self,
        path: str,
        parse: Callable[[bytes], list[T]],
        name: Callable[[T], str],
        asked: Mapping[str, str] | None = None,
    ) -> list[T]:
        """Read all pages. Of a `Link` header only the cursor is taken: its address may be anybody's."""
        found: dict[str, T] = {}
        params = {"pageSize": str(PAGE_SIZE), **(asked or {})}
        for _ in range(PAGES_MAX):
            answer = await self._http.get(path, params)
            items = parse(answer.body)
            for item in items:
                if name(item) in found:
                    raise ReadFailed("not_whole", f"GET {path}: {name(item)} came twice; nothing was published")
                found[name(item)] = item
            if answer.next is None and len(items) < PAGE_SIZE:
                return list(found.values())
            if not items:
                if answer.next is None:
                    return list(found.values())
                raise ReadFailed("not_whole", f"GET {path}: an empty page says that more follow; nothing was published")
            cursor = (answer.next.query.get("pageAfter") if answer.next else None) or name(items[-1])
            if params.get("pageAfter") == cursor:
                raise ReadFailed("not_whole", f"GET {path}: paging does not go on after {cursor}")
            params = {**params, "pageAfter": cursor}
        raise ReadFailed("not_whole", f"GET {path}: more than {PAGES_MAX} pages")

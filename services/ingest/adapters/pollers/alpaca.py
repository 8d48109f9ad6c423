"""Alpaca Broker API: every account of the firm, and what each holds."""

from datetime import UTC, datetime, timedelta

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
from services.ingest.domain.providers.alpaca import Account, Options, holding, read_accounts

ACCOUNTS = "/v1/accounts"
PAGES_MAX = 10_000
OVERLAP = timedelta(seconds=1)
"""Pages go by `created_after`: going back a little finds accounts that were made in the same instant as the last one."""


class AlpacaBalances:
    """Lists the accounts, reads the trading account of each, and lists them again to see that none was skipped."""

    def __init__(self, http: ProviderHttp, options: Options, accounts_min: int) -> None:
        self._http = http
        self._options = options
        self._accounts_min = accounts_min

    async def read(self) -> Reading:
        """See `ports.BalanceSource`."""
        began_at = datetime.now(UTC)
        listed = await self._accounts()
        accounts = [one for one in listed if not one.never_opened]
        check_count(len(accounts), self._accounts_min)
        held = await in_parallel(accounts, self._holding)
        again = await self._accounts()
        check_listings({one.id: one.created_at for one in listed}, {one.id: one.created_at for one in again}, began_at)
        unopened = [f"account {one.status}" for one in listed if one.never_opened]
        return Reading(began_at, len(accounts), held, counted(unopened))

    async def _holding(self, account: Account) -> Holding:
        answer = await self._http.get(f"/v1/trading/accounts/{account.id}/account")
        return holding(account, answer.body, self._options, datetime.now(UTC).date())

    async def _accounts(self) -> list[Account]:
        """Read all pages, oldest first. How many accounts a page has is not promised: the last one brings nothing new."""
        found: dict[str, Account] = {}
        largest = 0
        after, overlap = None, OVERLAP
        for _ in range(PAGES_MAX):
            page = await self._page(after)
            largest = max(largest, len(page))
            new = [one for one in page if one.id not in found]
            found |= {one.id: one for one in new}
            if not new and (not page or len(page) < largest or not overlap):
                return list(found.values())
            # A full page of known ones: more accounts than a page holds were made within the overlap.
            overlap = OVERLAP if new else timedelta(0)
            after = max(one.created_at for one in found.values()) - overlap
        raise ReadFailed("not_whole", f"GET {ACCOUNTS}: more than {PAGES_MAX} pages")

    async def _page(self, after: datetime | None) -> list[Account]:
        params = {"sort": "asc"}
        if after is not None:
            params["created_after"] = _rfc3339(after)
        page = read_accounts((await self._http.get(ACCOUNTS, params)).body)
        if len({one.id for one in page}) < len(page):
            raise ReadFailed("not_whole", f"GET {ACCOUNTS}: an account came twice in one page; nothing was published")
        if after is not None and any(one.created_at < after for one in page):
            raise ReadFailed(
                "not_whole",
                f"GET {ACCOUNTS}: paging repeats: accounts older than created_after={_rfc3339(after)} came again",
            )
        return page


def _rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")

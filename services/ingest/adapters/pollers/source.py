"""From a configured poller to the one that reads it."""

import base64

import aiohttp

from services.ingest.adapters.pollers.alpaca import AlpacaBalances
from services.ingest.adapters.pollers.circle import CircleBalances
from services.ingest.adapters.pollers.file import Configured
from services.ingest.adapters.pollers.http import ProviderHttp
from services.ingest.domain.providers import alpaca, circle
from services.ingest.ports import BalanceSource


def balance_session() -> aiohttp.ClientSession:
    """Return a connection for any number of sources. No cookies: one provider's never go to another."""
    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())


def balance_source(configured: Configured, session: aiohttp.ClientSession) -> BalanceSource:
    """Return the reader of a source; `session` stays the caller's."""
    model = configured.model
    http = ProviderHttp(
        session,
        configured.address,
        {"Accept": "application/json", "Authorization": _authorization(configured)},
        requests_per_s=model.requests_per_s,
        timeout_s=model.timeout_s,
    )
    if model.provider == "circle":
        tokens = circle.Options(model.currencies, model.token_ids, configured.user_account)
        return CircleBalances(http, tokens, model.accounts_min)
    return AlpacaBalances(http, alpaca.Options(model.figure, configured.user_account), model.accounts_min)


def _authorization(configured: Configured) -> str:
    key = configured.key.get_secret_value()
    if configured.model.provider == "circle":
        return f"Bearer {key}"
    return f"Basic {base64.b64encode(key.encode()).decode()}"

"""One look at all accounts, and `latest.json`, which is always whole."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from shared.errors import UsageError
from tieout.bots.atomic_file import write_whole
from tieout.bots.exchange.account_map import Account, read_credentials
from tieout.bots.exchange.holdings import ProbeFailed, ProbeStatus
from tieout.bots.exchange.settings import ExchangeSettings, Mode

if TYPE_CHECKING:
    from tieout.bots.exchange.bitget import Bitget

SOURCE = "exchange_snapshot_service"
_PLAIN: Mapping[str, tuple[ProbeStatus, str]] = {
    "disabled": ("disabled", "the account map says that the account is not asked"),
    "paper_only": ("paper_only", "the bot trades on paper, so there is no account to ask"),
}


class Probed(msgspec.Struct, frozen=True):
    """A bot in the snapshot. Without `ok` there is no figure, never an old one."""

    account_probe_status: ProbeStatus
    account_probe_error: str
    account_mode: str
    account_credential_prefix: str
    exchange: str
    market: str
    trading_pair: str
    as_of: str
    """When the look began."""
    base_pct: Decimal | None = None
    equity_quote: Decimal | None = None
    account_balances: dict[str, Decimal] = {}
    other_assets: tuple[str, ...] = ()


class Snapshot(msgspec.Struct, frozen=True):
    """`reports/exchange_snapshots/latest.json`."""

    ts_utc: str
    source: str
    mode: Mode
    account_map_path: str
    bots: dict[str, Probed]


async def look(settings: ExchangeSettings, accounts: Mapping[str, Account]) -> Snapshot:
    """Ask for every account; one that fails stops no other."""
    async with _exchange(settings, accounts) as bitget:
        probes = [_probed(settings, account, bitget) for account in accounts.values()]
        found = await asyncio.gather(*probes)
    bots = dict(zip(accounts, found, strict=True))
    return Snapshot(_now(), SOURCE, settings.snapshot_mode, str(settings.account_map_path), bots)


@asynccontextmanager
async def _exchange(settings: ExchangeSettings, accounts: Mapping[str, Account]) -> AsyncIterator["Bitget | None"]:
    """Give the exchange, or nothing where nobody is to be asked: then ccxt is not needed either."""
    if settings.snapshot_mode == "off" or all(one.account_mode != "probe" for one in accounts.values()):
        yield None
        return
    try:
        from tieout.bots.exchange.bitget import Bitget, exchange_session
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed: pip install 'tieout[bots]'") from None
    async with exchange_session() as session:
        bitget = Bitget(settings, session)
        try:
            yield bitget
        finally:
            bitget.leave()


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Write it whole, or leave what was there.

    Raises:
        UsageError: it cannot be written there.
    """
    text = msgspec.json.format(msgspec.json.Encoder(decimal_format="number").encode(snapshot), indent=2)
    write_whole(path, text + b"\n")


async def _probed(settings: ExchangeSettings, account: Account, bitget: "Bitget | None") -> Probed:
    known: dict[str, Any] = {
        "account_mode": account.account_mode,
        "account_credential_prefix": account.credential_prefix,
        "exchange": account.exchange,
        "market": account.market,
        "trading_pair": account.trading_pair,
        "as_of": _now(),
    }
    if account.account_mode != "probe":
        status, why = _PLAIN[account.account_mode]
        return Probed(status, why, **known)
    if bitget is None:
        return Probed("disabled", f"EXCHANGE_SNAPSHOT_MODE is {settings.snapshot_mode}", **known)
    try:
        credentials = read_credentials(account.credential_prefix)
    except UsageError as error:
        return Probed("missing_credentials", str(error), **known)
    try:
        async with asyncio.timeout(settings.snapshot_look_sec):
            share, holding = await bitget.share(account, credentials)
    except ProbeFailed as failed:
        return Probed(failed.status, str(failed), **known)
    except TimeoutError:
        return Probed("timeout", f"not reached within the {settings.snapshot_look_sec:g} s of one look", **known)
    base, quote = account.trading_pair.split("-")
    return Probed(
        "ok",
        "",
        **known,
        base_pct=share.base_pct,
        equity_quote=share.equity_quote,
        account_balances={base: holding.base, quote: holding.quote},
        other_assets=holding.others,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

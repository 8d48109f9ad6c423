"""`tieout bots exchange-snapshot`: ask the exchange what the bots' accounts hold."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tieout.bots.exchange.account_map import Account
    from tieout.bots.exchange.settings import ExchangeSettings
    from tieout.bots.exchange.snapshot import Probed, Snapshot

EXAMPLE = """Examples:

    EXCHANGE_SNAPSHOT_MODE=bitget_ccxt_private BOT2_BITGET_API_KEY_FILE=key BOT2_BITGET_SECRET_FILE=secret BOT2_BITGET_PASSPHRASE_FILE=phrase tieout bots exchange-snapshot --once

    EXCHANGE_SNAPSHOT_MODE=bitget_ccxt_private tieout bots exchange-snapshot --interval 60
"""


def exchange_snapshot(
    once: Annotated[bool, typer.Option("--once", help="Look once and leave.")] = False,
    accounts: Annotated[
        Path | None,
        typer.Option(help="Account map. Default: EXCHANGE_ACCOUNT_MAP_PATH, config/exchange_account_map.json."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Default: EXCHANGE_SNAPSHOT_OUT_PATH, reports/exchange_snapshots/latest.json."),
    ] = None,
    interval: Annotated[
        float | None, typer.Option(help="Seconds from look to look. Default: EXCHANGE_SNAPSHOT_INTERVAL_SEC, 120.")
    ] = None,
) -> None:
    """Ask the exchange for every bot's account and write what it holds, whole, to one file.

    EXCHANGE_SNAPSHOT_MODE=bitget_ccxt_private asks Bitget; off (the default) asks nobody. One line per bot tells its
    account_probe_status. With --once exit code 2: an account needs mending (key, rights, clock); 3: the exchange was
    away, slow or busy.
    """
    import stamina.instrumentation

    from shared.settings import load_settings
    from tieout.bots.exchange.settings import ExchangeSettings

    # What became of the last try is told anyway.
    stamina.instrumentation.set_on_retry_hooks([])
    given = {"account_map_path": accounts, "snapshot_out_path": out, "snapshot_interval_sec": interval}
    settings = load_settings(ExchangeSettings, **{name: value for name, value in given.items() if value is not None})
    if once:
        raise typer.Exit(asyncio.run(_once(settings)))
    asyncio.run(_forever(settings))


async def _once(settings: "ExchangeSettings") -> int:
    from tieout.bots.exchange.holdings import AWAY, SETTLED

    snapshot = await _looked(settings)
    print(f"{settings.snapshot_out_path} is written", flush=True)
    troubles = {bot.account_probe_status for bot in snapshot.bots.values()} - SETTLED
    if not troubles:
        return 0
    return 3 if troubles <= AWAY else 2


async def _forever(settings: "ExchangeSettings") -> None:
    """Look at the interval until SIGINT or SIGTERM; a look that fails as a whole is told, and the next one tries again."""
    from shared.errors import TieoutError
    from tieout.bots.stopping import asked_to_stop, pause, until

    with asked_to_stop() as stop:
        clock = asyncio.get_running_loop().time
        began = clock()
        # A map that cannot be used at the start is a mistake to mend now.
        await until(stop, _looked(settings))
        while not await pause(stop, began + settings.snapshot_interval_sec - clock()):
            began = clock()
            try:
                await until(stop, _looked(settings))
            except TieoutError as error:
                print(f"error: {error}; {settings.snapshot_out_path} stays as it was", flush=True)


async def _looked(settings: "ExchangeSettings") -> "Snapshot":
    from tieout.bots.exchange.account_map import read_account_map
    from tieout.bots.exchange.snapshot import look, write_snapshot

    accounts: Mapping[str, Account] = {}
    if settings.snapshot_mode != "off" or settings.account_map_path.exists():
        accounts = read_account_map(settings.account_map_path, settings.default_pair)
    snapshot = await look(settings, accounts)
    write_snapshot(settings.snapshot_out_path, snapshot)
    _tell(snapshot.bots)
    return snapshot


def _tell(bots: "Mapping[str, Probed]") -> None:
    for name, bot in bots.items():
        print(f"{name}: {bot.account_probe_status}: {_figures(bot)}", flush=True)


def _figures(bot: "Probed") -> str:
    if bot.base_pct is None:
        return bot.account_probe_error
    others = f"; also holds {', '.join(bot.other_assets)}, which is in no figure" if bot.other_assets else ""
    return f"base_pct {bot.base_pct:f}, equity {bot.equity_quote:f} ({bot.trading_pair} {bot.market}){others}"

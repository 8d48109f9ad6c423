"""`tieout bots`: strategy bots against their fills, their orders and the exchange; a module per command beside this one."""

import typer

from tieout.cli.bots_drift import EXAMPLE as DRIFT_EXAMPLE
from tieout.cli.bots_drift import drift
from tieout.cli.bots_exchange import EXAMPLE as EXCHANGE_EXAMPLE
from tieout.cli.bots_exchange import exchange_snapshot
from tieout.cli.bots_feed import FEED_EXAMPLE, RULES_EXAMPLE, feed, rules
from tieout.cli.bots_reconcile import EXAMPLE as RECONCILE_EXAMPLE
from tieout.cli.bots_reconcile import reconcile
from tieout.cli.bots_status import EXAMPLE as STATUS_EXAMPLE
from tieout.cli.bots_status import status

HELP = "Trading bots: check their snapshots, fills and orders against each other and the exchange (docs/bots.md)."


def register(app: typer.Typer) -> None:
    """Add the commands."""
    bots = typer.Typer(help=HELP, no_args_is_help=True)
    bots.command(epilog=RECONCILE_EXAMPLE)(reconcile)
    bots.command("exchange-snapshot", epilog=EXCHANGE_EXAMPLE)(exchange_snapshot)
    bots.command(epilog=FEED_EXAMPLE)(feed)
    bots.command(epilog=RULES_EXAMPLE)(rules)
    bots.command(epilog=STATUS_EXAMPLE)(status)
    bots.command(epilog=DRIFT_EXAMPLE)(drift)
    app.add_typer(bots, name="bots")

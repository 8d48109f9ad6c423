"""`tieout bots reconcile`: every bot held against its fills, its orders, its books and the exchange; without services."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from shared.packs.bots.thresholds import ThresholdsFile
    from tieout.bots.service import Settings

EXAMPLE = """Examples:

    tieout bots reconcile --once

    tieout bots reconcile --once --synthetic-drift

    RECON_INVENTORY_WARN=0.10 tieout bots reconcile

Reads data/<bot>/snapshot.json, fills.csv and events.jsonl, reports/event_store/*.jsonl and
reports/exchange_snapshots/latest.json under the working directory (RECON_SNAPSHOT_FILES and others name other places),
thresholds from config/reconciliation_thresholds.json; writes reports/reconciliation/.
"""


def reconcile(
    once: Annotated[
        bool, typer.Option("--once", help="One cycle; without it one every RECON_INTERVAL_SECONDS (300).")
    ] = False,
    synthetic_drift: Annotated[
        bool, typer.Option("--synthetic-drift", help="Add a bot that drifts: a drill for report and webhook.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON instead of a table.")] = False,
    fail_on: Annotated[
        str | None,
        typer.Option(help="With --once: leave with 1 where the status is `warning` or worse, or `critical`."),
    ] = None,
) -> None:
    """Check every bot: balance, inventory, fills against orders, the exchange, the books."""
    from shared.errors import UsageError
    from shared.packs.bots.findings import STATUSES
    from shared.packs.bots.thresholds import ThresholdsFile
    from tieout.bots.service import read_settings

    if fail_on not in (None, "warning", "critical"):
        raise UsageError(f"--fail-on: must be warning or critical (got {fail_on!r})")
    if fail_on is not None and not once:
        raise UsageError("--fail-on: belongs to --once; without it cycles go on")
    settings, file = read_settings(synthetic_drift=synthetic_drift), ThresholdsFile()
    if not once:
        _go_on(settings, file, as_json=as_json)
        return
    status = _cycle(settings, file, as_json=as_json)
    if fail_on is not None and STATUSES.index(status) >= STATUSES.index(fail_on):
        raise typer.Exit(1)


def _cycle(settings: "Settings", file: "ThresholdsFile", *, as_json: bool) -> str:
    """Run one cycle and print it; return its status."""
    import sys

    from tieout.bots.report import encode_report, table
    from tieout.bots.service import reconcile as run

    done = run(settings, file)
    if as_json:
        sys.stdout.write(encode_report(done.report).decode())
    else:
        for line in table(done.report):
            print(line)
        print(f"report: {done.path}")
    for note in done.notes:
        print(f"note: {note}", file=sys.stderr)
    sys.stdout.flush()
    return done.report.status


def _go_on(settings: "Settings", file: "ThresholdsFile", *, as_json: bool) -> None:
    """Run cycles until SIGINT or SIGTERM; one that could not be written down does not end them."""
    import signal
    import sys
    import time
    from threading import Event

    from shared.errors import UsageError

    stopped = Event()
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, lambda *_: stopped.set())
    while not stopped.is_set():
        begun = time.monotonic()
        try:
            _cycle(settings, file, as_json=as_json)
        except UsageError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
        stopped.wait(max(0.0, settings.interval_seconds - (time.monotonic() - begun)))

"""`tieout poll`: ask providers what their accounts hold."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shared.errors import UsageError

if TYPE_CHECKING:
    from services.ingest.adapters.pollers.file import Configured
    from services.ingest.use_cases.poll_balances import PollReport

EXAMPLE = """Example:

    TIEOUT_POLLER_KEY__ACME__CIRCLE=TEST_API_KEY:... tieout poll --once --file pollers.yaml --source acme/circle
"""
AWAY = frozenset({"unavailable", "timeout", "rate_limited"})
"""Results that another try may mend: exit code 3; every other failure is 2."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLE)(poll)


def poll(
    once: Annotated[
        bool, typer.Option("--once", help="Read every source once, print what would be published, publish nothing.")
    ] = False,
    file: Annotated[Path | None, typer.Option(help="The file of pollers. Default: TIEOUT_POLLERS_FILE.")] = None,
    source: Annotated[
        list[str] | None, typer.Option(help="With --once: only this org/source; may be given several times.")
    ] = None,
) -> None:
    """Ask providers (Circle, Alpaca) what their accounts hold, at their intervals, and publish the readings.

    Without --once this is `tieout ingest --role poller`. With it the events go to stdout, one JSON object a line, as
    `tieout replay` reads them, and what became of each source to stderr. Exit code 2: a source cannot be read; 3: only
    providers that were away, slow or busy failed.
    """
    from services.ingest.settings import IngestSettings, Role
    from shared.kafka.settings import KafkaSettings
    from shared.settings import load_settings

    given = {} if file is None else {"pollers_file": file}
    settings = load_settings(IngestSettings, ingest_role=Role.POLLER, **given)
    if settings.pollers_file is None:
        raise UsageError("TIEOUT_POLLERS_FILE: is not set; or give the file with --file")
    if once:
        raise typer.Exit(asyncio.run(_look(settings.pollers_file, source or [])))
    if source:
        raise UsageError(
            "--source: goes with --once; to poll only some sources all the time give them a file of their own"
        )
    from services.ingest.app import run

    asyncio.run(run(settings, load_settings(KafkaSettings)))


async def _look(file: Path, wished: list[str]) -> int:
    import stamina.instrumentation

    from services.ingest.adapters.pollers.file import read_pollers
    from services.ingest.adapters.pollers.source import balance_session, balance_source
    from services.ingest.use_cases.poll_balances import read

    # Retries are logged to stdout by default, where the events go; the last failure is told anyway.
    stamina.instrumentation.set_on_retry_hooks([])
    chosen = _chosen(read_pollers(file), wished)
    async with balance_session() as session:
        looks = await asyncio.gather(*(read(one.poll, balance_source(one, session)) for one in chosen))
    import msgspec

    for report, events in looks:
        for event in events:
            sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
        sys.stdout.buffer.flush()
        sys.stderr.write(_line(report, len(events)) + "\n")
    failed = {report.result for report, _ in looks} - {"ok"}
    if not failed:
        return 0
    return 3 if failed <= AWAY else 2


def _chosen(configured: "list[Configured]", wished: list[str]) -> "list[Configured]":
    named = {f"{one.poll.org}/{one.poll.source}": one for one in configured}
    for name in wished:
        if name not in named:
            raise UsageError(f"--source: {name!r} is not in the file; it has {', '.join(sorted(named))}")
    return [named[name] for name in wished] if wished else configured


def _line(report: "PollReport", events: int) -> str:
    name = f"{report.org}/{report.source}"
    if report.result != "ok":
        return f"{name}: {report.result}: {report.detail}"
    totals = ", ".join(f"{amount} {currency}" for currency, amount in sorted(report.totals.items()))
    left = "".join(f"; left out: {count} x {why}" for why, count in report.left_out.items())
    return f"{name}: {report.accounts} accounts hold {totals}; {events} events would be published{left}"

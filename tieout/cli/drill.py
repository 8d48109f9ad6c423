"""`tieout drill …`: practise what nobody wants to do for the first time in an emergency."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tieout.drill.recovery import Outcome, WayBack

HELP = "Drills that people run before they need them, on servers of their own."
EXAMPLES = """Examples:

    tieout drill recovery

    tieout drill recovery --kafka embedded --payments 500 --json

    tieout drill recovery --live
"""


def register(app: typer.Typer) -> None:
    """Add the command group."""
    group = typer.Typer(help=HELP, no_args_is_help=True)
    group.command("recovery", epilog=EXAMPLES)(drill_recovery)

    @group.callback()
    def _keep_names() -> None:
        """A group of one command would else be that command."""

    app.add_typer(group, name="drill", help=HELP)


def drill_recovery(
    kafka: Annotated[str, typer.Option(help="embedded, jvm, auto, or HOST:PORT of an empty one.")] = "auto",
    payments: Annotated[int, typer.Option(min=100, max=50_000, help="Payments in the stream.")] = 1_500,
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Instead: rebuild a copy from the topics beside the installation of TIEOUT_DATABASE_URL and TIEOUT_KAFKA_..., "
            "which is only read.",
        ),
    ] = False,
    scratch: Annotated[
        str | None, typer.Option(help="With --live: an empty database for the copy.", show_default="one of its own")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output, last.")] = False,
) -> None:
    """Lose PostgreSQL, bring it back from the topics and from a backup, and compare every table with what was there.

    Starts a Kafka, PostgreSQLs and all services of its own and touches no other. Exit code 1: something did not come back.
    """
    import asyncio
    import json
    import os
    import signal

    from shared.errors import UsageError
    from tieout.bench.harness import say
    from tieout.drill.recovery import beside, recovery
    from tieout.local.choose import choose_postgres

    # Ended from outside, it ends what it has started, as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if scratch is not None and not live:
        raise UsageError("--scratch goes with --live: without it the drill loses only what it has started itself")
    if live:
        url = os.environ.get("TIEOUT_DATABASE_URL", "")
        if not url:
            raise UsageError(
                "--live needs TIEOUT_DATABASE_URL (and TIEOUT_KAFKA_...): the settings of the installation"
            )
        copy = choose_postgres(scratch).url if scratch else None
        outcome = asyncio.run(beside(choose_postgres(url).url, copy, say))
    else:
        outcome = asyncio.run(recovery(kafka, payments, say))
    if as_json:
        print(json.dumps(outcome.as_json()), flush=True)
    else:
        _show(outcome)
    if not outcome.passed:
        raise typer.Exit(1)


def _show(outcome: "Outcome") -> None:
    for way in outcome.ways:
        print(f"\n{way.name}: {'identical' if way.identical else 'NOT IDENTICAL'}, after {way.seconds:g} s", flush=True)
        for line in _table(way):
            print(f"  {line}", flush=True)
        if way.not_brought_back:
            lost = ", ".join(f"{name} ({rows})" for name, rows in way.not_brought_back.items())
            print(f"  in no topic, back only from a backup: {lost}", flush=True)
    events = f": {outcome.events:,} events" if outcome.events else ""
    print(f"\n{'passed' if outcome.passed else 'FAILED'}{events}", flush=True)


def _table(way: "WayBack") -> list[str]:
    shown = [one for one in way.tables if one.before or not one.identical]
    width = max((len(one.table) for one in shown), default=0)
    lines = []
    for one in shown:
        state = "identical" if one.identical else f"{one.missing} missing, {one.extra} extra, {one.altered} altered"
        lines.append(f"{one.table:<{width}}  {one.before:>8,} rows  {state}")
        lines += [f"{'':<{width}}  {example[:150]}" for example in one.examples]
    return lines

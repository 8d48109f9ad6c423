"""`tieout demo`."""

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo", epilog="Example: tieout demo --exit")(demo)


def demo(
    leave: Annotated[bool, typer.Option("--exit", help="Leave at the end instead of staying up until Ctrl-C.")] = False,
    kafka: Annotated[str, typer.Option(help="embedded, jvm, auto or HOST:PORT.")] = "embedded",
    postgres: Annotated[str, typer.Option(help="auto (from its wheel) or a URL.")] = "auto",
    payments: Annotated[int, typer.Option(min=100, max=100_000, help="Payments in the stream.")] = 1200,
    per_second: Annotated[float, typer.Option(min=1, max=2000, help="Payments a second.")] = 120.0,
) -> None:
    """Start every service on this machine, send a realistic stream, and show discrepancies as they come and go.

    Nothing is kept: Kafka lives in memory, PostgreSQL in a temporary folder.
    """
    import asyncio

    from rich.console import Console

    from tieout.demo.run import Demo

    console = Console(soft_wrap=True)
    shown = Demo(console, kafka=kafka, postgres=postgres, payments=payments, per_second=per_second)
    asyncio.run(shown.run(leave=leave))

"""`tieout up`: all services on this machine."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("up", epilog="Example: tieout up --org acme --rules shared/packs/billing/rules.yaml")(up)


def up(
    kafka: Annotated[str, typer.Option(help="auto, embedded, jvm or HOST:PORT.")] = "auto",
    postgres: Annotated[str, typer.Option(help="auto (from its wheel) or a URL.")] = "auto",
    org: Annotated[str, typer.Option(help="Organisation that gets its first keys and rules.")] = "default",
    rules: Annotated[Path | None, typer.Option(help="Rules file; the billing pack where it is left out.")] = None,
    data: Annotated[Path, typer.Option(help="Keeps the data of a local Kafka and PostgreSQL.")] = Path(".tieout"),
) -> None:
    """Run ingest, matcher and alerts until Ctrl-C, with a local Kafka and PostgreSQL unless you name your own."""
    import asyncio

    asyncio.run(_up(kafka, postgres, org, rules, data))


async def _up(kafka: str, postgres: str, org: str, rules: Path | None, data: Path) -> None:
    from shared.kafka.settings import KafkaSettings
    from shared.rules.load import load_rules
    from tieout.local.access import create_access, has_keys
    from tieout.local.choose import choose_kafka, choose_postgres
    from tieout.local.processes import ended_by_signals, print_line
    from tieout.local.restarts import run_until_asked
    from tieout.local.stack import Ports, Wanted, billing_pack, put_in_force, running_stack

    file = load_rules(rules) if rules else billing_pack()
    keys: dict[str, str] = {}

    async def prepare(settings: KafkaSettings, url: str) -> None:
        if not await has_keys(url, org):
            keys.update(await create_access(url, org, ("owner", "ingest"), {"ledger": None, "stripe": "stripe"}))
        await put_in_force(settings, file, org, "tieout up")

    def say(line: str) -> None:
        typer.echo(line)

    wanted = Wanted(choose_kafka(kafka), choose_postgres(postgres), Ports(), data_dir=data)
    async with ended_by_signals() as asked, running_stack(wanted, prepare, say, print_line) as stack:
        say(f"Web page    {stack.alerts_url}/\nAPI         {stack.alerts_url}/docs")
        say(f"Ingest API  {stack.ingest_url}/docs\nMetrics     {stack.matcher_url}/metrics")
        for role, key in keys.items():
            say(f"{role} key of {org} (shown once): {key}")
        if not keys:
            say(f"{org} has its keys already; `tieout keys create --org {org} --role owner --name NAME` makes another")
        say("Commands reach these services with:")
        say(
            f"  export TIEOUT_API_URL={stack.alerts_url} TIEOUT_KAFKA_BOOTSTRAP_SERVERS={stack.kafka.bootstrap_servers}"
        )
        say(f"  export TIEOUT_DATABASE_URL={_without_password(stack.database_url)}\nCtrl-C ends everything.")
        await run_until_asked(asked, stack.processes, say)


def _without_password(url: str) -> str:
    from sqlalchemy import make_url

    return make_url(url).render_as_string(hide_password=True)

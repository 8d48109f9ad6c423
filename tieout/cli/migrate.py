"""`tieout migrate`: bring PostgreSQL to this build's schema."""

from typing import Annotated

import typer

EXAMPLE = """Example:

    TIEOUT_DATABASE_URL=postgresql+asyncpg://owner@db/tieout tieout migrate
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLE)(migrate)


def migrate(
    role: Annotated[
        str | None,
        typer.Option(help="Role in which services work; made where it does not exist.", show_default="tieout_app"),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 2 where the schema is another.")] = False,
) -> None:
    """Make or update the tables, as the owner that TIEOUT_DATABASE_URL logs in; safe to run again."""
    import asyncio

    from services.alerts.adapters.database import Database, database_url, shown, wait_for_database
    from services.alerts.adapters.database import migrate as bring_up
    from services.alerts.settings import AlertsSettings
    from shared.settings import load_settings

    settings = load_settings(AlertsSettings)
    url = settings.database_url.get_secret_value()
    place = shown(database_url(url))
    if check:
        asyncio.run(wait_for_database(Database(url, role=None, pool_size=1), settings.connect_timeout_s))
        print(f"{place} is at this build's schema", flush=True)
        return
    before, after = asyncio.run(
        bring_up(url, role=role or settings.database_role, timeout_s=settings.connect_timeout_s)
    )
    done = "is already at" if before == after else f"went from {before or 'nothing'} to"
    print(f"{place} {done} schema {after}", flush=True)

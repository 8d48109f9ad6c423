"""Verdicts over HTTP, on a real PostgreSQL."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest

from services.alerts.adapters.check_store import PostgresChecks
from services.alerts.adapters.database import Database
from services.alerts.adapters.directory_store import PostgresDirectory
from services.alerts.adapters.sink_store import PostgresSink
from services.alerts.handlers.http import checks, create_app
from services.alerts.ports.sink import Batch, Checked, Place
from services.alerts.use_cases.keys import Keys
from services.alerts.use_cases.sink import store
from shared.contracts.directory import Role
from shared.contracts.discrepancy import Check, CheckResult, LogPosition
from shared.telemetry.health import Health

pytestmark = pytest.mark.postgres
START = datetime(2026, 11, 21, 12, tzinfo=UTC)


def check(bot: str, minute: int, difference: str | None, result: CheckResult = "passed", code: str = "drift") -> Check:
    at = START + timedelta(minutes=minute)
    return Check(
        org="acme",
        rule="bots.state",
        pack="bots",
        key=bot,
        code=code,
        result=result,
        currency=None,
        as_of=at,
        expected="0.5",
        actual="0.5",
        difference=difference,
        log=LogPosition(partition=0, offset=minute, time=at),
    )


async def stored(database: Database, *found: Check) -> None:
    place = Place("checks", 0)
    rows = [Checked(place, number, one) for number, one in enumerate(found)]
    await store(PostgresSink(database), Batch(spans=[], checks=rows), START)


async def asked(database: Database, role: Role = "viewer", org: str = "acme", **query: Any) -> httpx.Response:
    directory = PostgresDirectory(database)
    key = (await Keys(directory, lambda: START).create(org, role, f"{role} key")).key
    app = create_app([checks.router(PostgresChecks(database))], directory, Health(["database"]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tieout") as client:
        return await client.get("/v1/checks", params=query, headers={"Authorization": f"Bearer {key}"})


async def told(database: Database, **query: Any) -> list[tuple[str, str, str | None]]:
    body = (await asked(database, **query)).json()
    return [(one["key"], one["as_of"][14:16], one["difference"]) for one in body["data"]]


async def test_verdicts_newest_first_by_rule_check_account_and_time(database: Database) -> None:
    """Differences are exact text; other organisations see nothing."""
    await stored(
        database,
        check("bot1", 1, "0.100"),
        check("bot2", 2, None, "error"),
        check("bot1", 3, "-0.25", "failed"),
        check("bot1", 4, "0", code="other"),
    )
    assert await told(database, code="drift") == [
        ("bot1", "03", "-0.25"),
        ("bot2", "02", None),
        ("bot1", "01", "0.100"),
    ]
    assert await told(database, key="bot2") == [("bot2", "02", None)]
    assert await told(database, pack="bots", since=(START + timedelta(minutes=4)).isoformat()) == [("bot1", "04", "0")]
    assert await told(database, rule="another") == []
    assert await told(database, org="other") == []


async def test_only_the_last_of_each(database: Database) -> None:
    """The one that stands last in the log, whatever it is as of."""
    await stored(database, check("bot1", 5, "0.1"), check("bot1", 6, "0.2"), check("bot2", 1, "0.3"))
    assert await told(database, latest="true") == [("bot1", "06", "0.2"), ("bot2", "01", "0.3")]


async def test_what_was_judged_since_whatever_it_is_as_of(database: Database) -> None:
    """A late reading of long ago is news for who asked a minute ago."""
    late = msgspec.structs.replace(check("bot1", 1, None, "stale"), log=check("bot1", 9, None).log)
    await stored(database, check("bot1", 8, "0.1"), late)
    since = (START + timedelta(minutes=9)).isoformat()
    assert await told(database, pack="bots", judged_since=since) == [("bot1", "01", None)]
    assert await told(database, pack="bots", judged_since=since, latest="true") == [("bot1", "01", None)]


async def test_pages_hold_all_of_them_once(database: Database) -> None:
    await stored(database, *(check(f"bot{number}", 7, "0") for number in range(5)))
    found: list[str] = []
    cursor = None
    while True:
        body = (await asked(database, limit=2, **({"cursor": cursor} if cursor else {}))).json()
        found += [one["key"] for one in body["data"]]
        cursor = body["next_cursor"]
        if cursor is None:
            break
    assert sorted(found) == [f"bot{number}" for number in range(5)]


async def test_what_is_asked_wrongly(database: Database) -> None:
    """A key that only sends may not look; a cursor of somebody's own is refused."""
    assert (await asked(database, "ingest")).status_code == 403
    assert (await asked(database, cursor="bm9uZQ")).status_code == 422
    assert (await asked(database, since="yesterday")).status_code == 422

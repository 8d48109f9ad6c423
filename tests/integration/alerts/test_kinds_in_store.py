"""Discrepancies of every kind of rule are stored, listed and shown whole, as those of match are."""

from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
import pytest

from services.alerts.adapters.database import Database
from services.alerts.adapters.directory_store import PostgresDirectory
from services.alerts.adapters.sink_store import PostgresSink
from services.alerts.adapters.triage_store import PostgresTriage
from services.alerts.domain.adjustment import RuleShape
from services.alerts.handlers.http import create_app, v1
from services.alerts.ports.sink import Batch, Found, Place
from services.alerts.use_cases.keys import Keys
from services.alerts.use_cases.sink import store
from services.alerts.use_cases.triage import Triage
from shared.contracts.discrepancy import Discrepancy
from shared.rules.load import load_rules
from shared.telemetry.health import Health
from tests.support.results import START
from tieout.offline.replay import replay

pytestmark = pytest.mark.postgres
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
EXAMPLES = Path(__file__).parents[3] / "examples"
PUBLISHED = ("state", "type", "severity", "key", "side", "account", "expected", "actual", "difference", "currency")


class NoRules:
    """Nobody adjusts anything here."""

    async def shape(self, _org: str, _pack: str, _rule: str) -> RuleShape | None:
        return None


def results_of(kind: str) -> list[Discrepancy]:
    file = load_rules(EXAMPLES / kind / "rules.yaml")
    run = replay(
        [EXAMPLES / kind / "events.jsonl"],
        {file.pack: file.rules},
        org="acme",
        until=NOW,
        complain=lambda _place, _what: None,
    )
    return run.engine.revisions


@pytest.mark.parametrize("kind", ["zero_sum", "balance", "invariant"])
async def test_every_revision_is_stored_and_the_last_one_shown_as_published(database: Database, kind: str) -> None:
    revisions = results_of(kind)
    last = {one.id: one for one in revisions}
    batch = Batch(
        spans=[], discrepancies=[Found(one, Place("discrepancies", 0), at, START) for at, one in enumerate(revisions)]
    )
    await store(PostgresSink(database), batch, NOW)

    directory = PostgresDirectory(database)
    keys = Keys(directory, lambda: NOW)
    key = (await keys.create("acme", "owner", "ann")).key
    health = Health(["database"])
    health.set_ready("database")
    triage = Triage(PostgresTriage(database), NoRules(), lambda: NOW)
    app = create_app([v1.discrepancies_router(triage)], directory, health)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tieout") as client:
        client.headers["Authorization"] = f"Bearer {key}"
        listed = (await client.get("/v1/discrepancies")).json()["data"]
        histories = {id_: (await client.get(f"/v1/discrepancies/{id_}")).json()["history"] for id_ in last}

    assert {one["id"] for one in listed} == set(last)
    for one in listed:
        published = msgspec.to_builtins(last[one["id"]])
        assert {name: one[name] for name in PUBLISHED} == {name: published[name] for name in PUBLISHED}
        assert one["sides"] == published["sides"]
    assert {id_: len(history) for id_, history in histories.items()} == {id_: one.revision for id_, one in last.items()}

"""Anomalies over a stored history: rolled up by the hour, raised once, told to endpoints, shown, closed, and bounded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx
import msgspec
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from services.alerts.adapters.anomaly_store import PostgresAnomalies
from services.alerts.adapters.database import EVERY_ORG, Database
from services.alerts.adapters.delivery.endpoints import PostgresEndpoints
from services.alerts.adapters.directory_store import PostgresDirectory
from services.alerts.domain.baseline import Limits
from services.alerts.domain.endpoint import Endpoint
from services.alerts.domain.signature import secret_text
from services.alerts.handlers.anomaly_watcher import look_once, show_anomalies
from services.alerts.handlers.http import create_app
from services.alerts.handlers.http.anomalies import router
from services.alerts.handlers.http.auth import key_sha256
from services.alerts.ports.anomalies import LimitsOf
from services.alerts.use_cases.anomalies import Anomalies
from shared.contracts.directory import KeyEntry
from shared.contracts.webhook import AnomalyMessage
from shared.telemetry.health import Health
from tests.support.results import uid

pytestmark = pytest.mark.postgres

NOW = datetime(2026, 11, 20, 12, 5, tzinfo=UTC)
RULE = "stack.circle_balance"
# Four weeks of a reading every hour: a dime more at noon, and a cent up and down.
HISTORY = """
INSERT INTO checks (id, org, rule, pack, key, result, currency, as_of, difference, log_partition, log_offset, log_time)
SELECT gen_random_uuid(), 'acme', :rule, 'stack', to_jsonb(CAST(:account AS text)), 'passed', 'USDC', at,
       round((CASE WHEN extract(hour FROM at) = 12 THEN 0.1 ELSE 0 END + 0.01 * (n % 3 - 1))::numeric, 6), 0, n, at
FROM generate_series(0, :hours) AS n, LATERAL (SELECT CAST(:now AS timestamptz) - make_interval(hours => CAST(:hours AS int) - n) AS at) t
"""


@dataclass
class Desk:
    database: Database
    store: PostgresAnomalies
    now: datetime = NOW
    limits_of: dict[tuple[str, str], LimitsOf] = field(default_factory=dict)

    async def limits(self) -> Mapping[tuple[str, str], LimitsOf]:
        return self.limits_of

    @property
    def anomalies(self) -> Anomalies:
        return Anomalies(self.store, self, PostgresDirectory(self.database), lambda: self.now)

    async def history(self, account: str, hours: int, rule: str = RULE) -> None:
        values = {"rule": rule, "account": account, "hours": hours, "now": self.now - timedelta(hours=1)}
        await self.run(HISTORY, **values)

    async def read(self, account: str, difference: str, at: datetime, offset: int = 10_000) -> None:
        await self.run(
            "INSERT INTO checks (id, org, rule, pack, key, result, currency, as_of, difference, log_partition, log_offset, "
            "log_time) VALUES (gen_random_uuid(), 'acme', :rule, 'stack', to_jsonb(CAST(:account AS text)), 'failed', 'USDC', "
            ":at, CAST(:difference AS numeric), 0, :offset, :at)",
            rule=RULE, account=account, at=at, difference=difference, offset=offset,
        )  # fmt: skip

    async def run(self, statement: str, **values: object) -> list[tuple[object, ...]]:
        async with self.database.transaction(EVERY_ORG) as connection:
            result = await connection.execute(text(statement), values)
            return [tuple(row) for row in result] if result.returns_rows else []

    async def look(self) -> None:
        """Until a history of weeks has been taken in."""
        for _ in range(8):
            await look_once(self.anomalies)


@pytest.fixture
async def desk(database: Database) -> Desk:
    await PostgresDirectory(database).put_org("acme", "UTC")
    limits: LimitsOf = lambda _account, _currency: Limits(tolerance=1.0, critical=10.0)  # noqa: E731
    return Desk(database, PostgresAnomalies(database), limits_of={("acme", RULE): limits})


async def test_an_unusual_reading_is_raised_once_told_and_taken_back(desk: Desk) -> None:
    """While another account is still learning."""
    await desk.history("usdc_buffer", 28 * 24)
    await desk.history("young", 30)
    endpoints = PostgresEndpoints(desk.database)
    for name, severity in (("all", "low"), ("grave", "high")):
        of = Endpoint(id=uid(name), org="acme", url=f"https://{name}.example/", severity_min=severity, created_at=NOW)  # type: ignore[arg-type]
        await endpoints.add(of, secret_text(b"s" * 32), 10)
    await desk.look()
    assert await desk.store.anomalies("acme", state=None, kind=None, after=None, limit=10) == []
    standings = {
        one.series.account: one for one in await desk.store.standings("acme", state=None, after=None, limit=10)
    }
    assert (standings["usdc_buffer"].state, standings["young"].state) == ("watched", "learning")
    assert "Too little history" in standings["young"].sentence

    await desk.read("usdc_buffer", "0.62", NOW - timedelta(minutes=4))
    await desk.look()
    (raised,) = await desk.store.anomalies("acme", state="open", kind=None, after=None, limit=10)
    assert (raised.kind, raised.seen, raised.account) == ("unusual", "0.620000", "usdc_buffer")
    # It is noon, when a dime is usual.
    assert raised.expected.startswith("0.1")
    sent = await desk.run("SELECT endpoint_id::text, kind, type, state, payload FROM outbox")
    assert [row[:4] for row in sent] == [(uid("all"), "anomaly", "anomaly.raised", "pending")]
    assert msgspec.json.decode(str(sent[0][4]), type=AnomalyMessage).data == raised
    await show_anomalies(desk.store)
    assert REGISTRY.get_sample_value("reconciliation_anomalies_open", {"kind": "unusual"}) == 1
    assert REGISTRY.get_sample_value("reconciliation_baselines", {"state": "learning"}) == 1

    await desk.read("usdc_buffer", "0.01", NOW + timedelta(hours=1), offset=10_001)
    desk.now += timedelta(hours=1, minutes=5)
    await desk.look()
    (closed,) = await desk.store.anomalies("acme", state=None, kind=None, after=None, limit=10)
    assert (closed.id, closed.state) == (raised.id, "closed")
    types = await desk.run("SELECT type FROM outbox ORDER BY id")
    assert types == [("anomaly.raised",), ("anomaly.closed",)]


async def test_the_last_reading_of_an_hour_counts_and_a_later_verdict_on_it(desk: Desk) -> None:
    """A reading that is judged again after its hour has ended replaces what was taken in."""
    hour = NOW.replace(minute=0)
    await desk.read("a", "5", hour + timedelta(minutes=1), offset=1)
    await desk.read("a", "3", hour + timedelta(minutes=2), offset=2)
    await desk.look()
    value = "SELECT value::text FROM drift_hours"
    assert await desk.run(value) == [("3",)]
    await desk.read("a", "0", hour + timedelta(minutes=2), offset=3)
    desk.now += timedelta(hours=1)
    await desk.look()
    assert await desk.run(value) == [("0",)]


async def test_weeks_without_a_reading_are_stepped_over(desk: Desk) -> None:
    """A provider that was away for a month."""
    await desk.read("a", "5", NOW - timedelta(days=40))
    await desk.look()
    await desk.read("a", "3", NOW - timedelta(minutes=1), offset=10_001)
    await desk.look()
    assert await desk.run("SELECT value::text FROM drift_hours ORDER BY hour") == [("5",), ("3",)]


async def test_the_history_is_bounded(desk: Desk) -> None:
    """Eight weeks, and an account that is read no more is forgotten with what was open about it."""
    await desk.history("usdc_buffer", 70 * 24)
    for _ in range(3):
        await desk.look()
    (oldest, many) = (await desk.run("SELECT min(hour), count(*) FROM drift_hours"))[0]
    assert isinstance(oldest, datetime)
    assert oldest >= NOW - timedelta(days=56)
    assert isinstance(many, int)
    assert 1_300 < many <= 1_344
    await desk.read("usdc_buffer", "7", NOW - timedelta(minutes=4))
    await desk.look()
    assert await desk.store.anomalies("acme", state="open", kind=None, after=None, limit=10)
    desk.now += timedelta(days=60)
    await desk.read("other", "0", desk.now - timedelta(minutes=4))
    await desk.look()
    assert await desk.store.anomalies("acme", state="open", kind=None, after=None, limit=10) == []
    assert [one.series.account for one in await desk.store.standings("acme", state=None, after=None, limit=10)] == [
        "other"
    ]


async def test_the_hourly_discrepancies_of_checks_are_a_history_too(desk: Desk) -> None:
    """An hour without a difference is a zero, one whose check is in error says nothing."""
    checks = [
        {"check_type": "deposits", "outcome": "failed", "discrepancy": {"USDC": "12.000000"}},
        {"check_type": "deposits", "outcome": "passed", "discrepancy": {}},
        {"check_type": "deposits", "outcome": "error", "discrepancy": {}},
    ]
    for number, check in enumerate(checks):
        start = NOW.replace(minute=0) - timedelta(hours=3 - number)
        await desk.run(
            "INSERT INTO runs (id, org, pack, period_start, period_end, zone, trigger, requested_by, run_type, status, "
            "provisional, summary, counted_at) VALUES (gen_random_uuid(), 'acme', 'stack', :start, :end, 'UTC', 'schedule', "
            "'x', 'hourly', 'completed', false, CAST(:summary AS json), :end)",
            start=start, end=start + timedelta(hours=1), summary=msgspec.json.encode({"checks": [check]}).decode(),
        )  # fmt: skip
    await desk.look()
    found = await desk.run("SELECT rule, account, currency, value::text FROM drift_hours ORDER BY hour")
    assert found == [("stack.deposits", "", "USDC", "12.000000"), ("stack.deposits", "", "USDC", "0")]


async def test_one_process_looks_at_a_time(desk: Desk) -> None:
    await desk.read("a", "5", NOW)
    async with desk.store.watcher() as mine:
        assert mine
        assert (await desk.anomalies.round()).series == 0
    assert (await desk.anomalies.round()).series == 1


async def test_people_see_them_over_http(desk: Desk) -> None:
    """Also viewers; pages go on where they ended; another organisation sees nothing."""
    for account in ("a", "b", "c"):
        await desk.history(account, 28 * 24)
    for account in ("a", "b", "c"):
        await desk.read(account, "3.00", NOW - timedelta(minutes=4))
    for _ in range(2):
        await desk.look()
    directory = PostgresDirectory(desk.database)
    for org in ("acme", "globex"):
        key = f"tk_{org}_secret"
        entry = KeyEntry(org=org, id=org, sha256=key_sha256(key), role="viewer", name="v", created_at=NOW)
        await directory.add_key(entry, "UTC")
    app = create_app([router(desk.store)], directory, Health(["database"]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://alerts") as client:
        headers = {"Authorization": "Bearer tk_acme_secret"}
        seen: list[str] = []
        cursor: str | None = None
        while True:
            given = {"limit": "2", "state": "open"} | ({"cursor": cursor} if cursor else {})
            answer = (await client.get("/v1/anomalies", params=given, headers=headers)).json()
            seen += [one["account"] for one in answer["data"]]
            cursor = answer["next_cursor"]
            if cursor is None:
                break
        assert sorted(seen) == ["a", "b", "c"]
        (first, *_) = answer["data"]
        assert first["severity"] == "medium"
        assert "is beyond the tolerance of 1.000000 already" in first["explanation"]
        page = (await client.get("/v1/baselines", params={"limit": "2"}, headers=headers)).json()
        rest = (await client.get("/v1/baselines", params={"cursor": page["next_cursor"]}, headers=headers)).json()
        assert [one["account"] for one in page["data"] + rest["data"]] == ["a", "b", "c"]
        assert {one["state"] for one in page["data"]} == {"watched"}
        assert (await client.get("/v1/baselines", params={"cursor": "x"}, headers=headers)).status_code == 422
        other = {"Authorization": "Bearer tk_globex_secret"}
        assert (await client.get("/v1/anomalies", headers=other)).json()["data"] == []

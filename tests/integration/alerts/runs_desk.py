"""Alerts' runs on a real PostgreSQL, with a clock and a matcher that a test moves."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
from fastapi import FastAPI
from pydantic import SecretStr

from services.alerts.adapters.database import EVERY_ORG, Database, migrate
from services.alerts.adapters.directory_store import PostgresDirectory
from services.alerts.adapters.report_rows import PostgresReportRows
from services.alerts.adapters.runs_store import PostgresRuns
from services.alerts.handlers.http import create_app, runs_v1
from services.alerts.handlers.http.auth import key_sha256
from services.alerts.handlers.http.runs import router
from services.alerts.use_cases.run_reports import RunReports
from services.alerts.use_cases.runs import Runs
from shared.contracts.directory import KeyEntry, Role
from shared.kafka.errors import KafkaAway
from shared.telemetry.health import Health
from tests.integration.alerts.stored_month import Month, store_discrepancies, store_items, store_progress

TOKEN = "daily-secret"
NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)
LATER = datetime(2026, 11, 2, 6, tzinfo=UTC)


@dataclass
class Desk:
    """Alerts' runs with a clock and a matcher that a test moves."""

    database: Database
    now: datetime = LATER
    cuts: list[str] = field(default_factory=list)
    kafka_away: bool = False
    runs: Runs = field(init=False)
    app: FastAPI = field(init=False)
    client: httpx.AsyncClient = field(init=False)

    async def request(self, org: str, cut_id: str) -> datetime:
        if self.kafka_away:
            raise KafkaAway("Kafka did not take it")
        self.cuts.append(f"{org}: {cut_id}")
        return self.now

    async def key(self, role: Role, org: str = "acme", zone: str = "UTC") -> dict[str, str]:
        key = f"tk_{role}{org}_secret"
        entry = KeyEntry(org=org, id=f"{role}{org}", sha256=key_sha256(key), role=role, name=role, created_at=self.now)
        await PostgresDirectory(self.database).add_key(entry, zone)
        return {"Authorization": f"Bearer {key}"}

    async def store(self, month: Month, progress: datetime, **special: datetime) -> None:
        async with self.database.transaction(EVERY_ORG) as connection:
            if month.items:
                await store_items(connection, month.items)
            if month.discrepancies:
                await store_discrepancies(connection, month.discrepancies)
            await store_progress(connection, progress, **special)

    async def trigger(self, headers: dict[str, str], period: Any = "2026-10") -> httpx.Response:
        return await self.client.post("/billing/reconciliation/runs/trigger", json={"period": period}, headers=headers)

    async def report(self, headers: dict[str, str], run_id: str) -> dict[str, Any]:
        answer = await self.client.get(f"/billing/reconciliation/runs/{run_id}/report", headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()


@contextlib.asynccontextmanager
async def open_desk(database_url: str) -> AsyncIterator[Desk]:
    await migrate(database_url)
    database = Database(database_url)
    desk = Desk(database)
    desk.runs = Runs(
        store=PostgresRuns(database), directory=PostgresDirectory(database), cuts=desk, now=lambda: desk.now, wait_s=0.0
    )
    reports = RunReports(PostgresRuns(database), PostgresReportRows(database))
    routes = [router(desk.runs, reports, SecretStr(TOKEN)), runs_v1.router(desk.runs, reports)]
    desk.app = create_app(routes, PostgresDirectory(database), Health(["database"]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(desk.app), base_url="http://alerts") as client:
        desk.client = client
        yield desk
    await database.close()

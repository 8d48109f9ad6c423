"""Alert rules and dashboard against Prometheus itself: promtool, and a server that scrapes real runs of this process."""

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client import start_http_server
from sqlalchemy import update

from services.alerts.adapters.database import EVERY_ORG
from services.alerts.adapters.tables import items
from services.alerts.handlers.scheduler import declare_counters, show_gauges
from shared.contracts.item import ItemDiscrepancy
from shared.telemetry.catalogue import METRICS
from shared.telemetry.health import Health
from tests.integration.alerts.runs_desk import Desk, open_desk
from tests.integration.alerts.stored_month import Month, discrepancy, item
from tieout.local.places import free_ports

DEPLOY = Path(__file__).parents[3] / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yaml"
DASHBOARD = DEPLOY / "grafana" / "reconciliation.json"
ALERTS = {"ReconciliationCriticalException", "ReconciliationHighFailureRate", "ReconciliationRunFailed"}
WAIT_S = 60


def binary(name: str) -> str:
    """`PROMETHEUS_BIN` may name the folder; Debian's package `prometheus` has both programs."""
    found = shutil.which(name, path=os.environ.get("PROMETHEUS_BIN")) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not here: install Debian's package prometheus, or set PROMETHEUS_BIN to its folder")
    return found


async def promtool(*given: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        binary("promtool"), *given, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=RULES.parent
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_the_rules_are_valid_and_their_unit_tests_pass() -> None:
    code, said = await promtool("check", "rules", RULES.name)
    assert (code, "3 rules found" in said) == (0, True), said
    code, said = await promtool("test", "rules", "alerts.test.yaml")
    assert code == 0, said


def expressions() -> list[str]:
    found = [target["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel["targets"]]
    assert len(found) >= 6
    return found


def test_rules_and_dashboard_name_only_metrics_of_the_catalogue() -> None:
    written = RULES.read_text() + "".join(expressions())
    declared = {name for one in METRICS for name in (one.name, f"{one.name}_bucket")}

    assert set(re.findall(r"\breconciliation_[a-z_]+(?=[{\[)])", written)) <= declared


FIRST_DAY = date(2026, 1, 1)


class BadHour:
    """Runs on a real PostgreSQL as a bad hour has them, a day of stored money each: on every day a check fails, on every
    third what is stored cannot be read, and something critical is open all the time."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._day = 0

    async def in_force(self) -> Mapping[tuple[str, str], Mapping[str, str]]:
        return {("acme", "stack"): {"stack.deposits": "match", "stack.withdrawals": "match"}}

    async def begin(self) -> None:
        """The clock is the machine's: a gauge shows only what was run in the last days."""
        desk = self._desk
        desk.now = self._now = datetime.now(UTC)
        await desk.key("owner")
        object.__setattr__(desk.runs, "rules", self)
        of = item(1, at=self._now - timedelta(hours=2), internal=[1000], provider=[900], status="discrepant")
        raised = discrepancy(of, "AmountMismatch", -100, severity="critical")
        raised = msgspec.structs.replace(raised, pack="stack", rule="stack.deposits")
        await desk.store(Month(discrepancies=[raised]), self._now + timedelta(seconds=10))

    async def go_on(self) -> None:
        desk, day = self._desk, FIRST_DAY + timedelta(days=self._day)
        self._day += 1
        noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        of = item(100 + self._day, at=noon, internal=[1000], provider=[900], status="discrepant")
        found = ItemDiscrepancy(id=of.id, type="AmountMismatch", side="provider", difference="-1.00", currency="EUR")
        of = msgspec.structs.replace(of, pack="stack", rule="stack.deposits", discrepancies=[found])
        await desk.store(Month(items=[of]), self._now + timedelta(seconds=10 + self._day))
        if self._day % 3 == 0:
            async with desk.database.transaction(EVERY_ORG) as connection:
                broken = update(items).where(items.c.id == of.id).values(sides={"internal": {"totals": "none"}})
                await connection.execute(broken)
        run, made = await desk.runs.trigger("acme", day.isoformat(), "test", "stack")
        assert (made, run.status) == (True, "failed" if self._day % 3 == 0 else "completed")


@pytest.fixture
async def prometheus(tmp_path: Path) -> AsyncIterator[str]:
    """A server that scrapes this process; the alerts wait for a second instead of minutes."""
    program = binary("prometheus")
    port, own = free_ports(2)
    declare_counters()
    server, thread = start_http_server(own, "127.0.0.1")
    (tmp_path / "alerts.yaml").write_text(re.sub(r"for: [0-9]+m", "for: 1s", RULES.read_text()))
    (tmp_path / "prometheus.yml").write_text(json.dumps({
        "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
        "rule_files": ["alerts.yaml"],
        "scrape_configs": [{"job_name": "alerts", "static_configs": [{"targets": [f"127.0.0.1:{own}"]}]}],
    }))  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        program, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
    )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()
        server.shutdown()
        thread.join()


async def ask(client: httpx.AsyncClient, path: str, **query: str) -> Any:
    try:
        return (await client.get(path, params=query)).json()["data"]
    except (httpx.HTTPError, ValueError, KeyError):
        return None


def _numbers(answer: Any) -> list[float]:
    values = [float(one["value"][1]) for one in (answer or {}).get("result", [])]
    return [value for value in values if value == value]


@pytest.mark.postgres
async def test_a_real_prometheus_scrapes_real_runs_fires_the_three_alerts_and_every_panel_has_data(
    prometheus: str, database_url: str
) -> None:
    firing: set[str] = set()
    empty = [expr.replace("$__range", "1h").replace("$instance", ".*") for expr in expressions()]
    async with open_desk(database_url) as desk, httpx.AsyncClient(base_url=prometheus) as client:
        hour = BadHour(desk)
        async with AsyncExitStack() as closing, asyncio.timeout(WAIT_S):
            while not _numbers(await ask(client, "/api/v1/query", query="reconciliation_checks_total")):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.2)
            assert (await ask(client, "/api/v1/alerts"))["alerts"] == []
            await hour.begin()
            gauges = asyncio.create_task(show_gauges(desk.runs.store, Health(["database"])))
            closing.callback(gauges.cancel)
            while firing != ALERTS or empty:
                await hour.go_on()
                await asyncio.sleep(0.5)
                alerts = (await ask(client, "/api/v1/alerts"))["alerts"]
                firing = {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}
                empty = [expr for expr in empty if not _numbers(await ask(client, "/api/v1/query", query=expr))]
    assert (firing, empty) == (ALERTS, [])

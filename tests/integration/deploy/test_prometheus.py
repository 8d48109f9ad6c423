"""Alert rules and dashboard against Prometheus itself: promtool, and a server that scrapes this process's metrics."""

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import start_http_server

from services.alerts.domain.checks import CheckFigures
from services.alerts.handlers.scheduler import declare_counters
from services.alerts.use_cases.runs import count_checks
from shared.telemetry.catalogue import METRICS
from shared.telemetry.metrics import counter, gauge, histogram
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


def happen() -> None:
    """Runs as a bad hour has them: a tenth and more of the checks fails, a run fails, something critical is open."""
    checks = [
        CheckFigures(
            check_type="deposits", rules=["stack.deposits"], outcome="passed" if n else "failed", passed=bool(n), readings=0,
            failed=0, errors=0, items=1, discrepant=0, discrepancy={}, error=None,
        )
        for n in range(4)
    ]  # fmt: skip
    count_checks(checks)
    counter("reconciliation_runs_total").labels("failed").inc()
    histogram("reconciliation_run_duration_seconds").observe(0.2)
    gauge("reconciliation_exceptions_unresolved").labels("critical").set(1)
    gauge("reconciliation_discrepancy_amount").labels("deposits").set(12.5)


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


async def test_a_real_prometheus_fires_the_three_alerts_and_every_panel_has_data(prometheus: str) -> None:
    firing: set[str] = set()
    empty = [expr.replace("$__range", "1h").replace("$instance", ".*") for expr in expressions()]
    async with httpx.AsyncClient(base_url=prometheus) as client, asyncio.timeout(WAIT_S):
        while not _numbers(await ask(client, "/api/v1/query", query="reconciliation_checks_total")):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.2)
        assert (await ask(client, "/api/v1/alerts"))["alerts"] == []
        while firing != ALERTS or empty:
            happen()
            await asyncio.sleep(0.5)
            alerts = (await ask(client, "/api/v1/alerts"))["alerts"]
            firing = {one["labels"]["alertname"] for one in alerts if one["state"] == "firing"}
            empty = [expr for expr in empty if not _numbers(await ask(client, "/api/v1/query", query=expr))]
    assert (firing, empty) == (ALERTS, [])

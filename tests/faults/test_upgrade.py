"""An older build is replaced service by service while a stream runs, and the tables change on the way.

The older build is the commit before the last change of the tables (`TIEOUT_FAULTS_OLD` names another one).
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shared.kafka.settings import KafkaSettings
from tests.support import services as services_module
from tests.support.drill import INBOX_PARTITIONS, PARTITIONS, Drill, drill

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.kafka,
    pytest.mark.postgres,
    pytest.mark.timeout(1800),
    pytest.mark.partitions(state=PARTITIONS, inbox=INBOX_PARTITIONS),
    pytest.mark.usefixtures("real_kafka", "topics"),
]
ROOT = Path(__file__).resolve().parents[2]
VERSIONS = "services/alerts/adapters/migrations/versions"


def _git(*arguments: str) -> str:
    run = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    if run.returncode:
        pytest.fail(f"NOT RUN: needs the repository's history: {run.stderr}")
    return run.stdout.strip()


async def test_a_rolling_upgrade_with_a_change_of_the_tables(
    kafka_settings: KafkaSettings, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.environ.get("TIEOUT_FAULTS_OLD") or _git("log", "-1", "--diff-filter=A", "--format=%H^", "--", VERSIONS)
    older = tmp_path / "older"
    _git("worktree", "add", "--detach", str(older), before)
    try:
        old = {"PYTHONPATH": str(older), "PYTHONSAFEPATH": "1"}
        new_migrate = services_module.migrate

        async def old_migrate(url: str) -> None:
            command = [sys.executable, "-m", "tieout", "migrate"]
            environment = {**os.environ, **old, "TIEOUT_DATABASE_URL": url}
            process = await asyncio.create_subprocess_exec(*command, env=environment)
            assert await process.wait() == 0

        monkeypatch.setattr(services_module, "migrate", old_migrate)

        async def breaking(made: Drill) -> None:
            await made.until_sent(0.2)
            await new_migrate(database_url)
            made.faults["tables changed under the older build"] += 1
            for name in ("ingest", "matcher", "alerts"):
                assert await made.services.end(name) in (0, -15)
                made.services.started[name] = {}
                await made.services.start(name)
                await made.recovered(f"{name} upgraded")

        names = ("ingest", "matcher", "alerts")
        await drill("rolling-upgrade", kafka_settings, database_url, breaking, environments=dict.fromkeys(names, old))
    finally:
        _git("worktree", "remove", "--force", str(older))

"""`tieout budget` as a person types it, against the API on a real PostgreSQL: both worked examples, and slips of the finger."""

import asyncio
import contextlib
import json
import os
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import uvicorn

from services.alerts.adapters.budget_store import PostgresBudgets
from services.alerts.adapters.database import Database
from services.alerts.adapters.directory_store import PostgresDirectory
from services.alerts.handlers.http import budget, create_app
from services.alerts.use_cases.budgets import Budgets
from services.alerts.use_cases.keys import Keys
from shared.telemetry.health import Health

pytestmark = pytest.mark.postgres
COMMAND_S = 60
NOW = datetime(2025, 9, 10, 12, tzinfo=UTC)


class Terminal:
    """Runs `tieout` with an environment."""

    def __init__(self, **environment: str) -> None:
        self.environment = {**os.environ, "COLUMNS": "200", **environment}

    async def tieout(self, *words: str) -> tuple[int, str, str]:
        pipe = asyncio.subprocess.PIPE
        command = [sys.executable, "-m", "tieout", *words]
        process = await asyncio.create_subprocess_exec(*command, env=self.environment, stdout=pipe, stderr=pipe)
        out, err = await asyncio.wait_for(process.communicate(), COMMAND_S)
        return process.returncode or 0, out.decode(), err.decode()


@pytest.fixture
async def terminal(database: Database) -> AsyncIterator[Terminal]:
    directory = PostgresDirectory(database)
    key = (await Keys(directory, lambda: NOW).create("acme", "owner", "finance")).key
    app = create_app([budget.router(Budgets(PostgresBudgets(database), lambda: NOW))], directory, Health(["database"]))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        serving = asyncio.create_task(server.serve([listener]))
        yield Terminal(TIEOUT_API_URL=f"http://127.0.0.1:{listener.getsockname()[1]}", TIEOUT_API_KEY=key)
        server.should_exit = True
        await serving


async def test_both_worked_examples_by_command(terminal: Terminal, tmp_path: Path):
    """From no budget to the history; what was recorded is recorded once."""
    code, _, err = await terminal.tieout("budget", "reconcile", "--remaining", "19.54")
    assert (code, "tieout budget create claude" in err) == (2, True)
    await terminal.tieout("budget", "create", "claude", "--provider", "anthropic", "--total", "24.96")
    await terminal.tieout("budget", "track", "u1", "0.11")
    first = await terminal.tieout("budget", "reconcile", "--remaining", "19.54", "--total", "24.96")
    assert first == (
        0,
        (
            "recorded 1: claude 24.85 -5.31 = 19.54 USD, tracked 0.11, plug 5.31 (anthropic-console-sync)\n"
            "claude (anthropic): 19.54 USD remain of 24.96 USD\n"
            "  used 5.42 = 0.11 tracked + 5.31 plugs\n"
        ),
        "",
    )
    again = await terminal.tieout("budget", "reconcile", "--remaining", "19.54")
    assert again[1].startswith("nothing differs, nothing recorded\n")
    await terminal.tieout("budget", "create", "second", "--provider", "anthropic", "--total", "19.65")
    await terminal.tieout("budget", "track", "u1", "0.11", "--budget", "second")
    _, out, _ = await terminal.tieout("budget", "reconcile", "--remaining", "14.23", "--budget", "second", "--json")
    (row,) = json.loads(out, parse_float=str)["recorded"]
    assert (row["budget_before"], row["manual_adjustment"], row["budget_after"]) == ("19.54", "-5.31", "14.23")
    _, out, _ = await terminal.tieout("budget", "history")
    assert [line.split()[2:8] for line in out.splitlines()[1:]] == [
        ["second", "19.54", "-5.31", "14.23", "0.11", "5.31"],
        ["claude", "24.85", "-5.31", "19.54", "0.11", "5.31"],
    ]
    _, out, _ = await terminal.tieout("budget", "unified")
    assert out.endswith("all  spent 10.84 USD\n")
    _, out, _ = await terminal.tieout("budget", "status")
    assert "tracking poor" in out
    page = tmp_path / "claude.html"
    assert await terminal.tieout("budget", "picture", "--output", str(page)) == (0, f"wrote {page}\n", "")
    assert "claude (anthropic): 0.11 tracked + 5.31 plugs = 5.42 USD used" in page.read_text()
    assert "anthropic-console-sync" in page.read_text()


async def test_odometer_by_command(terminal: Terminal):
    """Historic months at 0.80 each."""
    assert (await terminal.tieout("budget", "odometer", "groq"))[0] == 2
    await terminal.tieout("budget", "odometer", "groq", "--read", "0.80", "--month", "2025-08")
    code, out, _ = await terminal.tieout("budget", "odometer", "groq", "--read", "0.80", "--month", "2025-09")
    assert (code, out) == (
        0,
        "groq: 0.80 USD in 2025-09, 21 days until its reset\n  2025-08  0.80 USD\n  all    1.60 USD\n",
    )


async def test_the_daily_check_has_a_result_per_provider(terminal: Terminal, tmp_path: Path):
    """A console that cannot be read is reported and stops no other; where nothing differs the adjustment is 0."""
    await terminal.tieout("budget", "create", "claude", "--provider", "anthropic", "--total", "24.96")
    await terminal.tieout("budget", "track", "u1", "0.11")
    (tmp_path / "claude.json").write_text('{"data": [{"left": 19.54}]}')
    consoles = tmp_path / "consoles.yaml"
    consoles.write_text(
        f"""consoles:
  gone: {{file: {tmp_path}/none.json, field: left}}
  away: {{url: "http://127.0.0.1:9/balance", field: left}}
  claude: {{file: {tmp_path}/claude.json, field: data.0.left}}
  plugged: {{plugin: nobody}}
"""
    )
    code, out, _ = await terminal.tieout("budget", "daily", str(consoles))
    gone, away, claude, plugged = (json.loads(line, parse_float=str) for line in out.splitlines())
    assert code == 3
    assert claude == {"provider": "claude-budget", "success": True, "manual_adjustment": "-5.31", "error": None}
    assert (gone["provider"], gone["success"], gone["manual_adjustment"]) == ("gone-budget", False, None)
    assert "cannot be read" in gone["error"]
    assert "does not answer" in away["error"]
    assert "no package offers the plug-in 'nobody'" in plugged["error"]
    consoles.write_text(f"consoles: {{claude: {{file: {tmp_path}/claude.json, field: data.0.left}}}}")
    code, out, _ = await terminal.tieout("budget", "daily", str(consoles))
    assert (code, json.loads(out)["manual_adjustment"]) == (0, 0)
    _, out, _ = await terminal.tieout("budget", "history")
    assert out.count("daily-reconciliation-check") == 1


async def test_a_sqlite_database_is_brought_over_and_what_does_not_tie_is_named(terminal: Terminal, tmp_path: Path):
    """25.00 with 5.46 used against rows of 5.42: 0.04 to explain. A second import adds nothing."""
    file = tmp_path / "usage.db"
    with contextlib.closing(sqlite3.connect(file)) as old:
        old.executescript("""
            CREATE TABLE budget_tracking (id INTEGER PRIMARY KEY, total_budget REAL, remaining_budget REAL);
            INSERT INTO budget_tracking VALUES (1, 24.96, 24.96), (2, 25.00, 19.54);
            CREATE TABLE budget_reconciliation (id INTEGER PRIMARY KEY, reconciliation_date DATE, budget_before REAL,
                manual_adjustment REAL, budget_after REAL, adjustment_reason TEXT, api_usage_tracked REAL,
                manual_plug_amount REAL, reconciled_by TEXT, created_at TIMESTAMP);
            INSERT INTO budget_reconciliation VALUES
                (1, '2025-09-10', 24.85, -5.31, 24.85 - 5.31, 'anthropic-console-sync', 0.11, 5.31, 'mcp-workflow', '');
            CREATE TABLE groq_odometer_readings (id INTEGER PRIMARY KEY, month TEXT, cumulative_value REAL);
            INSERT INTO groq_odometer_readings VALUES (1, '2025-08', 0.35), (2, '2025-08', 0.80), (3, '2025-09', 0.80);
        """)
    before = (
        "before: used 5.46 of 25 USD = 0.11 tracked + 5.31 plugs\n"
        "  0.04 USD of it are explained by no row: they become a plug of their own\n"
    )
    assert await terminal.tieout("budget", "import-sqlite", str(file), "--dry-run") == (0, before, "")
    for _ in range(2):
        code, out, _ = await terminal.tieout("budget", "import-sqlite", str(file))
        assert (code, out) == (
            0,
            (
                f"{before}after:\nclaude (anthropic): 19.54 USD remain of 25.00 USD\n"
                "  used 5.46 = 0.11 tracked + 5.35 plugs\n"
            ),
        )
    _, out, _ = await terminal.tieout("budget", "history")
    assert len(out.splitlines()) == 3
    assert "import 2025-09-10: anthropic-console-sync" in out
    assert "explained by no row" in out
    _, out, _ = await terminal.tieout("budget", "odometer")
    assert out.endswith("  all    1.60 USD\n")
    (tmp_path / "none.db").write_text("no database")
    code, _, err = await terminal.tieout("budget", "import-sqlite", str(tmp_path / "none.db"))
    assert (code, "cannot be read as SQLite" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("reconcile", "--remaining", "nan"), "--remaining: 'nan' is not a decimal amount"),
        (("reconcile", "--remaining", "-1"), "is negative"),
        (("reconcile", "--remaining", "1", "--budget", "no"), "no budget 'no'"),
        (("odometer", "groq", "--month", "2025-08"), "--read 0.80 --month 2025-08"),
        (("odometer", "groq", "--read", "1", "--month", "August"), "is no month"),
    ],
)
async def test_slips_are_said_in_one_line(terminal: Terminal, words: tuple[str, ...], said: str):
    """Exit 2, what to write instead, no traceback."""
    await terminal.tieout("budget", "create", "claude", "--provider", "anthropic", "--total", "24.96")
    code, out, err = await terminal.tieout("budget", *words)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err

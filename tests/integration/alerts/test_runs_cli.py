"""`tieout runs` as a person types it, against the API over real HTTP."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import uvicorn

from tests.integration.alerts.runs_desk import LATER, Desk, open_desk
from tests.integration.alerts.stored_month import generated_month

pytestmark = pytest.mark.postgres


@dataclass
class Terminal:
    """Runs `tieout` with an address and a key."""

    desk: Desk
    url: str
    key: str

    async def tieout(self, *words: str, **environment: str) -> tuple[int, str, str]:
        env = {**os.environ, "TIEOUT_API_URL": self.url, "TIEOUT_API_KEY": self.key, "COLUMNS": "200", **environment}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tieout",
            *words,
            env=env,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode or 0, out.decode(), err.decode()


@pytest.fixture
async def terminal(database_url: str) -> AsyncIterator[Terminal]:
    async with open_desk(database_url) as desk:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            server = uvicorn.Server(uvicorn.Config(desk.app, log_level="warning", lifespan="off"))
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            key = (await desk.key("manager"))["Authorization"].removeprefix("Bearer ")
            yield Terminal(desk, f"http://127.0.0.1:{listener.getsockname()[1]}", key)
            server.should_exit = True
            await serving


async def test_trigger_list_and_report_a_month(terminal: Terminal) -> None:
    await terminal.desk.store(generated_month(300), LATER + timedelta(seconds=10))

    code, out, err = await terminal.tieout("runs", "trigger", "2026-10")
    assert (code, err) == (0, "")
    run_id = out.split()[1].rstrip(":")
    assert out.startswith(f"run {run_id}: billing 2026-10-01..2026-11-01 (UTC), completed in ")
    assert "\n  check payments: failed\n" in out
    assert "\n  billing.payments: " in out
    assert out.endswith(f"  report: tieout runs report {run_id}\n")

    code, out, err = await terminal.tieout("runs", "list")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].split() == [
        "RUN", "PACK", "TYPE", "PERIOD", "STATE", "CHECKS", "MATCHED", "OPEN", "TOOK", "MADE",
    ]  # fmt: skip
    assert out.splitlines()[1].split()[:5] == [run_id, "billing", "period", "2026-10-01..2026-11-01", "completed"]

    code, out, err = await terminal.tieout("runs", "report", "latest")
    assert (code, err) == (0, "")
    assert out.startswith("# Reconciliation of acme: October 2026\n\n**Complete.**")

    code, out, _ = await terminal.tieout("runs", "report", run_id, "--format", "json")
    assert (code, json.loads(out)["verdict"]) == (0, "complete")


async def test_a_report_is_written_whole_in_each_form_or_not_at_all(terminal: Terminal, tmp_path: Path) -> None:
    await terminal.desk.store(generated_month(300), LATER + timedelta(seconds=10))
    await terminal.tieout("runs", "trigger", "2026-10")
    begins = {"html": "<!doctype html>", "csv": "rule,key,status", "md": "# Reconciliation", "json": '{"version":'}

    for form, begin in begins.items():
        target = tmp_path / f"report.{form}"
        assert await terminal.tieout("runs", "report", "latest", "--as", form, "-o", str(target)) == (0, "", "")
        assert target.read_text().replace('{"version": ', '{"version":').startswith(begin)

    code, out, err = await terminal.tieout("runs", "report", "latest", "--as", "html", "-o", str(tmp_path / "no" / "a"))
    assert (code, out, err.endswith("cannot be written: No such file or directory\n")) == (2, "", True)
    code, _, err = await terminal.tieout("runs", "report", "latest", "--pack", "stack")
    assert (code, err) == (
        2,
        "error: there are no runs yet: make one with `tieout runs trigger 2026-11 --pack stack`\n",
    )
    there = sorted(path.name for path in tmp_path.iterdir())  # noqa: ASYNC240 - four files
    assert there == [f"report.{form}" for form in sorted(begins)]
    code, _, err = await terminal.tieout("runs", "trigger", "2026-10", "--pack", "nowhere")
    assert (code, err) == (2, "error: there is no pack with rules in force 'nowhere' in this organisation\n")


async def test_mistakes_are_one_line_with_an_exit_code(terminal: Terminal) -> None:
    assert await terminal.tieout("runs", "list") == (
        0,
        "no runs yet: make one with `tieout runs trigger 2026-11`\n",
        "",
    )
    code, out, err = await terminal.tieout("runs", "trigger", "2026-12")
    assert (code, out) == (2, "")
    assert err.startswith("error: period: the period 2026-12 lies in the future")
    code, _, err = await terminal.tieout("runs", "report", "nonsense")
    assert (code, err) == (2, "error: there is no run 'nonsense' in this organisation\n")
    code, _, err = await terminal.tieout("runs", "list", TIEOUT_API_KEY="tk_nobody_x")
    assert (code, err) == (2, "error: this API key is unknown or revoked (the key is TIEOUT_API_KEY)\n")
    code, _, err = await terminal.tieout("runs", "list", TIEOUT_API_KEY="")
    assert (code, err) == (2, "error: set TIEOUT_API_KEY to an API key (`tieout keys create` makes one)\n")
    code, _, err = await terminal.tieout("runs", "list", TIEOUT_API_URL="ftp://x")
    assert (code, "is no address" in err) == (2, True)
    code, _, err = await terminal.tieout("runs", "list", TIEOUT_API_URL="http://127.0.0.1:9")
    assert (code, "does not answer" in err, "Traceback" in err) == (3, True, False)

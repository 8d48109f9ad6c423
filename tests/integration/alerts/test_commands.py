"""`tieout migrate`, `keys`, `sources` and `discrepancies` as a person types them, against a real `tieout alerts`."""

import asyncio
import csv
import io
import json
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime

import pytest

from services.alerts.adapters.database import Database
from services.alerts.adapters.migrations import head
from services.alerts.adapters.sink_store import PostgresSink
from services.alerts.ports.sink import Batch, Found, Place
from services.alerts.use_cases.sink import store
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from tests.support.results import START, found, uid

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]
D1 = uid("d1")
READY_S = 60


class Terminal:
    """Runs `tieout` with an environment."""

    def __init__(self, **environment: str) -> None:
        self.environment = {**os.environ, "COLUMNS": "200", "TIEOUT_LOG_LEVEL": "error", **environment}

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        command = [sys.executable, "-m", "tieout", *words]
        return await asyncio.create_subprocess_exec(*command, env=self.environment, stdout=pipe, stderr=pipe)

    async def tieout(self, *words: str) -> tuple[int, str, str]:
        process = await self.start(*words)
        out, err = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode or 0, out.decode(), err.decode()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


async def test_from_an_empty_database_to_a_triaged_discrepancy(
    kafka_settings: KafkaSettings, topics: Topics, database_url: str
):
    """Migrate, make a key, start the service, triage, export, revoke; SIGTERM ends the service with 0."""
    port = free_port()
    terminal = Terminal(
        TIEOUT_DATABASE_URL=database_url,
        TIEOUT_KAFKA_BOOTSTRAP_SERVERS=kafka_settings.bootstrap_servers,
        TIEOUT_KAFKA_TOPIC_PREFIX=kafka_settings.topic_prefix,
        TIEOUT_API_URL=f"http://127.0.0.1:{port}",
    )
    code, _, err = await terminal.tieout("alerts", "--port", "0")
    assert (code, "run `tieout migrate` first" in err) == (2, True)
    code, out, _ = await terminal.tieout("migrate")
    assert (code, out.endswith(f"went from nothing to schema {head()}\n")) == (0, True)
    code, key, err = await terminal.tieout(
        "keys", "create", "--org", "acme", "--role", "owner", "--name", "finance", "--zone", "Europe/Berlin"
    )
    assert (code, key.count("\n")) == (0, 1)
    assert key.startswith("tk_")
    assert key.strip() not in err
    terminal.environment["TIEOUT_API_KEY"] = key.strip()
    database = Database(database_url)
    stored = [Found(found(explanation="=1+1"), Place("discrepancies", 0), 0, START)]
    await store(PostgresSink(database), Batch(spans=[], discrepancies=stored), datetime.now(UTC))
    await database.close()

    service = await terminal.start("alerts", "--role", "api", "--port", str(port))
    try:
        async with asyncio.timeout(READY_S):
            while not await asyncio.to_thread(is_ready, port):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.2)
        code, out, _ = await terminal.tieout(
            "budget", "create", "claude", "--provider", "anthropic", "--total", "24.96"
        )
        assert (code, out.startswith("claude (anthropic): 24.96 USD remain of 24.96 USD")) == (0, True)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{port}/mcp", b"{}", 5)
        await check_triage(terminal)
    finally:
        service.send_signal(signal.SIGTERM)
        await asyncio.wait_for(service.communicate(), 20)
    assert service.returncode == 0
    code, _, err = await terminal.tieout("discrepancies", "list")
    assert (code, "does not answer" in err) == (3, True)


async def check_triage(terminal: Terminal) -> None:
    code, out, _ = await terminal.tieout("discrepancies", "list", "--status", "open", "--fail-on", "medium")
    assert code == 1
    assert out.startswith(f"{D1}  open  medium  AmountMismatch  billing.payments  pay_1  -10.00 EUR")
    assert (await terminal.tieout("discrepancies", "list", "--fail-on", "high"))[0] == 0
    assert (await terminal.tieout("discrepancies", "ack", D1))[:2] == (0, f"{D1} is acknowledged\n")
    code, _, err = await terminal.tieout("discrepancies", "ack", D1)
    assert (code, err) == (
        2,
        "error: a discrepancy that is acknowledged cannot be acknowledged; it is acknowledged now\n",
    )
    assert (await terminal.tieout("discrepancies", "assign", D1, "ann"))[
        1
    ] == f"{D1} is acknowledged, assigned to ann\n"
    assert (await terminal.tieout("discrepancies", "note", D1, "asked Stripe"))[0] == 0
    code, out, _ = await terminal.tieout("discrepancies", "resolve", D1, "--reason", "accepted", "--notes", "fee")
    assert (code, out) == (0, f"{D1} is resolved, assigned to ann\n")
    code, out, _ = await terminal.tieout("discrepancies", "show", D1)
    assert [line.split(": ", 1)[1] for line in out.splitlines() if "finance (tk_" in line] == [
        "acknowledge",
        "assign ann",
        "note asked Stripe",
        "resolve accepted fee",
    ]
    _, out, _ = await terminal.tieout("discrepancies", "export")
    (row,) = csv.DictReader(io.StringIO(out))
    assert (row["difference"], row["explanation"]) == ("-10.00", "'=1+1")
    _, out, _ = await terminal.tieout("discrepancies", "export", "--format", "jsonl")
    assert json.loads(out)["explanation"] == "=1+1"
    assert (await terminal.tieout("discrepancies", "show", "nothing"))[0] == 2
    assert (await terminal.tieout("sources", "put", "stripe", "--org", "acme", "--provider", "stripe"))[0] == 0
    assert (await terminal.tieout("keys", "revoke", terminal.environment["TIEOUT_API_KEY"], "--org", "acme"))[0] == 0
    code, _, err = await terminal.tieout("discrepancies", "list")
    assert (code, "unknown or revoked" in err) == (2, True)

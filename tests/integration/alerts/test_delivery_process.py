"""The dispatcher as its own process: `python -m services.alerts dispatcher`."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator

import pytest

from tests.support.delivery_desk import Desk, delivery_desk, found

pytestmark = pytest.mark.postgres
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
async def desk(migrated_url: str) -> AsyncIterator[Desk]:
    async with delivery_desk(migrated_url) as made:
        yield made


async def test_it_delivers_logs_one_wide_line_without_secrets_and_ends_at_sigterm(
    desk: Desk, migrated_url: str
) -> None:
    endpoint = await desk.endpoint("/a", url=desk.receiver.url("/a?token=hunter2"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.alerts", "dispatcher",
        env=os.environ | {
            "TIEOUT_DATABASE_URL": migrated_url, "TIEOUT_WEBHOOKS_ALLOW_PRIVATE": "true", "TIEOUT_HTTP_PORT": "0",
            "TIEOUT_LOG_FORMAT": "json", "TIEOUT_WEBHOOKS_POLL_S": "60",
        },
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        [first] = await desk.store(endpoint, found(1))
        await desk.reaches(first, "delivered")
        [second] = await desk.store(endpoint, found(2), traceparent=TRACE)
        row = await desk.reaches(second, "delivered")
        process.send_signal(signal.SIGTERM)
        _, written = await asyncio.wait_for(process.communicate(), 40)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    text = written.decode()
    lines = [line for line in map(json.loads, text.splitlines()) if line["event"] == "webhook attempt"]
    assert [line["webhook_id"] for line in lines] == [taken.id for taken in desk.receiver.at("/a")]
    last = lines[-1]
    assert (last["outcome"], last["webhook_id"], last["attempt"], last["status"]) == (
        "delivered",
        row.message_id,
        1,
        204,
    )
    assert (last["host"], last["org"], last["traceparent"]) == ("127.0.0.1", "acme", TRACE)
    assert last["since_stored_ms"] < 30_000
    assert "hunter2" not in text
    assert desk.receiver.secrets["/a"] not in text

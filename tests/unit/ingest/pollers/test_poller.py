"""Sources are asked at their interval, each by itself; the command shows what would be published."""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY

from services.ingest.domain.balances import Holding, ReadFailed, Reading
from services.ingest.handlers import poller
from services.ingest.handlers.poller import Polled, Pollers
from services.ingest.ports import Appended
from services.ingest.use_cases.poll_balances import Poll
from shared.contracts.event import PostedEvent, decode_posted
from shared.contracts.inbox import RowReceived, decode_inbox
from tests.support.providers import ALPACA_KEY, CIRCLE_KEY, Alpaca, Circle, account


class Inbox:
    def __init__(self) -> None:
        self.records: list[Appended] = []

    async def append(self, records: Sequence[Appended]) -> None:
        self.records += records


class Source:
    def __init__(self, *outcomes: Any) -> None:
        self._outcomes = list(outcomes)

    async def read(self) -> Reading:
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is None:
            await asyncio.Event().wait()
        held = Holding("w1", "circle:w1", "USDC", Decimal(outcome))
        return Reading(datetime.now(UTC), 1, [held], {})


async def at_once() -> None:
    """It is always this process's turn."""


def polled(name: str, source: Source, interval_s: float = 60) -> Polled:
    return Polled(Poll("acme", name, "circle", "usdc_buffer", users=False), source, interval_s)


def events(inbox: Inbox) -> list[PostedEvent]:
    rows = [decode_inbox(one.value) for one in inbox.records]
    return [decode_posted(row.row) for row in rows if isinstance(row, RowReceived)]


async def holds(inbox: Inbox, count: int) -> None:
    for _ in range(500):
        if len(inbox.records) >= count:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{len(inbox.records)} records, not {count}")


def polls(source: str, result: str) -> float:
    labels = {"source": f"acme/{source}", "result": result}
    return REGISTRY.get_sample_value("tieout_ingest_polls_total", labels) or 0


async def test_each_result_is_counted() -> None:
    """Also one that nobody foresaw: it ends nothing."""
    inbox = Inbox()
    source = Source("5", ReadFailed("empty", "nothing there"), RuntimeError("a fault of ours"))
    pollers, one = Pollers([], inbox, at_once), polled("counted", source)
    results = [(await pollers.look(one)).result for _ in range(3)]
    assert results == ["ok", "empty", "unreadable"]
    assert [polls("counted", result) for result in results] == [1, 1, 1]
    assert [one.type for one in events(inbox) if one.amount is not None] == ["balance.total"]
    assert REGISTRY.get_sample_value("tieout_ingest_poll_accounts", {"source": "acme/counted"}) == 1


async def test_a_source_that_hangs_delays_no_other() -> None:
    """And each goes on at its interval."""
    inbox, slept, often_enough = Inbox(), [], asyncio.Event()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            often_enough.set()
        await asyncio.sleep(0)

    hanging, quick = polled("hanging", Source(None)), polled("quick", Source("1", ReadFailed("empty", ""), "2", None))
    running = asyncio.create_task(Pollers([hanging, quick], inbox, at_once, sleep).run())
    async with asyncio.timeout(5):
        await often_enough.wait()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert [round(seconds) for seconds in slept] == [60, 60, 60]
    assert [one.amount for one in events(inbox) if one.amount is not None] == ["1.000000", "2.000000"]


async def test_a_failure_is_told_once_and_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names no amount and the reason, in the currencies that the last whole read had; a whole read ends it."""
    inbox = Inbox()
    away = [ReadFailed("rate_limited", f"429, look {number}") for number in range(4)]
    pollers = Pollers([], inbox, at_once)
    one = polled("told", Source("5", *away[:2], "6", *away[2:]))
    for _ in range(6):
        await pollers.look(one)
    told = [event for event in events(inbox) if event.amount is None]
    assert [event.attrs["read_failed"] for event in told] == ["rate_limited: 429, look 0", "rate_limited: 429, look 2"]
    assert {(event.type, event.account, event.currency) for event in told} == {("balance.total", "usdc_buffer", "USDC")}
    monkeypatch.setattr(poller, "FAILURE_AGAIN_S", 0.0)
    await pollers.look(polled("told", Source(ReadFailed("timeout", "no answer"))))
    assert events(inbox)[-1].attrs["read_failed"] == "timeout: no answer"


async def test_a_wish_is_granted_before_the_interval_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, however often it comes; one that is old, or about another source, wakes nobody."""
    monkeypatch.setattr(poller, "WISH_PAUSE_S", 0.3)
    source = Source("1", "2", "3")
    pollers = Pollers([polled("wished", source, interval_s=30)], inbox := Inbox(), at_once)
    running = asyncio.create_task(pollers.run())
    try:
        await holds(inbox, 1)
        now = datetime.now(UTC)
        pollers.wish("acme", "other", now)
        pollers.wish("acme", "wished", now - poller.WISH_AGE_MAX - timedelta(seconds=1))
        await asyncio.sleep(0.2)
        assert len(inbox.records) == 1
        for _ in range(3):
            pollers.wish("acme", "wished", now)
        await holds(inbox, 2)
        await asyncio.sleep(0.3)
        assert len(inbox.records) == 2
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def once(tmp_path: Path, file: dict[str, Any], *options: str) -> tuple[int, list[Any], str]:
    (tmp_path / "pollers.yaml").write_bytes(msgspec.yaml.encode({"acme": file}))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tieout", "poll", "--once", "--file", str(tmp_path / "pollers.yaml"), *options),
        env=os.environ | {"TIEOUT_POLLER_KEY__ACME__CIRCLE": CIRCLE_KEY, "TIEOUT_POLLER_KEY__ACME__ALPACA": ALPACA_KEY},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, told = await process.communicate()
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in out.splitlines()], told.decode()


async def test_the_command_shows_what_would_be_published(tmp_path: Path) -> None:
    """Events on stdout as replay reads them, reports on stderr; no Kafka is needed."""
    circle, alpaca = Circle(["5", "7.25"]), Alpaca([account(1)])
    async with circle.serve() as custody, alpaca.serve() as broker:
        file = {
            "circle": {"provider": "circle", "environment": "sandbox", "base_url": custody},
            "alpaca": {"provider": "alpaca", "environment": "sandbox", "base_url": broker},
        }
        code, events, told = await once(tmp_path, file)
        assert code == 0, told
        assert {(one["source"], one["type"], one["account"], one["amount"]) for one in events} == {
            ("circle", "balance.total", "usdc_buffer", "12.250000"),
            ("circle", "balance.user", "circle:w000", "5.000000"),
            ("circle", "balance.user", "circle:w001", "7.250000"),
            ("alpaca", "balance.total", "alpaca_exposure", "100.25"),
            ("alpaca", "balance.user", "alpaca:a001", "100.25"),
        }
        assert "acme/circle: 2 accounts hold 12.250000 USDC; 3 events would be published" in told
        code, events, told = await once(tmp_path, file, "--source", "acme/alpaca")
        assert {one["source"] for one in events} == {"alpaca"}
        code, _, told = await once(tmp_path, file, "--source", "acme/none")
        assert code == 2
        assert "it has acme/alpaca, acme/circle" in told


async def test_the_command_tells_what_failed(tmp_path: Path) -> None:
    """An empty answer is an error of its own, and no event."""
    async with Circle([]).serve() as custody:
        file = {"circle": {"provider": "circle", "environment": "sandbox", "base_url": custody}}
        code, events, told = await once(tmp_path, file)
        assert (code, events) == (2, [])
        assert "acme/circle: empty: " in told


async def test_a_provider_that_is_away_is_exit_code_3(tmp_path: Path) -> None:
    """Another try may mend it."""
    file = {"circle": {"provider": "circle", "environment": "sandbox", "base_url": "http://127.0.0.1:9"}}
    code, events, told = await once(tmp_path, file)
    assert (code, events) == (3, [])
    assert "unavailable" in told


@pytest.mark.parametrize(("file", "said"), [(None, "is not set"), ("none.yaml", "cannot read")])
async def test_a_service_without_its_file_ends_before_it_looks_for_kafka(
    tmp_path: Path, file: str | None, said: str
) -> None:
    """One line and exit code 2, not half a minute of waiting."""
    given = {"TIEOUT_POLLERS_FILE": str(tmp_path / file)} if file else {}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tieout", "ingest", "--role", "poller", "--port", "0"),
        env=os.environ | given | {"TIEOUT_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, told = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 2
    assert told.decode().startswith("error: TIEOUT_POLLERS_FILE: ")
    assert said in told.decode()

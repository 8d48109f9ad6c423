"""Asks each provider at its interval; one that is away or slow delays no other."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import structlog

from services.ingest.ports import BalanceSource, Inbox
from services.ingest.use_cases.poll_balances import Poll, PollReport, poll_balances
from shared.telemetry.metrics import bounded, counter, gauge, histogram

log = structlog.get_logger(__name__)


class Polled(NamedTuple):
    """A source, who reads it, and how often."""

    poll: Poll
    reader: BalanceSource
    interval_s: float


class Pollers:
    """All sources of one process."""

    def __init__(
        self,
        sources: Sequence[Polled],
        inbox: Inbox,
        turn: Callable[[], Awaitable[None]],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sources = sources
        self._inbox = inbox
        self._turn = turn
        """Returns when it is this process that polls."""
        self._sleep = sleep

    async def run(self) -> None:
        """Poll until cancelled."""
        async with asyncio.TaskGroup() as group:
            for one in self._sources:
                group.create_task(self._keep_polling(one))

    async def _keep_polling(self, one: Polled) -> None:
        while True:
            await self._turn()
            began = time.monotonic()
            await self.look(one)
            await self._sleep(max(0.0, one.interval_s - (time.monotonic() - began)))

    async def look(self, one: Polled) -> PollReport:
        """Read and publish once; what goes wrong stands in the report, the log and the metrics, and ends nothing."""
        source = bounded("poll_source", f"{one.poll.org}/{one.poll.source}")
        with histogram("tieout_ingest_poll_seconds").labels(source).time():
            try:
                report = await poll_balances(one.poll, one.reader, self._inbox, datetime.now(UTC))
            except Exception as error:
                log.exception("a poll failed in a way that nobody foresaw", source=source)
                report = PollReport(
                    one.poll.org, one.poll.source, one.poll.provider, "unreadable", type(error).__name__
                )
        counter("tieout_ingest_polls_total").labels(source, report.result).inc()
        if report.result == "ok":
            gauge("tieout_ingest_poll_accounts").labels(source).set(report.accounts)
            gauge("tieout_ingest_poll_last_success_seconds").labels(source).set(time.time())
        tell = log.info if report.result == "ok" else log.error
        tell(
            "balances polled",
            source=source,
            result=report.result,
            detail=report.detail,
            accounts=report.accounts,
            published=report.published,
            left_out=dict(report.left_out),
        )
        return report

"""Asks each provider at its interval, and at once where somebody wishes it; one that is away or slow delays no other."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec
import structlog

from services.ingest.ports import BalanceSource, Inbox
from services.ingest.use_cases.poll_balances import Poll, PollReport, poll_balances, publish_failure
from shared.telemetry.metrics import bounded, counter, gauge, histogram

WISH_AGE_MAX = timedelta(minutes=10)
"""An older wish was made while nobody polled: whoever made it has given up by then."""
WISH_PAUSE_S = 5.0
"""At least so long after a look before one that is wished for: however many wish, a provider is not flooded."""
FAILURE_AGAIN_S = 900.0
"""How often a failure that lasts is told again: some times in each hourly run, and not at every look."""

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
        self._wishes = {(one.poll.org, one.poll.source): asyncio.Event() for one in sources}
        self._failures: dict[tuple[str, str], float] = {}
        """When a failure of a source was told last."""
        self._seen: dict[tuple[str, str], tuple[str, ...]] = {}
        """Currencies of a source's last whole read."""

    def wish(self, org: str, source: str, at: datetime) -> None:
        """Have a source polled as soon as may be; one that this process does not know is somebody else's."""
        wished = self._wishes.get((org, source))
        if wished is not None and datetime.now(UTC) - at <= WISH_AGE_MAX:
            wished.set()

    async def run(self) -> None:
        """Poll until cancelled."""
        async with asyncio.TaskGroup() as group:
            for one in self._sources:
                group.create_task(self._keep_polling(one))

    async def _keep_polling(self, one: Polled) -> None:
        while True:
            await self._turn()
            began = time.monotonic()
            wished = self._wishes[one.poll.org, one.poll.source]
            # A wish that comes while the provider is read may be about what was read already: it is granted afterwards.
            wished.clear()
            await self.look(one)
            await self._pause(max(0.0, one.interval_s - (time.monotonic() - began)), wished)

    async def _pause(self, interval_s: float, wished: asyncio.Event) -> None:
        """Return when the interval is over, or somebody wishes it, but not before a short pause."""
        asked = asyncio.create_task(wished.wait())
        slept = asyncio.create_task(_awaited(self._sleep(interval_s)))
        try:
            began = time.monotonic()
            await asyncio.wait({asked, slept}, return_when=asyncio.FIRST_COMPLETED)
            if slept.done():
                slept.result()
            else:
                await asyncio.sleep(min(interval_s, WISH_PAUSE_S) - (time.monotonic() - began))
        finally:
            for task in (asked, slept):
                task.cancel()
            await asyncio.gather(asked, slept, return_exceptions=True)

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
        await self._tell_failure(one, report)
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

    async def _tell_failure(self, one: Polled, report: PollReport) -> None:
        """Publish that a source cannot be read: at once, and now and then while it lasts."""
        name = (one.poll.org, one.poll.source)
        if report.result == "ok":
            self._failures.pop(name, None)
            self._seen[name] = tuple(report.totals)
            return
        now = time.monotonic()
        told = self._failures.get(name)
        if report.result == "not_published" or (told is not None and now - told < FAILURE_AGAIN_S):
            return
        poll = msgspec.structs.replace(one.poll, currencies=self._seen.get(name) or one.poll.currencies)
        said = await publish_failure(poll, report, self._inbox, datetime.now(UTC))
        if said.result == "not_published":
            # Kafka is away as well: the next look tells it.
            log.warning("a failed poll could not be told", source="/".join(name), reason=said.detail)
            return
        self._failures[name] = now


async def _awaited(sleeping: Awaitable[None]) -> None:
    await sleeping

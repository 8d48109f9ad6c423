"""The dispatcher's loop: one worker per endpoint with something due, each with its own few places.

So an endpoint that answers slowly fills only its own places. Workers end when nothing is left to do.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

import structlog

from services.alerts.domain.delivery import Claim, Retry
from services.alerts.use_cases.dispatch import Attempt, Dispatch, outcome
from shared.errors import DependencyAway
from shared.telemetry.metrics import counter, gauge, histogram

PLACES: Final = 8
"""Requests under way per endpoint: a receiver is told of a burst quickly and never flooded."""
POLL_S: Final = 1.0
"""How often due retries are looked for; new messages wake the loop at once."""
AWAY_PAUSE_S: Final = 1.0
GATHER_S: Final = 0.01
"""What a burst's next claim may wait; nothing beside the time of a request over a network."""
END_GRACE_S: Final = 5.0
"""How long a stop waits for requests under way."""
COUNT_EVERY_S: Final = 15.0
"""How often waiting messages are counted for the gauge."""

log = structlog.get_logger()


class Dispatcher:
    """Delivers what is due until it is cancelled.

    Args:
        on_round: called whenever the loop comes round, for liveness.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        *,
        places: int = PLACES,
        poll_s: float = POLL_S,
        on_round: Callable[[], None] = lambda: None,
    ) -> None:
        self._dispatch = dispatch
        self._places = places
        self._poll_s = poll_s
        self._on_round = on_round
        self._woken = asyncio.Event()
        self._workers: dict[str, asyncio.Event] = {}

    def wake(self) -> None:
        """Look for due messages now."""
        self._woken.set()

    async def run(self) -> None:
        """Deliver until cancelled; PostgreSQL away is waited for."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._count_waiting())
            while True:
                self._on_round()
                self._woken.clear()
                await self._round(tasks)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_s):
                        await self._woken.wait()

    async def _round(self, tasks: asyncio.TaskGroup) -> None:
        try:
            endpoints = await self._dispatch.outbox.due_endpoints()
        except DependencyAway as error:
            log.warning("webhooks wait", reason=str(error))
            await asyncio.sleep(AWAY_PAUSE_S)
            return
        for endpoint_id in endpoints:
            working = self._workers.get(endpoint_id)
            if working is not None:
                working.set()
                continue
            self._workers[endpoint_id] = asyncio.Event()
            tasks.create_task(self._serve(endpoint_id, self._workers[endpoint_id]))

    async def _serve(self, endpoint_id: str, more: asyncio.Event) -> None:
        """Deliver to one endpoint until nothing is due and nothing under way."""
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                more.clear()
                room = self._places - len(running)
                claims = await self._dispatch.outbox.claim(endpoint_id, room)
                running |= {asyncio.create_task(self._attempt(claim)) for claim in claims}
                if not running and not more.is_set():
                    return
                running = await _first_done(running, more, self._places)
                if len(claims) == room:
                    running = await _others_done(running)
        except DependencyAway as error:
            log.warning("webhooks wait", endpoint=endpoint_id, reason=str(error))
        except Exception:
            # One endpoint's trouble must not end the others; the next round begins anew.
            log.exception("the worker of an endpoint failed", endpoint=endpoint_id)
        finally:
            del self._workers[endpoint_id]
            await _end(running)

    async def _attempt(self, claim: Claim) -> None:
        try:
            _tell(await self._dispatch.deliver(claim))
        except DependencyAway as error:
            log.warning("a webhook's attempt is not stored", webhook_id=claim.message_id, reason=str(error))
        except Exception:
            # The claim lapses and the message comes again; nothing else waits for it.
            log.exception("a webhook's attempt failed", webhook_id=claim.message_id)

    async def _count_waiting(self) -> None:
        while True:
            with suppress(DependencyAway):
                gauge("tieout_alerts_deliveries_pending").set(await self._dispatch.outbox.waiting())
            await asyncio.sleep(COUNT_EVERY_S)


async def _first_done(running: set[asyncio.Task[None]], more: asyncio.Event, places: int) -> set[asyncio.Task[None]]:
    """Wait until a place is free and there may be more to do; return what is still under way."""
    waiting = asyncio.create_task(more.wait())
    watched: set[asyncio.Task[object]] = {*running}
    if len(running) < places:
        watched.add(waiting)
    try:
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
    return {task for task in running if not task.done()}


async def _others_done(running: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    """In a burst, wait a moment for more free places, so that one claim fills them together."""
    if not running:
        return running
    _, late = await asyncio.wait(running, timeout=GATHER_S)
    return late


async def _end(running: set[asyncio.Task[None]]) -> None:
    """Let requests under way end; what is cut off is sent again once its claim lapses, under the same webhook-id."""
    if not running:
        return
    _, late = await asyncio.wait(running, timeout=END_GRACE_S)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)


def _tell(attempt: Attempt) -> None:
    """One wide line and two metrics per attempt."""
    claim, answer = attempt.claim, attempt.answer
    word = outcome(attempt)
    if answer is not None:
        counter("tieout_alerts_deliveries_total").labels(word).inc()
        histogram("tieout_alerts_delivery_seconds").observe(answer.duration_ms / 1000)
    decision = attempt.decision
    log.info(
        "webhook attempt",
        outcome=word,
        org=claim.org,
        endpoint=claim.endpoint_id,
        host=urlsplit(claim.url).hostname,  # paths and queries of endpoints may hold secrets
        webhook_id=claim.message_id,
        type=claim.type,
        discrepancy=claim.discrepancy_id,
        revision=claim.revision,
        attempt=claim.attempt,
        status=answer.status if answer else None,
        error=getattr(decision, "error", None) or getattr(decision, "reason", None),
        duration_ms=answer.duration_ms if answer else None,
        since_stored_ms=round((datetime.now(UTC) - claim.created_at).total_seconds() * 1000),
        next_attempt_at=decision.at.isoformat() if isinstance(decision, Retry) else None,
        stored=attempt.stored,
        traceparent=claim.traceparent,
    )

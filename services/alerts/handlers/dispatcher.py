"""The dispatcher's loop: one worker per endpoint with something due, each with its own few places.

So an endpoint that answers slowly fills only its own places. Workers end when nothing is left to do.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

import structlog

from services.alerts.domain.delivery import Attempt, Claim, EndpointGone, Retry
from services.alerts.use_cases.dispatch import Dispatch
from shared.errors import DependencyAway
from shared.telemetry.metrics import counter, gauge, histogram

PLACES: Final = 8
"""Requests under way per endpoint: a receiver is told of a burst quickly and never flooded."""
POLL_S: Final = 1.0
"""How often due retries are looked for; new messages wake the loop at once."""
AWAY_PAUSE_S: Final = 1.0
GATHER_S: Final = 0.05
"""What an outcome may wait for others, or for new messages, to share a transaction with."""
END_GRACE_S: Final = 5.0
"""How long a stop waits for requests under way."""
COUNT_EVERY_S: Final = 15.0
"""How often waiting messages are counted for the gauge."""

log = structlog.get_logger()


class Dispatcher:
    """Delivers what is due until it is cancelled.

    Args:
        places: requests under way per endpoint.
        claims_max: messages taken per endpoint, those under way among them: what waits for a place in this process keeps
            places full while outcomes are stored. No more than can be begun before their claims lapse.
        on_round: called whenever the loop comes round, for liveness.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        *,
        places: int = PLACES,
        claims_max: int = PLACES,
        poll_s: float = POLL_S,
        on_round: Callable[[], None] = lambda: None,
    ) -> None:
        self._dispatch = dispatch
        self._places = places
        self._claims_max = claims_max
        self._poll_s = poll_s
        self._on_round = on_round
        self._woken = asyncio.Event()
        self._workers: dict[str, _Worker] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._ending = False

    def wake(self, endpoint_id: str = "") -> None:
        """Look for due messages of an endpoint now; without one, of all."""
        if endpoint_id:
            self._serve(endpoint_id)
        else:
            self._woken.set()

    async def run(self) -> None:
        """Deliver until cancelled; PostgreSQL away is waited for."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._count_waiting())
                while True:
                    self._on_round()
                    self._woken.clear()
                    await self._round()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self._poll_s):
                            await self._woken.wait()
        finally:
            await self._end()

    async def _round(self) -> None:
        try:
            endpoints = await self._dispatch.outbox.due_endpoints()
        except DependencyAway as error:
            log.warning("webhooks wait", reason=str(error))
            await asyncio.sleep(AWAY_PAUSE_S)
            return
        for endpoint_id in endpoints:
            self._serve(endpoint_id)

    def _serve(self, endpoint_id: str) -> None:
        working = self._workers.get(endpoint_id)
        if working is not None:
            working.look()
            return
        if self._ending:
            return
        worker = self._workers[endpoint_id] = _Worker(self._dispatch, endpoint_id, self._places, self._claims_max)
        task = asyncio.create_task(self._work(worker))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _work(self, worker: "_Worker") -> None:
        try:
            await worker.run()
        finally:
            del self._workers[worker.endpoint_id]

    async def _end(self) -> None:
        """Let requests under way end; what is cut off is sent again once its claim lapses, under the same webhook-id."""
        self._ending = True
        for worker in self._workers.values():
            worker.end()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=END_GRACE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _count_waiting(self) -> None:
        while True:
            with suppress(DependencyAway):
                gauge("tieout_alerts_deliveries_pending").set(await self._dispatch.outbox.waiting())
            await asyncio.sleep(COUNT_EVERY_S)


class _Worker:
    """Delivers to one endpoint until nothing is due and nothing under way.

    One transaction stores what was answered and takes what goes next, while other requests are under way: the busier an
    endpoint is, the more messages share one.
    """

    def __init__(self, dispatch: Dispatch, endpoint_id: str, places: int, claims_max: int) -> None:
        self.endpoint_id = endpoint_id
        self._dispatch = dispatch
        self._places = places
        self._claims_max = claims_max
        self._waiting: deque[Claim] = deque()
        """Taken, and not begun."""
        self._under_way: set[asyncio.Task[None]] = set()
        self._made: list[Attempt] = []
        """To be stored."""
        self._more = True
        """There may be something due."""
        self._ending = False
        self._stirred = asyncio.Event()
        """One of these has changed."""
        self._urgent = asyncio.Event()
        """It is not worth while to wait for more outcomes before they are stored."""

    def look(self) -> None:
        """There may be something due."""
        self._more = True
        self._stir()

    def end(self) -> None:
        """Take and begin nothing more, and end with what is under way."""
        self._ending = True
        self._stir()

    def _stir(self) -> None:
        self._stirred.set()
        if self._more or self._ending or len(self._made) >= self._places:
            self._urgent.set()

    async def run(self) -> None:
        try:
            while True:
                self._stirred.clear()
                self._urgent.clear()
                await self._exchange()
                if self._is_idle():
                    return
                await self._stirred.wait()
                with suppress(TimeoutError):
                    async with asyncio.timeout(GATHER_S):
                        await self._urgent.wait()
        finally:
            self._ending = True
            for task in self._under_way:
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)

    def _is_idle(self) -> bool:
        return not self._under_way and not self._waiting and not self._made and (self._ending or not self._more)

    async def _exchange(self) -> None:
        """Store what was answered, take what goes next and send it."""
        unsent = []
        if self._ending:
            room, unsent = 0, list(self._waiting)
            self._waiting.clear()
        else:
            room = self._claims_max - len(self._under_way) - len(self._waiting)
        if not self._made and not unsent and not (self._more and room):
            return
        made, self._made = self._made, []
        if room:
            self._more = False
        sent_again = [attempt.claim.message_id for attempt in made]
        try:
            exchanged = await self._dispatch.outbox.exchange(self.endpoint_id, made, unsent, room)
        except DependencyAway as error:
            log.warning("webhooks wait", endpoint=self.endpoint_id, sent_again=sent_again, reason=str(error))
        except Exception:
            # One endpoint's trouble must not end the others; the next round begins anew.
            log.exception("the worker of an endpoint failed", endpoint=self.endpoint_id, sent_again=sent_again)
        else:
            for attempt, stored in zip(made, exchanged.stored, strict=True):
                _tell(attempt, stored=stored)
            self._waiting.extend(exchanged.claims)
            self._fill()
            return
        if self._under_way:
            await asyncio.sleep(AWAY_PAUSE_S)

    def _fill(self) -> None:
        """Begin what waits for a place, while there is one."""
        while self._waiting and len(self._under_way) < self._places and not self._ending:
            task = asyncio.create_task(self._attempt(self._waiting.popleft()))
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    async def _attempt(self, claim: Claim) -> None:
        try:
            attempt = await self._dispatch.deliver(claim)
        except Exception:
            # The claim lapses and the message comes again; nothing else waits for it.
            log.exception("a webhook's attempt failed", webhook_id=claim.message_id)
            return
        if attempt is None:
            log.warning("too little of a webhook's claim was left", webhook_id=claim.message_id)
            return
        if isinstance(attempt.decision, EndpointGone):
            self._waiting.clear()  # it is about to be disabled, and what waits for it dropped
        self._made.append(attempt)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._fill()
        self._stir()


def _tell(attempt: Attempt, *, stored: bool) -> None:
    """One wide line and two metrics per attempt."""
    claim, answer, decision = attempt.claim, attempt.answer, attempt.decision
    counter("tieout_alerts_deliveries_total").labels(attempt.outcome).inc()
    histogram("tieout_alerts_delivery_seconds").observe(answer.duration_ms / 1000)
    log.info(
        "webhook attempt",
        outcome=attempt.outcome,
        org=claim.org,
        endpoint=claim.endpoint_id,
        host=urlsplit(claim.url).hostname,  # paths and queries of endpoints may hold secrets
        webhook_id=claim.message_id,
        type=claim.type,
        discrepancy=claim.discrepancy_id,
        revision=claim.revision,
        attempt=claim.attempt,
        status=answer.status,
        error=getattr(decision, "error", None) or getattr(decision, "reason", None),
        duration_ms=answer.duration_ms,
        since_stored_ms=round((datetime.now(UTC) - claim.created_at).total_seconds() * 1000),
        next_attempt_at=decision.at.isoformat() if isinstance(decision, Retry) else None,
        stored=stored,
        traceparent=claim.traceparent,
    )

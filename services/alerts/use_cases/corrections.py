"""Auto-correction: one round of judging what was tried and trying what may help."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from services.alerts.domain.adjustment import AdjustmentRefused
from services.alerts.domain.correction import (
    DETAIL_LENGTH_MAX,
    Attempt,
    Verdict,
    judge,
    make_attempt,
    next_action,
    with_body,
)
from services.alerts.ports.corrections import (
    Candidate,
    CorrectionStore,
    Ledger,
    LedgerRefused,
    LedgerUnavailable,
    Place,
    Policies,
    Waiting,
)
from services.alerts.ports.triage import RuleShapes

CANDIDATES_MAX = 200
"""Exceptions looked at in one round; the next round goes on where this one ended."""
UNFINISHED_MAX = 1_000
"""Open attempts looked at in one round; more are never open, because begun are only as many as rounds take on."""
ASK_AGAIN_AFTER = timedelta(seconds=30)
"""Between two tries of a ledger that does not answer; each of them is several requests already."""
_NEVER = datetime.min.replace(tzinfo=UTC)


class Finished(msgspec.Struct, frozen=True):
    """An attempt and what became of it: for logs and metrics."""

    attempt: Attempt
    verdict: Verdict


class Corrections:
    """Tries corrections and judges them.

    Args:
        store: where attempts and exceptions are.
        policies: what may be tried.
        rules: which fields and signs an entry needs.
        ledger: who books.
        watched: rules on whose exceptions something may be tried, of any organisation.
        now: the clock.
        shortest: the shortest time of any organisation that an exception must have lasted.
    """

    def __init__(
        self,
        store: CorrectionStore,
        policies: Policies,
        rules: RuleShapes,
        ledger: Ledger,
        *,
        watched: Sequence[str],
        now: Callable[[], datetime],
        shortest: timedelta,
    ) -> None:
        self.store = store
        self._policies = policies
        self._rules = rules
        self._ledger = ledger
        self._watched = watched
        self._now = now
        self._shortest = shortest
        self._after: Place | None = None
        self._silent: set[str] = set()
        """Organisations whose ledger has not answered in this round: nothing else waits for it."""
        self._asked: dict[str, datetime] = {}
        """When the ledger was asked last, of attempts that it has not answered."""

    async def round(self) -> tuple[Sequence[Attempt], Sequence[Finished]]:
        """Judge what waits, then try what may be tried; return what was begun and what has finished.

        Raises:
            DependencyAway: the next round goes on where this one stopped; a ledger is asked again under the same key.
        """
        async with self.store.corrector() as mine:
            if not mine:
                return (), ()
            begun: list[Attempt] = []
            finished: list[Finished] = []
            self._silent.clear()
            for waiting in await self.store.unfinished(UNFINISHED_MAX):
                await self._go_on(waiting, finished)
            for candidate in await self._candidates():
                await self._try(candidate, begun, finished)
            return begun, finished

    async def _candidates(self) -> Sequence[Candidate]:
        found = await self.store.candidates(self._watched, self._now() - self._shortest, self._after, CANDIDATES_MAX)
        last = found[-1].found if len(found) == CANDIDATES_MAX else None
        self._after = None if last is None else (last.raised_at, last.id)
        return found

    async def _go_on(self, waiting: Waiting, finished: list[Finished]) -> None:
        """Judge an attempt; one that the ledger has not answered is posted again, under its key."""
        attempt = waiting.attempt
        verdict = judge(attempt, waiting.found, waiting.standing, waiting.fresh, self._now())
        if verdict is not None:
            finished.append(await self._finish(attempt, verdict))
        elif attempt.state == "begun" and self._may_ask(attempt):
            await self._post(attempt, finished)

    def _may_ask(self, attempt: Attempt) -> bool:
        waited = self._now() - self._asked.get(attempt.id, _NEVER)
        return attempt.org not in self._silent and waited >= ASK_AGAIN_AFTER

    async def _try(self, candidate: Candidate, begun: list[Attempt], finished: list[Finished]) -> None:
        found, standing, earlier = candidate
        policy, now = self._policies.of(found.org), self._now()
        action = next_action(found, standing, earlier, policy, now)
        if action is None:
            return
        attempt = make_attempt(action, found, standing, len(earlier) + 1, policy, now)
        if action == "refetch":
            if await self.store.begin(attempt):
                begun.append(attempt)
            return
        if found.org in self._silent:
            return
        if await self.store.posted_since(found.org, now - timedelta(hours=1)) >= policy.per_hour_max:
            return
        shape = await self._rules.shape(found.org, found.pack, found.rule)
        if shape is None:
            return
        refusal = None
        try:
            attempt = with_body(attempt, found, shape)
        except AdjustmentRefused as refused:
            refusal = str(refused)
        # Stored before it is posted: after a crash the same attempt goes on, under the same key.
        if not await self.store.begin(attempt):
            return
        begun.append(attempt)
        if refusal is None:
            await self._post(attempt, finished)
        else:
            finished.append(await self._finish(attempt, Verdict(False, "refused", refusal)))

    async def _post(self, attempt: Attempt, finished: list[Finished]) -> None:
        self._asked[attempt.id] = self._now()
        try:
            said = await self._ledger.post(attempt)
        except LedgerRefused as refused:
            finished.append(await self._finish(attempt, Verdict(False, "refused", str(refused))))
        except LedgerUnavailable as away:
            self._silent.add(attempt.org)
            # It may have booked: the same key is sent again, and no other one, as long as there is time.
            if self._now() >= attempt.validate_by:
                finished.append(await self._finish(attempt, Verdict(False, "unavailable", str(away))))
        else:
            self._asked.pop(attempt.id, None)
            within = self._policies.of(attempt.org).within
            await self.store.accepted(attempt, said[:DETAIL_LENGTH_MAX], self._now() + within)

    async def _finish(self, attempt: Attempt, verdict: Verdict) -> Finished:
        self._asked.pop(attempt.id, None)
        verdict = msgspec.structs.replace(verdict, detail=verdict.detail[:DETAIL_LENGTH_MAX])
        await self.store.finish(attempt, verdict, self._now())
        return Finished(attempt, verdict)

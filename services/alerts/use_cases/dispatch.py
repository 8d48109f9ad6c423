"""One attempt to deliver a message: sign, send, decide, store."""

from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from services.alerts.domain.delivery import Answer, Claim, Decision, Delivered, EndpointGone, GaveUp, Retry, decide
from services.alerts.domain.signature import signed_headers
from services.alerts.ports.delivery import Outbox, Sender


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a claim; the handler logs and counts it."""

    claim: Claim
    answer: Answer | None
    """None: not sent, since too little of the claim was left."""
    decision: Decision | None
    stored: bool
    """False: the claim had lapsed and another dispatcher sends it again under the same id, or it was dropped meanwhile."""


class Dispatch:
    """Delivers claimed messages.

    Args:
        clock: the present time with zone.
        chance: a number in [0, 1), for jitter.
        attempt_max: longest duration of one request; a claim with less left is not begun.
    """

    def __init__(
        self,
        outbox: Outbox,
        sender: Sender,
        *,
        clock: Callable[[], datetime],
        chance: Callable[[], float],
        attempt_max: timedelta,
    ) -> None:
        self.outbox = outbox
        self._sender = sender
        self._clock = clock
        self._chance = chance
        self._attempt_max = attempt_max

    async def deliver(self, claim: Claim) -> Attempt:
        """Make one attempt.

        Raises:
            DependencyAway: its result could not be stored; the claim lapses and the message is sent again under the
                same webhook-id.
        """
        begun = self._clock() - claim.ahead
        if claim.until - begun < self._attempt_max:
            return Attempt(claim=claim, answer=None, decision=None, stored=False)
        headers = signed_headers(claim.secrets, claim.message_id, int(begun.timestamp()), claim.payload)
        answer = await self._sender.send(claim, headers)
        decision = decide(answer, attempt=claim.attempt, now=self._clock() - claim.ahead, chance=self._chance())
        stored = await self.outbox.finish(claim, answer, decision, begun)
        return Attempt(claim=claim, answer=answer, decision=decision, stored=stored)


def outcome(attempt: Attempt) -> str:
    """Name the outcome in one word, for logs and metrics."""
    match attempt.decision:
        case None:
            return "not_sent"
        case Delivered():
            return "delivered"
        case EndpointGone():
            return "disabled"
        case Retry(error=error) | GaveUp(error=error):
            if attempt.answer is not None and attempt.answer.status is not None:
                return "refused"
            return "timeout" if error.startswith("timeout") else "unreachable"

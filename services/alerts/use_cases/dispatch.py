"""One attempt to deliver a message: sign, send, decide."""

from collections.abc import Callable
from datetime import datetime, timedelta

from services.alerts.domain.delivery import Attempt, Claim, decide
from services.alerts.domain.signature import signed_headers
from services.alerts.ports.delivery import Outbox, Sender


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

    async def deliver(self, claim: Claim) -> Attempt | None:
        """Make one attempt; None: too little of the claim was left to begin, so it lapses and is claimed again."""
        begun = self._clock() - claim.ahead
        if claim.until - begun < self._attempt_max:
            return None
        headers = signed_headers(claim.secrets, claim.message_id, int(begun.timestamp()), claim.payload)
        answer = await self._sender.send(claim, headers)
        decision = decide(answer, attempt=claim.attempt, now=self._clock() - claim.ahead, chance=self._chance())
        return Attempt(claim=claim, at=begun, answer=answer, decision=decision)

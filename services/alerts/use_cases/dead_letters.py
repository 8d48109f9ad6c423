"""What people do with dead letters: look, dismiss, have the record sent through again; and storing what arrives."""

from collections.abc import Callable, Sequence
from datetime import datetime

from services.alerts.domain.dead_letter import KeptLetter, dismiss, keep, replay
from services.alerts.ports.dead_letters import DeadLetterStore, Inbox
from shared.contracts.dead_letter import DeadLetter


class RecordGone(LookupError):
    """The record in `inbox` that a letter came from is no longer kept, or never was there."""


class DeadLetters:
    """Every action is one transaction with its line in the history. `now` is the clock of actions."""

    def __init__(self, store: DeadLetterStore, inbox: Inbox, now: Callable[[], datetime]) -> None:
        self.store = store
        self._inbox = inbox
        self._now = now

    async def dismiss(self, org: str, id_: str, reason: str, actor: str) -> KeptLetter | None:
        """Decide that nothing is to be done; None: the organisation has no such letter.

        Raises:
            StateRefused: it is dismissed already.
        """
        at = self._now()
        return await self.store.change(org, id_, lambda kept: dismiss(kept.state, actor, reason, at))

    async def replay(self, org: str, id_: str, actor: str) -> KeptLetter | None:
        """Append the letter's record to `inbox` again; None: the organisation has no such letter.

        Raises:
            RecordGone: there is no such record any more; nothing has changed.
            DependencyAway: Kafka or PostgreSQL cannot be reached.
        """
        history = await self.store.history(org, id_)
        if history is None:
            return None
        letter = history.kept.letter
        record = await self._inbox.find(letter.inbox_partition, letter.inbox_offset) if _has_place(letter) else None
        if record is None:
            raise RecordGone(id_)
        at = self._now()
        return await self.store.change(org, id_, lambda kept: replay(kept.state, actor, at), record)


async def store(letters: DeadLetterStore, arrived: Sequence[DeadLetter], now: datetime) -> None:
    """Store letters as they arrive; storing one again changes nothing."""
    if arrived:
        await letters.add([keep(letter, now) for letter in arrived])


def _has_place(letter: DeadLetter) -> bool:
    return letter.inbox_partition >= 0 and letter.inbox_offset >= 0

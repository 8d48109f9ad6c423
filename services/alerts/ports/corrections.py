"""Corrections: where attempts are stored, what they are judged by, and who is asked to book."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import NamedTuple, Protocol

from services.alerts.domain.correction import (
    ActionKind,
    Attempt,
    AttemptState,
    CorrectionFigures,
    Fresh,
    Policy,
    Verdict,
)
from services.alerts.domain.triage import Standing
from shared.contracts.discrepancy import Discrepancy

Place = tuple[datetime, str]
"""(first raise, id): the order in which exceptions are looked at."""


class Candidate(NamedTuple):
    """An exception that something may be tried on."""

    found: Discrepancy
    standing: Standing
    attempts: Sequence[Attempt]
    """The oldest first."""


class Waiting(NamedTuple):
    """An attempt whose end is open."""

    attempt: Attempt
    found: Discrepancy
    standing: Standing
    fresh: Fresh | None


class LedgerUnavailable(Exception):
    """The ledger has not answered, or not yet; whether it has booked is not known: the same key may be sent again."""


class LedgerRefused(Exception):
    """The ledger says no; the message is its reason."""


class Ledger(Protocol):
    """Takes adjustment entries; it alone decides whether they are booked."""

    async def post(self, attempt: Attempt) -> str:
        """Post the body of an attempt under its id; return what the ledger said, in short.

        Raises:
            LedgerUnavailable: no answer that counts, after several tries.
            LedgerRefused: it does not book this.
        """
        ...


class Policies(Protocol):
    """What each organisation lets be tried."""

    def of(self, org: str) -> Policy:
        """Return the policy of `org`: at least what the packs allow."""
        ...


class CorrectionStore(Protocol):
    """Raises `DependencyAway` while the database cannot be reached."""

    def corrector(self) -> AbstractAsyncContextManager[bool]:
        """Hold the right to correct: one process at a time; False: another one has it."""
        ...

    async def candidates(
        self, rules: Sequence[str], raised_before: datetime, after: Place | None, limit: int
    ) -> Sequence[Candidate]:
        """Return low, open exceptions of `rules` of every organisation, by place, after the place `after`."""
        ...

    async def begin(self, attempt: Attempt) -> bool:
        """Store an attempt with its line in the action log; of a refetch also the wish that pollers read.

        False: somebody was faster.
        """
        ...

    async def accepted(self, attempt: Attempt, said: str, validate_by: datetime) -> None:
        """Note that the ledger took the entry: from now on it waits."""
        ...

    async def finish(self, attempt: Attempt, verdict: Verdict, at: datetime) -> None:
        """Note what became of an attempt, with its line in the action log."""
        ...

    async def unfinished(self, limit: int) -> Sequence[Waiting]:
        """Return attempts whose end is open, the oldest first, with what they are judged by."""
        ...

    async def posted_since(self, org: str, since: datetime) -> int:
        """Count the adjustments of an organisation that were tried since then."""
        ...

    async def figures(
        self, org: str | None, since: datetime, until: datetime | None = None, pack: str | None = None
    ) -> Sequence[CorrectionFigures]:
        """Return how attempts that finished in [since, until) fared; `org` None: over all organisations."""
        ...

    async def attempts(
        self,
        org: str,
        *,
        after: Place | None,
        limit: int,
        discrepancy_id: str | None = None,
        action: ActionKind | None = None,
        state: AttemptState | None = None,
    ) -> Sequence[Attempt]:
        """Return attempts, the newest first, before the place `after` (requested, id)."""
        ...

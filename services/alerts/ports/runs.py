"""Runs: where they and what they read are stored, and how the matcher is asked for what is still pending."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from services.alerts.domain.period import Period
from services.alerts.domain.report import Reading, RuleSides

RunTrigger = Literal["manual", "daily", "schedule"]
RunStatus = Literal["running", "completed", "incomplete", "failed"]
"""`running`: provisional, completes by itself. `incomplete`: final but for money that no cause explains. `failed`: see
its error; tried again. Only `completed` is never computed again."""


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run as it is asked for."""

    org: str
    pack: str
    period: Period
    trigger: RunTrigger
    requested_by: str


@dataclass(frozen=True, slots=True)
class Run:
    """One execution for an organisation and period, without its report."""

    id: str
    org: str
    pack: str
    period: Period
    trigger: RunTrigger
    requested_by: str
    status: RunStatus
    provisional: bool
    summary: Mapping[str, object] | None
    error: str | None
    cut_at: datetime | None
    """Time in the log of the last cut that was asked for."""
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoredReport:
    """A report as it was stored: JSON text and Markdown."""

    json: str
    markdown: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What computing a run gave."""

    status: RunStatus
    provisional: bool
    summary: Mapping[str, object]
    report: StoredReport


class RunInHand(Protocol):
    """A run that nobody else computes meanwhile."""

    run: Run
    """As it is stored now."""

    async def reading(self) -> tuple[Sequence[RuleSides], Reading] | None:
        """What is stored, as of one log time; None while the sink has stored no progress of some partition."""

    async def save(self, outcome: Outcome, at: datetime) -> Run:
        """Store the outcome, `at` being now; refuses nothing, since only a run that is not complete is in hand."""

    async def note(self, status: RunStatus, error: str, at: datetime) -> Run:
        """Store why the run could not be computed; a report stored before stays."""


class RunStore(Protocol):
    """Rows of one organisation each, but for `unfinished`."""

    async def open(self, new: NewRun) -> tuple[Run, bool]:
        """Return the run of that organisation, pack and period, and whether it was made now."""

    async def run(self, org: str, run_id: str) -> Run | None: ...

    async def report(self, org: str, run_id: str) -> StoredReport | None: ...

    async def runs(self, org: str, pack: str, limit: int, after: tuple[str, str] | None) -> Sequence[Run]:
        """Newest first, those behind the place `after` = (created_at, id)."""

    async def unfinished(self, limit: int) -> Sequence[Run]:
        """Of every organisation, those that were looked at longest ago first."""

    async def save_cut(self, run: Run, cut_at: datetime) -> Run: ...

    def in_hand(self, run: Run) -> AbstractAsyncContextManager[RunInHand | None]:
        """Take the run for computing; None where another process has it or it is complete."""


class Cuts(Protocol):
    """The way to the matcher."""

    async def request(self, org: str, cut_id: str) -> datetime:
        """Ask the matcher to publish what is pending in `org`; return the request's time in the log.

        Raises:
            DependencyAway: Kafka did not take it.
        """

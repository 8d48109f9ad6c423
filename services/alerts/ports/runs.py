"""Runs: where they and what they read are stored, and how the matcher is asked for what is still pending."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from services.alerts.domain.checks import CheckFigures
from services.alerts.domain.period import AnyPeriod
from services.alerts.domain.report import Reading, RuleSides

RunTrigger = Literal["manual", "daily", "schedule"]
RunType = Literal["hourly", "daily", "period", "manual"]
"""`daily`: one day, whoever asked for it. `period`: a month or other days. `manual`: the hours up to a moment."""
RunStatus = Literal["running", "completed", "incomplete", "failed"]
"""`running`: provisional, completes by itself. `incomplete`: final but for money that no cause explains. `failed`: see
its error; tried again. Only `completed` is never computed again."""


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run as it is asked for."""

    org: str
    pack: str
    period: AnyPeriod
    trigger: RunTrigger
    requested_by: str
    run_type: RunType
    at: datetime
    """Now: from then on it is looked at."""
    expects: Mapping[str, str] | None = None
    """Rules in force, by name, with their kind."""


@dataclass(frozen=True, slots=True)
class Run:
    """One execution for an organisation and period, without its report."""

    id: str
    org: str
    pack: str
    period: AnyPeriod
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
    run_type: RunType
    duration_ms: int | None = None
    counted_at: datetime | None = None

    @property
    def at(self) -> datetime | None:
        """Log time at which its figures stand; None while it has none."""
        return None if self.summary is None else datetime.fromisoformat(str(self.summary["at"]))

    @property
    def stage(self) -> Literal["running", "provisional", "completed", "incomplete", "failed"]:
        """As the stack pack's names tell it: provisional once there is a report, running before."""
        return "provisional" if self.status == "running" and self.summary is not None else self.status


@dataclass(frozen=True, slots=True)
class Known:
    """What was run already: since when the schedule has run, and the periods that reach beyond some time."""

    since: datetime | None
    """Start of the first period that the schedule ever ran."""
    periods: Sequence[tuple[datetime, datetime]]


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
    checks: Sequence[CheckFigures] = ()
    closed: bool = False
    """Everything of the period is stored: its checks count."""
    error: str | None = None
    """Which checks could not be computed; the others' figures stand."""


class RunInHand(Protocol):
    """A run that nobody else computes meanwhile."""

    run: Run
    """As it is stored now."""

    async def reading(self) -> tuple[Sequence[RuleSides], Reading] | None:
        """What is stored, as of one log time; None while the sink has stored no progress of some partition."""

    async def save(self, outcome: Outcome, at: datetime, duration_ms: int) -> Run:
        """Store the outcome, `at` being now; refuses nothing, since only a run that is not complete is in hand."""

    async def note(self, status: RunStatus, error: str, at: datetime) -> Run:
        """Store why the run could not be computed; a report stored before stays."""


class RunStore(Protocol):
    """Rows of one organisation each, but for `unfinished`."""

    async def open(self, new: NewRun) -> tuple[Run, bool]:
        """Return the run of that organisation, pack and period, and whether it was made now."""

    async def open_alone(self, new: NewRun) -> tuple[Run, bool]:
        """Make a run, or return the one of that period, unless another overlaps it.

        Another run of the organisation and pack over a part of the period that has no report yet is returned instead,
        with False.
        """

    async def packs(self, org: str) -> Sequence[str]:
        """Return the packs that have items, discrepancies, verdicts or runs."""

    async def known(self, org: str, pack: str, run_type: RunType, since: datetime) -> Known:
        """Return what was run already; periods that had ended by `since` are left out."""

    def runner(self) -> AbstractAsyncContextManager[bool]:
        """Tell whether this process is the one that runs what is due; it stays so until the end of the context."""

    async def latest_checks(self) -> Sequence[Mapping[str, object]]:
        """Return summaries of the last counted run of each organisation and pack."""

    async def unresolved(self) -> Mapping[str, int]:
        """Return how many discrepancies nobody has resolved, by severity."""

    async def run(self, org: str, run_id: str) -> Run | None: ...

    async def report(self, org: str, run_id: str) -> StoredReport | None: ...

    async def runs(
        self, org: str, pack: str | None, limit: int, after: tuple[str, str] | None, run_type: RunType | None = None
    ) -> Sequence[Run]:
        """Newest first, those behind the place `after` = (created_at, id); None: of every pack, of every type."""

    async def unfinished(self, now: datetime, limit: int) -> Sequence[Run]:
        """Of every organisation, those that are due (`look_due`), the ones looked at longest ago first."""

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


class RuleSets(Protocol):
    """The rules in force."""

    async def in_force(self) -> Mapping[tuple[str, str], Mapping[str, str]]:
        """Return per organisation and pack the rules that do not only watch, by name, with their kind.

        Raises:
            DependencyAway: Kafka does not answer.
        """

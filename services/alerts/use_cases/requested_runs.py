"""Runs that somebody asks for with a reason: the runs' use case, and who asked why."""

from collections.abc import Callable, Sequence
from datetime import datetime

from services.alerts.ports.run_requests import RunRequest, RunRequests
from services.alerts.ports.runs import Run, StoredReport
from services.alerts.use_cases.runs import Runs


class RequestedRuns:
    """`now` is the clock of requests."""

    def __init__(self, runs: Runs, requests: RunRequests, now: Callable[[], datetime]) -> None:
        self._runs = runs
        self._requests = requests
        self._now = now

    async def trigger(self, org: str, pack: str, period: str | None, actor: str, reason: str) -> tuple[Run, bool]:
        """Make a run, or find the one there is, and store who asked why; return it and whether it was made now.

        Raises:
            PeriodRefused, OrgUnknown, PackUnknown, RunUnderWay, DependencyAway: as `Runs` says.
        """
        if period is None:
            run, made = await self._runs.manual(org, pack, actor), True
        else:
            run, made = await self._runs.trigger(org, period, actor, pack)
        await self._requests.add(org, RunRequest(run_id=run.id, actor=actor, reason=reason, at=self._now()))
        return run, made

    async def list(self, org: str, pack: str | None, limit: int, after: tuple[str, str] | None) -> Sequence[Run]:
        """Return runs of a pack, or of all, the newest first."""
        return await self._runs.store.runs(org, pack, limit, after)

    async def find(self, org: str, run_id: str) -> tuple[Run, Sequence[RunRequest]] | None:
        """Return a run with who asked for it; None: the organisation has no such run."""
        run = await self._runs.store.run(org, run_id)
        return None if run is None else (run, await self._requests.of(org, run_id))

    async def report(self, org: str, run_id: str) -> StoredReport | None:
        """Return the report; None: there is no such run, or it has none yet."""
        return await self._runs.store.report(org, run_id)

"""Reports of runs as people take them away: what is stored, with the items and readings behind it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec

from services.alerts.domain.drift import Drift
from services.alerts.domain.figures import Report
from services.alerts.domain.item_rows import COLUMNS, rows_of
from services.alerts.ports.report_rows import ReportRows
from services.alerts.ports.runs import Run, RunStore, StoredReport


class RunNotFound(LookupError):
    """The organisation has no such run."""


class ReportNotReady(LookupError):
    """The run has no report yet; its `error` may say why."""

    def __init__(self, run: Run) -> None:
        super().__init__(run.id)
        self.run = run


@dataclass(frozen=True, slots=True)
class RunReports:
    """Reads reports.

    Args:
        store: where runs and their reports are.
        rows: the items and readings that reports count.
    """

    store: RunStore
    rows: ReportRows

    async def find(self, org: str, run_id: str) -> tuple[Run, StoredReport]:
        """Return the run and its report as it was stored.

        Raises:
            RunNotFound: the organisation has no such run.
            ReportNotReady: it has no report yet.
        """
        run = await self.store.run(org, run_id)
        if run is None:
            raise RunNotFound(run_id)
        stored = await self.store.report(org, run_id)
        if stored is None:
            raise ReportNotReady(run)
        return run, stored

    async def pictured(self, org: str, run_id: str) -> tuple[Run, Report, Sequence[Drift]]:
        """Return the run, its figures, and how readings drifted in its period; raises as `find` does."""
        run, stored = await self.find(org, run_id)
        return run, msgspec.json.decode(stored.json, type=Report), await self.rows.drift(run)

    @asynccontextmanager
    async def item_rows(self, run: Run) -> AsyncIterator[AsyncIterator[Sequence[str]]]:
        """Give the column names, then the rows of the items that the run counted.

        Raises:
            UnreadableItem: when such an item is reached.
        """
        async with self.rows.items(run) as found:

            async def rows() -> AsyncIterator[Sequence[str]]:
                yield COLUMNS
                async for item in found:
                    for row in rows_of(item, run.period):
                        yield row

            yield rows()

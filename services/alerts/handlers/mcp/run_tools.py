"""Runs of every pack for agents: list, read, trigger; their reports as resources."""

import uuid
from datetime import datetime
from typing import Annotated, Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ToolError
from mcp.types import CallToolResult
from pydantic import Field

from services.alerts.domain.period import PERIOD_SYNTAX, PeriodRefused
from services.alerts.handlers.http.pagination import decode_cursor, encode_cursor
from services.alerts.handlers.http.problem import Problem
from services.alerts.handlers.mcp.answers import (
    READS,
    WRITES,
    Ctx,
    Cursor,
    Limit,
    Notes,
    Pack,
    ShortText,
    asked,
    caller_in,
    result,
    writer_in,
)
from services.alerts.ports.runs import Run, StoredReport
from services.alerts.use_cases.requested_runs import RequestedRuns
from services.alerts.use_cases.runs import PACK, OrgUnknown, PackUnknown, RunUnderWay
from shared.errors import DependencyAway

RunId = Annotated[str, Field(description="Its id, as list_runs gives it.", max_length=64)]


def add_reads(server: MCPServer[Any], runs: RequestedRuns) -> None:
    """Add what changes nothing."""

    @server.tool(annotations=READS)
    async def list_runs(ctx: Ctx, pack: Pack = None, limit: Limit = 10, cursor: Cursor = None) -> CallToolResult:
        """List runs with their figures in short, the newest first; a run's report is the resource named in `report`."""
        rows = await asked(runs.list(caller_in(ctx).org, pack, limit + 1, _place(cursor)))
        last = rows[limit - 1] if len(rows) > limit else None
        after = None if last is None else encode_cursor([last.created_at.isoformat(), last.id])
        return result({"runs": [_shown(run) for run in rows[:limit]], "next_cursor": after})

    @server.tool(annotations=READS)
    async def get_run(ctx: Ctx, run_id: RunId) -> CallToolResult:
        """Show a run: status, figures, who asked for it and why, and its report in Markdown where there is one."""
        org = caller_in(ctx).org
        found = await asked(runs.find(org, _id(run_id)))
        if found is None:
            raise _no_such(run_id)
        run, requests = found
        report = await asked(runs.report(org, run.id))
        asked_by = [{"actor": one.actor, "reason": one.reason, "at": one.at} for one in requests]
        markdown = None if report is None else report.markdown
        return result({"run": _shown(run), "requests": asked_by, "report_markdown": markdown})

    _add_reports(server, runs)


def _add_reports(server: MCPServer[Any], runs: RequestedRuns) -> None:
    @server.resource("tieout://runs/{run_id}/report", mime_type="text/markdown")
    async def run_report(run_id: str, ctx: Ctx) -> str:
        """The report of a run, to be read by people."""
        return (await _report(runs, ctx, run_id)).markdown

    @server.resource("tieout://runs/{run_id}/report.json", mime_type="application/json")
    async def run_report_json(run_id: str, ctx: Ctx) -> str:
        """The report of a run as data; amounts are decimal strings."""
        return (await _report(runs, ctx, run_id)).json

    @server.resource("tieout://packs/{pack}/latest-report", mime_type="text/markdown")
    async def latest_report(pack: str, ctx: Ctx) -> str:
        """The report of a pack's newest run that has one, such as of billing."""
        org = caller_in(ctx).org
        if "\x00" in pack:
            raise ResourceError("the name of a pack holds no NUL character")
        try:
            for run in await runs.list(org, pack[:64], _LOOKED_AT_MAX, None):
                stored = await runs.report(org, run.id)
                if stored is not None:
                    return stored.markdown
        except DependencyAway:
            raise ResourceError(_AWAY) from None
        raise ResourceError(f"no run of pack {pack[:64]!r} has a report yet; make one with trigger_run")


def add_writes(server: MCPServer[Any], runs: RequestedRuns) -> None:
    """Add what makes a run."""

    @server.tool(annotations=WRITES)
    async def trigger_run(
        ctx: Ctx,
        reason: Notes,
        pack: Annotated[ShortText, Field(description="Such as billing, stack, bots or budgets.")] = PACK,
        period: Annotated[
            ShortText | None,
            Field(description=f"{PERIOD_SYNTAX}. Left out: the day up to now."),
        ] = None,
    ) -> CallToolResult:
        """Reconcile now and answer the run with its figures; the same period again answers the run there is. The reason stands beside the run."""
        caller = writer_in(ctx)
        try:
            run, made = await asked(runs.trigger(caller.org, pack, period, caller.actor, reason))
        except PeriodRefused as error:
            raise ToolError(f"period: {error}") from None
        except PackUnknown:
            raise ToolError(
                f"pack: {pack!r} has no rules in force here; apply some (tieout rules apply), or name another pack"
            ) from None
        except RunUnderWay as busy:
            raise ToolError(f"run {busy.run.id} of this pack is still under way; read it with get_run") from None
        except OrgUnknown:
            raise ToolError("this organisation has no keys any more; ask for a new key") from None
        return result({"run": _shown(run), "made_now": made})


_LOOKED_AT_MAX = 20
"""Runs that are looked at for the newest report."""
_AWAY = "PostgreSQL is away; try again in 5 seconds"


async def _report(runs: RequestedRuns, ctx: Ctx, run_id: str) -> StoredReport:
    try:
        stored = await runs.report(caller_in(ctx).org, _id(run_id))
    except DependencyAway:
        raise ResourceError(_AWAY) from None
    except ToolError as error:
        raise ResourceError(str(error)) from None
    if stored is None:
        raise ResourceError(f"run {run_id[:64]!r} is not known here or has no report yet; get_run says how it stands")
    return stored


def _shown(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "pack": run.pack,
        "period": {"start": run.period.start_text, "end": run.period.end_text, "zone": run.period.zone},
        "run_type": run.run_type,
        "requested_by": run.requested_by,
        "status": run.status,
        "provisional": run.provisional,
        "summary": None if run.summary is None else dict(run.summary),
        "error": run.error,
        "created_at": run.created_at,
        "completed_at": run.completed_at,
        "report": f"tieout://runs/{run.id}/report",
    }


def _place(cursor: str | None) -> tuple[str, str] | None:
    if cursor is None:
        return None
    try:
        created_at, run_id = decode_cursor(cursor)
        return datetime.fromisoformat(created_at).isoformat(), str(uuid.UUID(run_id))
    except (Problem, ValueError):
        raise ToolError(
            "cursor: give next_cursor of the answer before, unchanged, or leave it out for the first rows"
        ) from None


def _id(run_id: str) -> str:
    try:
        return str(uuid.UUID(run_id))
    except ValueError:
        raise _no_such(run_id) from None


def _no_such(run_id: str) -> ToolError:
    return ToolError(f"there is no run {run_id[:64]!r} in this organisation; list_runs gives their ids")

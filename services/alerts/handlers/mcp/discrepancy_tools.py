"""Discrepancies of every pack for agents: what is open, why, and what a person would do with it."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult
from pydantic import Field

from services.alerts.domain.triage import (
    REASONS,
    STATUSES,
    Acknowledge,
    Action,
    Assign,
    Note,
    Resolve,
    TransitionRefused,
)
from services.alerts.handlers.http.bodies import discrepancy_body, history_body
from services.alerts.handlers.http.pagination import decode_cursor, encode_cursor
from services.alerts.handlers.http.problem import Problem
from services.alerts.handlers.http.triage import known_id
from services.alerts.handlers.mcp.answers import (
    READS,
    WRITES,
    Ctx,
    Cursor,
    Limit,
    Notes,
    Pack,
    PlainText,
    ShortText,
    asked,
    caller_in,
    one_of,
    result,
    told,
    writer_in,
)
from services.alerts.ports.triage import Filter
from services.alerts.use_cases.story import TEXT_LENGTH_MAX, Stories
from services.alerts.use_cases.triage import Triage
from shared.contracts.discrepancy import SEVERITIES

ONE_OF_REASONS = f"{', '.join(REASONS[:-1])} or {REASONS[-1]}"
DiscrepancyId = Annotated[str, Field(description="Its id, as list_discrepancies gives it.", max_length=64)]


def add_reads(server: MCPServer[Any], triage: Triage, stories: Stories) -> None:
    """Add what changes nothing."""

    @server.tool(annotations=READS)
    async def list_discrepancies(
        ctx: Ctx,
        status: Annotated[
            str | None, Field(description="open, acknowledged or resolved: people's word; null for any.")
        ] = "open",
        pack: Pack = None,
        type: Annotated[ShortText | None, Field(description="Such as AmountMismatch.")] = None,  # noqa: A002 - the parameter's public name
        severity: Annotated[str | None, Field(description="low, medium, high or critical.")] = None,
        key: Annotated[
            PlainText | None, Field(description="The match key, such as pay_1.", max_length=TEXT_LENGTH_MAX)
        ] = None,
        limit: Limit = 20,
        cursor: Cursor = None,
    ) -> CallToolResult:
        """List discrepancies of every pack, those raised last first. To learn why one is open, call why_is_this_open."""
        one_of("status", status, STATUSES)
        one_of("severity", severity, SEVERITIES)
        wanted = {"status": status, "pack": pack, "type": type, "severity": severity, "key": key}
        chosen = msgspec.convert(wanted, Filter)
        rows = await asked(triage.store.list(caller_in(ctx).org, chosen, _place(cursor), limit + 1))
        shown = [discrepancy_body(row).model_dump(mode="json") for row in rows[:limit]]
        last = rows[limit - 1].found if len(rows) > limit else None
        after = None if last is None else encode_cursor([last.raised_at.isoformat(), last.id])
        return result({"discrepancies": shown, "next_cursor": after})

    @server.tool(annotations=READS)
    async def explain_discrepancy(ctx: Ctx, discrepancy_id: DiscrepancyId) -> CallToolResult:
        """Show a discrepancy as data: evidence of both sides, every revision, the action log, adjustment entries, the oldest first."""
        history = await asked(triage.store.history(caller_in(ctx).org, _id(discrepancy_id)))
        if history is None:
            raise _no_such(discrepancy_id)
        body = history_body(history).model_dump(mode="json")
        parts = {"revisions": body.pop("history"), "log": body.pop("actions"), "adjustments": body.pop("adjustments")}
        return result({"discrepancy": body, **parts})

    @server.tool(annotations=READS)
    async def why_is_this_open(
        ctx: Ctx,
        record: Annotated[
            PlainText,
            Field(
                description="A discrepancy's id, a match key such as pay_1, or a record's own id such as pi_3Nx.",
                min_length=1,
                max_length=TEXT_LENGTH_MAX,
            ),
        ],
    ) -> CallToolResult:
        """Tell a record's whole history in words: what each side has, what the engine said, what people did, and what would close it."""
        found = await asked(stories.tell(caller_in(ctx).org, record))
        if not found:
            raise ToolError(
                f"nothing is known of {record[:64]!r} in this organisation: take an id or a key from list_discrepancies; a record "
                "that could not be read is in list_dead_letters"
            )
        told_of = [
            {"discrepancy": one.discrepancy, "open": one.open, "closes": list(one.closes), "text": one.text}
            for one in found
        ]
        return told("\n\n".join(one.text for one in found), {"stories": told_of})


def add_writes(server: MCPServer[Any], triage: Triage) -> None:
    """Add what leaves a line in the action log."""

    @server.tool(annotations=WRITES)
    async def acknowledge_discrepancy(ctx: Ctx, discrepancy_id: DiscrepancyId, reason: Notes) -> CallToolResult:
        """Say that somebody looks at it; with a reason, which stands in the action log."""
        return await _act(triage, ctx, discrepancy_id, Acknowledge(reason))

    @server.tool(annotations=WRITES)
    async def assign_discrepancy(
        ctx: Ctx,
        discrepancy_id: DiscrepancyId,
        assignee: Annotated[PlainText, Field(description="Who is to look into it.", min_length=1, max_length=255)],
        reason: Notes,
    ) -> CallToolResult:
        """Give it to a person; with a reason, which stands in the action log."""
        return await _act(triage, ctx, discrepancy_id, Assign(assignee, reason))

    @server.tool(annotations=WRITES)
    async def note_discrepancy(ctx: Ctx, discrepancy_id: DiscrepancyId, notes: Notes) -> CallToolResult:
        """Add what you found to its action log."""
        return await _act(triage, ctx, discrepancy_id, Note(notes))

    @server.tool(annotations=WRITES)
    async def resolve_discrepancy(
        ctx: Ctx,
        discrepancy_id: DiscrepancyId,
        reason: Annotated[str, Field(description=ONE_OF_REASONS)],
        notes: Notes,
    ) -> CallToolResult:
        """Close what is understood, with a reason code and a note; it reopens by itself when its figures change."""
        one_of("reason", reason, REASONS)
        return await _act(triage, ctx, discrepancy_id, msgspec.convert({"reason": reason, "notes": notes}, Resolve))


async def _act(triage: Triage, ctx: Ctx, id_: str, action: Action) -> CallToolResult:
    caller = writer_in(ctx)
    try:
        stored = await asked(triage.act(caller.org, _id(id_), action, caller.actor))
    except TransitionRefused as refused:
        raise ToolError(f"{refused}; it is {refused.status} now: read it with why_is_this_open") from None
    if stored is None:
        raise _no_such(id_)
    return result({"discrepancy": discrepancy_body(stored).model_dump(mode="json")})


def _place(cursor: str | None) -> tuple[datetime, str] | None:
    if cursor is None:
        return None
    try:
        time, id_ = decode_cursor(cursor)
        return datetime.fromisoformat(time), known_id(id_)
    except (Problem, ValueError):
        raise ToolError(
            "cursor: give next_cursor of the answer before, unchanged, or leave it out for the first rows"
        ) from None


def _id(id_: str) -> str:
    try:
        return known_id(id_)
    except Problem:
        raise _no_such(id_) from None


def _no_such(id_: str) -> ToolError:
    return ToolError(f"there is no discrepancy {id_[:64]!r} in this organisation; list_discrepancies gives their ids")

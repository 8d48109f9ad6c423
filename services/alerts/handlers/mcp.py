"""MCP for agents: tools over the same use cases as the HTTP API, streamable HTTP under `/mcp` with API keys and roles.

`/mcp/read-only` offers only the tools that change nothing, whichever role the key has.
"""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from pydantic import Field
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from services.alerts.domain.budget import CONSOLE_SYNC, REASON_LENGTH_MAX, BudgetRefused, BudgetUnknown, Wish
from services.alerts.domain.triage import Acknowledge, Action, Assign, Note, Resolve, TransitionRefused
from services.alerts.handlers.exact import Exact, write
from services.alerts.handlers.http.auth import Caller, caller_of
from services.alerts.handlers.http.bodies import discrepancy_body
from services.alerts.handlers.http.problem import Problem, answer
from services.alerts.handlers.http.triage import known_id
from services.alerts.ports.directory import DirectoryStore
from services.alerts.ports.triage import Filter
from services.alerts.use_cases.budgets import Asker, Budgets
from services.alerts.use_cases.triage import Triage
from shared.errors import DependencyAway

PATH = "/mcp"
READ_ONLY_PATH = "/mcp/read-only"
RECONCILED_BY = "mcp-workflow"
"""Stands in `reconciled_by` of rows that came over MCP; the key that asked is in the history's `actor`."""
LISTED_MAX = 100
"""Discrepancies of one answer: more would fill an agent's context."""
INSTRUCTIONS = (
    "tieout reconciles money. Budgets: tracked usage + plugs = total - remaining, to the cent. Read the provider's console, "
    "then call update_budget(remaining_budget) or record_budget_reconciliation; the difference is recorded as a plug with its "
    "reason. Discrepancies: list_discrepancies, explain_discrepancy, then acknowledge, assign, note or resolve them, always "
    "with a reason. Amounts are exact; send more than 15 digits as a string."
)

_CALLER = "tieout.caller"
_READS = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
_WRITES = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False)

Ctx = Context[Any, Request]
BudgetName = Annotated[
    str | None, Field(description="Name of the budget; the organisation's first where left out.", max_length=64)
]
Key = Annotated[
    str | None,
    Field(description="The same key with the same call is recorded once; send one when you may retry.", max_length=255),
]
Reason = Annotated[
    str, Field(description="Why; people read it in the history.", min_length=1, max_length=REASON_LENGTH_MAX)
]
DiscrepancyId = Annotated[str, Field(description="Its id, as list_discrepancies gives it.", max_length=64)]
Notes = Annotated[
    str, Field(description="What you found, in words; it stands in the action log.", min_length=1, max_length=4_000)
]

T = TypeVar("T")


class McpTools:
    """The two servers, with and without tools that write, and their routes."""

    def __init__(self, directory: DirectoryStore, budgets: Budgets, triage: Triage) -> None:
        self._directory = directory
        self._servers = {
            PATH: _server(budgets, triage, read_only=False),
            READ_ONLY_PATH: _server(budgets, triage, read_only=True),
        }
        self._apps = {
            path: server.streamable_http_app(
                streamable_http_path=path,
                json_response=True,
                # Every request brings its key and is answered by whichever process gets it.
                stateless_http=True,
                # It guards servers without keys against web pages; a page has no key to send.
                transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
            )
            for path, server in self._servers.items()
        }

    def router(self) -> APIRouter:
        """Return `/mcp` and `/mcp/read-only`."""
        return APIRouter(
            routes=[Route(path, endpoint=_Guarded(self._directory, app)) for path, app in self._apps.items()]
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Answer requests within the block; it can be entered once."""
        full, read_only = self._servers.values()
        async with full.session_manager.run(), read_only.session_manager.run():
            yield


class _Guarded:
    """Lets requests with a known key through, and tells the tools whose it is."""

    def __init__(self, directory: DirectoryStore, app: Any) -> None:
        self._directory = directory
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scheme, _, key = Request(scope).headers.get("authorization", "").partition(" ")
        try:
            caller = await self._admitted(key.strip() if scheme.lower() == "bearer" else None)
        except Problem as problem:
            await answer(problem)(scope, receive, send)
            return
        scope[_CALLER] = caller
        await self._app(scope, receive, send)

    async def _admitted(self, key: str | None) -> Caller:
        caller = await caller_of(self._directory, key)
        if caller.role == "ingest":
            raise Problem(403, "forbidden", "this needs a key with the role owner, manager or viewer; yours is ingest")
        return caller


def _server(budgets: Budgets, triage: Triage, *, read_only: bool) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("tieout", instructions=INSTRUCTIONS, log_level="WARNING")
    _budget_reads(server, budgets)
    _triage_reads(server, triage)
    if not read_only:
        _budget_writes(server, budgets)
        _triage_writes(server, triage)
    return server


def _budget_reads(server: MCPServer[Any], budgets: Budgets) -> None:
    @server.tool(annotations=_READS)
    async def get_budget_status(ctx: Ctx, budget: BudgetName = None) -> CallToolResult:
        """Say how a budget stands: remaining_budget, used_budget = api_usage_tracked + manual_plug_amount, last reconciliation."""
        return _result(await _asked(budgets.status(_caller(ctx).org, budget)))

    @server.tool(annotations=_READS)
    async def get_reconciliation_status(
        ctx: Ctx,
        days: Annotated[int, Field(description="How many days back, 1 to 3660.")] = 7,
        budget: Annotated[str | None, Field(description="One budget only; all where left out.", max_length=64)] = None,
    ) -> CallToolResult:
        """List recent reconciliations, total manual adjustments, tracking health and recommended actions."""
        return _result(await _asked(budgets.reconciliation_status(_caller(ctx).org, days, budget)))

    @server.tool(annotations=_READS)
    async def get_unified_cost_status(ctx: Ctx) -> CallToolResult:
        """Add up the cost over all providers, per currency; a provider without a budget counts by its odometer."""
        return _result(await _asked(budgets.unified(_caller(ctx).org)))

    @server.tool(annotations=_READS)
    async def get_groq_status(ctx: Ctx) -> CallToolResult:
        """Show groq's odometer: readings, this month, days until the monthly reset, historic months."""
        return _result(await _asked(budgets.odometer(_caller(ctx).org, "groq")))

    @server.tool(annotations=_READS)
    async def get_narrator_context(ctx: Ctx) -> CallToolResult:
        """Tell how all budgets stand in a few sentences, to be put into a larger summary."""
        text = await _asked(budgets.narrator_context(_caller(ctx).org))
        return CallToolResult(
            content=[TextContent(type="text", text=text)], structured_content={"narrator_context": text}
        )


def _budget_writes(server: MCPServer[Any], budgets: Budgets) -> None:
    @server.tool(annotations=_WRITES)
    async def record_budget_reconciliation(
        ctx: Ctx,
        current_budget: Annotated[Exact, Field(description="What the provider's console says is left, such as 19.54.")],
        manual_adjustment: Annotated[
            Exact,
            Field(description="current_budget less remaining_budget of get_budget_status; negative: spend was missed."),
        ],
        adjustment_reason: Reason = CONSOLE_SYNC,
        budget: BudgetName = None,
        idempotency_key: Key = None,
    ) -> CallToolResult:
        """Record a reconciliation; answers reconciliation_id and updated_budget_status. One that does not fit is refused with the expected figure."""
        wish = Wish(remaining=current_budget, adjustment=manual_adjustment, reason=adjustment_reason)
        return await _reconciled(budgets, _writer(ctx), wish, budget, idempotency_key)

    @server.tool(annotations=_WRITES)
    async def update_budget(
        ctx: Ctx,
        remaining_budget: Annotated[Exact, Field(description="What the provider's console says is left.")],
        total_budget: Annotated[Exact | None, Field(description="The new total, only where it changed.")] = None,
        adjustment_reason: Reason = CONSOLE_SYNC,
        budget: BudgetName = None,
        idempotency_key: Key = None,
    ) -> CallToolResult:
        """Set what remains; the difference to the tracking becomes a plug. The value just recorded changes nothing."""
        wish = Wish(remaining=remaining_budget, total=total_budget, reason=adjustment_reason)
        return await _reconciled(budgets, _writer(ctx), wish, budget, idempotency_key)


async def _reconciled(
    budgets: Budgets, caller: Caller, wish: Wish, budget: str | None, key: str | None
) -> CallToolResult:
    asker = Asker(actor=caller.actor, reconciled_by=RECONCILED_BY)
    return _result(await _asked(budgets.reconcile(caller.org, wish, asker, budget=budget, idempotency_key=key)))


def _triage_reads(server: MCPServer[Any], triage: Triage) -> None:
    @server.tool(annotations=_READS)
    async def list_discrepancies(
        ctx: Ctx,
        status: Annotated[
            str | None, Field(description="open, acknowledged or resolved; any where left out.")
        ] = "open",
        pack: Annotated[str | None, Field(description="Such as billing or budgets.", max_length=64)] = None,
        type: Annotated[str | None, Field(description="Such as AmountMismatch.", max_length=64)] = None,  # noqa: A002 - the parameter's public name
        limit: Annotated[int, Field(ge=1, le=LISTED_MAX)] = 20,
    ) -> CallToolResult:
        """List discrepancies, those raised last first."""
        if status not in {None, "open", "acknowledged", "resolved"}:
            raise ToolError(f"status: {status[:20]!r} is none; use open, acknowledged or resolved")
        chosen = msgspec.convert({"status": status, "pack": pack, "type": type}, Filter)
        rows = await _asked(triage.store.list(_caller(ctx).org, chosen, None, limit + 1))
        shown = [discrepancy_body(row).model_dump(mode="json") for row in rows[:limit]]
        return _result({"discrepancies": shown, "more": len(rows) > limit})

    @server.tool(annotations=_READS)
    async def explain_discrepancy(ctx: Ctx, discrepancy_id: DiscrepancyId) -> CallToolResult:
        """Tell why a discrepancy is open: its explanation, every revision, and what people did, the oldest first."""
        history = await _asked(triage.store.history(_caller(ctx).org, _id(discrepancy_id)))
        if history is None:
            raise _no_such(discrepancy_id)
        return _result(
            {
                "discrepancy": discrepancy_body(history.stored).model_dump(mode="json"),
                "revisions": history.revisions,
                "log": history.log,
                "adjustments": history.adjustments,
            }
        )


def _triage_writes(server: MCPServer[Any], triage: Triage) -> None:
    @server.tool(annotations=_WRITES)
    async def acknowledge_discrepancy(ctx: Ctx, discrepancy_id: DiscrepancyId, reason: Notes) -> CallToolResult:
        """Say that somebody looks at it; with a reason, which stands in the action log."""
        return await _act(triage, ctx, discrepancy_id, Acknowledge(), Note(reason))

    @server.tool(annotations=_WRITES)
    async def assign_discrepancy(
        ctx: Ctx,
        discrepancy_id: DiscrepancyId,
        assignee: Annotated[str, Field(min_length=1, max_length=255)],
        reason: Notes,
    ) -> CallToolResult:
        """Give it to a person; with a reason, which stands in the action log."""
        return await _act(triage, ctx, discrepancy_id, Assign(assignee), Note(reason))

    @server.tool(annotations=_WRITES)
    async def note_discrepancy(ctx: Ctx, discrepancy_id: DiscrepancyId, notes: Notes) -> CallToolResult:
        """Add what you found to its action log."""
        return await _act(triage, ctx, discrepancy_id, Note(notes))

    @server.tool(annotations=_WRITES)
    async def resolve_discrepancy(
        ctx: Ctx,
        discrepancy_id: DiscrepancyId,
        reason: Annotated[str, Field(description="accepted, written_off, timing, adjusted or false_positive")],
        notes: Notes,
    ) -> CallToolResult:
        """Close what is understood, with a reason code and a note; it reopens by itself when its figures change."""
        try:
            action = msgspec.convert({"reason": reason, "notes": notes}, Resolve)
        except msgspec.ValidationError:
            raise ToolError(
                f"reason: {reason[:40]!r} is none; use accepted, written_off, timing, adjusted or false_positive"
            ) from None
        return await _act(triage, ctx, discrepancy_id, action)


async def _act(triage: Triage, ctx: Ctx, id_: str, *actions: Action) -> CallToolResult:
    caller = _writer(ctx)
    stored = None
    for action in actions:
        try:
            stored = await _asked(triage.act(caller.org, _id(id_), action, caller.actor))
        except TransitionRefused as refused:
            raise ToolError(f"{refused}; it is {refused.status} now: read it with explain_discrepancy") from None
        if stored is None:
            raise _no_such(id_)
    assert stored is not None, "there is at least one action"
    return _result({"discrepancy": discrepancy_body(stored).model_dump(mode="json")})


def _id(id_: str) -> str:
    try:
        return known_id(id_)
    except Problem:
        raise _no_such(id_) from None


def _no_such(id_: str) -> ToolError:
    return ToolError(f"there is no discrepancy {id_[:64]!r} in this organisation; list_discrepancies gives their ids")


def _caller(ctx: Ctx) -> Caller:
    request = ctx.request_context.request
    assert request is not None, "tools are called over HTTP"
    caller: Caller = request.scope[_CALLER]
    return caller


def _writer(ctx: Ctx) -> Caller:
    caller = _caller(ctx)
    if caller.role not in {"owner", "manager"}:
        raise ToolError(
            f"this changes something and needs a key with the role owner or manager; yours is {caller.role}. Tools that read "
            "work with it: get_budget_status, get_reconciliation_status, list_discrepancies"
        )
    return caller


async def _asked(work: Awaitable[T]) -> T:
    """Wait for a use case; what it refuses becomes an error that an agent can act on."""
    try:
        return await work
    except (BudgetRefused, BudgetUnknown) as error:
        raise ToolError(str(error)) from None
    except DependencyAway:
        raise ToolError("the database is away and nothing was written; try again in 5 seconds") from None


def _result(answered: object) -> CallToolResult:
    """The answer as text, in which every digit is exact, and as structure where floats keep its numbers."""
    built = msgspec.to_builtins(answered, builtin_types=(Decimal,))
    structured, exact = _floats(built)
    return CallToolResult(
        content=[TextContent(type="text", text=write(answered).decode())],
        structured_content=structured if exact else None,
    )


def _floats(value: Any) -> tuple[Any, bool]:
    if isinstance(value, Decimal):
        near = float(value)
        return near, Decimal(repr(near)) == value
    if isinstance(value, dict):
        inner = {name: _floats(one) for name, one in value.items()}
        return {name: one for name, (one, _) in inner.items()}, all(exact for _, exact in inner.values())
    if isinstance(value, list):
        each = [_floats(one) for one in value]
        return [one for one, _ in each], all(exact for _, exact in each)
    return value, True

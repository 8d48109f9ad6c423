"""Budgets for agents: the tools, and a budget's picture as a resource."""

from typing import Annotated, Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError
from mcp.types import CallToolResult
from pydantic import Field

from services.alerts.domain.budget import CONSOLE_SYNC, REASON_LENGTH_MAX, BudgetRefused, BudgetUnknown, Wish
from services.alerts.handlers.exact import Exact
from services.alerts.handlers.http.auth import Caller
from services.alerts.handlers.mcp.answers import (
    READS,
    WRITES,
    Ctx,
    PlainText,
    asked,
    caller_in,
    result,
    told,
    writer_in,
)
from services.alerts.use_cases.budgets import Asker, Budgets
from shared.errors import DependencyAway

RECONCILED_BY = "mcp-workflow"
"""Stands in `reconciled_by` of rows that came over MCP; the key that asked is in the history's `actor`."""

BudgetName = Annotated[
    PlainText | None, Field(description="Name of the budget; the organisation's first where left out.", max_length=64)
]
AnyBudget = Annotated[PlainText | None, Field(description="One budget only; all where left out.", max_length=64)]
Days = Annotated[int, Field(description="How many days back, 1 to 3660.")]
Key = Annotated[
    PlainText | None,
    Field(description="The same key with the same call is recorded once; send one when you may retry.", max_length=255),
]
Reason = Annotated[
    PlainText, Field(description="Why; people read it in the history.", min_length=1, max_length=REASON_LENGTH_MAX)
]


def add_reads(server: MCPServer[Any], budgets: Budgets) -> None:
    """Add what changes nothing."""

    @server.tool(annotations=READS)
    async def get_budget_status(ctx: Ctx, budget: BudgetName = None) -> CallToolResult:
        """Say how a budget stands: remaining_budget, used_budget = api_usage_tracked + manual_plug_amount, last reconciliation."""
        return result(await asked(budgets.status(caller_in(ctx).org, budget)))

    @server.tool(annotations=READS)
    async def get_reconciliation_status(ctx: Ctx, days: Days = 7, budget: AnyBudget = None) -> CallToolResult:
        """List recent reconciliations, total manual adjustments, tracking health and recommended actions."""
        return result(await asked(budgets.reconciliation_status(caller_in(ctx).org, days, budget)))

    @server.tool(annotations=READS)
    async def get_unified_cost_status(ctx: Ctx) -> CallToolResult:
        """Add up the cost over all providers, per currency; a provider without a budget counts by its odometer."""
        return result(await asked(budgets.unified(caller_in(ctx).org)))

    @server.tool(annotations=READS)
    async def get_groq_status(ctx: Ctx) -> CallToolResult:
        """Show groq's odometer: readings, this month, days until the monthly reset, historic months."""
        return result(await asked(budgets.odometer(caller_in(ctx).org, "groq")))

    @server.tool(annotations=READS)
    async def get_narrator_context(ctx: Ctx) -> CallToolResult:
        """Tell how all budgets stand in a few sentences, to be put into a larger summary."""
        text = await asked(budgets.narrator_context(caller_in(ctx).org))
        return told(text, {"narrator_context": text})

    @server.resource("tieout://budgets/{budget}/picture", mime_type="image/svg+xml")
    async def budget_picture(budget: str, ctx: Ctx) -> str:
        """Tracked usage and plugs adding up to what was spent, over time, as SVG."""
        if "\x00" in budget:
            raise ResourceError("the name of a budget holds no NUL character")
        try:
            return await budgets.picture(caller_in(ctx).org, budget)
        except (BudgetRefused, BudgetUnknown, DependencyAway) as error:
            raise ResourceError(str(error)) from None


def add_writes(server: MCPServer[Any], budgets: Budgets) -> None:
    """Add what records something."""

    @server.tool(annotations=WRITES)
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
        return await _reconciled(budgets, writer_in(ctx), wish, budget, idempotency_key)

    @server.tool(annotations=WRITES)
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
        return await _reconciled(budgets, writer_in(ctx), wish, budget, idempotency_key)


async def _reconciled(
    budgets: Budgets, caller: Caller, wish: Wish, budget: str | None, key: str | None
) -> CallToolResult:
    asker = Asker(actor=caller.actor, reconciled_by=RECONCILED_BY)
    return result(await asked(budgets.reconcile(caller.org, wish, asker, budget=budget, idempotency_key=key)))

"""Prompts: how a morning's work goes, step by step, with the tools' names."""

from typing import Annotated, Any

from mcp.server.mcpserver import MCPServer
from pydantic import Field

MORNING = """Review what tieout has open{scope}, as a person of finance would in the morning.

1. Call get_narrator_context and get_reconciliation_status for the budgets, list_runs for last night's runs, and list_dead_letters for what could not be read.
2. Call list_discrepancies with status open{filter}. Take the most severe first; go on with next_cursor until there are no more.
3. For each, call why_is_this_open. It says what each side has, what happened so far, and what would close it.
4. Decide from the evidence alone. Never invent a figure, a cause or a reference; what you cannot show from an answer you do not know.
5. {act}
6. End with a summary: what was open, what you did and why, what is left for a person, and which amounts are at stake, per currency; amounts of different currencies are never added.
"""
ACT = (
    "Acknowledge what you look into. Resolve only what is understood: timing for money that is on its way, accepted or "
    "written_off where a person has agreed, false_positive where the rule is wrong; say why in the notes. Assign what a "
    "person must decide, with a note of what you found. Every call needs a reason; it stands in the action log."
)
LOOK = "Change nothing: this connection only reads. Say for each what you would do and why."
RECORD = """Explain why {record} is open, to somebody who has not seen it.

Call why_is_this_open with record {record}. If it speaks of a dead letter or nothing is known, look in list_dead_letters. Then tell in plain words: what should be there, what is there, since when, who did what so far, and the one thing most likely to close it. Quote amounts and times exactly as they are given.
"""
BUDGETS = """Reconcile the budgets with what the providers' consoles say.

1. Call get_budget_status for each budget (other_budgets names the others) and ask for, or read, what its console says is left.
2. Call update_budget(remaining_budget, budget, adjustment_reason, idempotency_key) for each. If money was added, send total_budget too. The reason says where the figure was read, and by whom.
3. Look at manual_plug_amount of what was recorded: it is spend that the tracking missed. If get_reconciliation_status says that plugs grow, say which spend is likely behind it, and what should be tracked.
4. If an answer is an error, do what it says; a figure that is expected there is exact.
"""


def add(server: MCPServer[Any], *, read_only: bool) -> None:
    """Add the prompts; without writes, `reconcile_budgets` is left out and the review only looks."""

    @server.prompt(title="Morning review")
    def morning_review(
        pack: Annotated[str | None, Field(description="One pack only, such as billing; all where left out.")] = None,
    ) -> str:
        """Go through everything that is open, the most severe first, and leave it decided or assigned, with reasons."""
        scope, filter_ = (f" in pack {pack}", f" and pack {pack}") if pack else ("", "")
        return MORNING.format(scope=scope, filter=filter_, act=LOOK if read_only else ACT)

    @server.prompt(title="Why is this record open?")
    def explain_record(
        record: Annotated[str, Field(description="A discrepancy's id, a match key, or a record's own id.")],
    ) -> str:
        """Explain one open record to somebody who has not seen it."""
        return RECORD.format(record=record)

    if read_only:
        return

    @server.prompt(title="Reconcile budgets")
    def reconcile_budgets() -> str:
        """Hold every budget against its provider's console and record the differences."""
        return BUDGETS

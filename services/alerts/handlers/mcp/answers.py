"""What every tool needs: who calls, how a refusal is told, how an answer is written."""

from collections.abc import Awaitable
from decimal import Decimal
from typing import Annotated, Any, TypeVar

import msgspec
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from pydantic import AfterValidator, Field
from starlette.requests import Request

from services.alerts.domain.budget import BudgetRefused, BudgetUnknown
from services.alerts.handlers.exact import write
from services.alerts.handlers.http.auth import Caller
from shared.errors import DependencyAway

CALLER = "tieout.caller"
"""Where the guard leaves the caller in the request's scope."""
READS = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
WRITES = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False)
LISTED_MAX = 100
"""Rows of one answer: more would fill an agent's context."""
NOTE_LENGTH_MAX = 4_000


def _without_nul(text: str) -> str:
    if "\x00" in text:
        msg = "holds a NUL character; send text without it"
        raise ValueError(msg)
    return text


Ctx = Context[Any, Request]
Limit = Annotated[int, Field(ge=1, le=LISTED_MAX, description="Rows of one answer.")]
Cursor = Annotated[
    str | None, Field(description="next_cursor of the answer before, for the rows after it.", max_length=400)
]
PlainText = Annotated[str, AfterValidator(_without_nul)]
ShortText = Annotated[PlainText, Field(max_length=64)]
Pack = Annotated[ShortText | None, Field(description="Such as billing, stack, bots or budgets; any where left out.")]
Notes = Annotated[
    PlainText,
    Field(
        description="Why, or what you found, in words; it stands in the action log.",
        min_length=1,
        max_length=NOTE_LENGTH_MAX,
    ),
]

T = TypeVar("T")


def caller_in(ctx: Ctx) -> Caller:
    """Return who calls; everything a tool reads or writes is of their organisation."""
    request = ctx.request_context.request
    assert request is not None, "tools are called over HTTP"
    caller: Caller = request.scope[CALLER]
    return caller


def writer_in(ctx: Ctx) -> Caller:
    """Return who calls, if they may write.

    Raises:
        ToolError: the key's role only looks.
    """
    caller = caller_in(ctx)
    if caller.role not in {"owner", "manager"}:
        raise ToolError(
            f"this changes something and needs a key with the role owner or manager; yours is {caller.role}. Tools that read "
            "work with it: get_budget_status, list_discrepancies, why_is_this_open, list_runs, list_dead_letters"
        )
    return caller


async def asked(work: Awaitable[T]) -> T:
    """Wait for a use case; what it refuses becomes an error that an agent can act on."""
    try:
        return await work
    except (BudgetRefused, BudgetUnknown) as error:
        raise ToolError(str(error)) from None
    except DependencyAway:
        # The error names servers, which are nothing to an agent.
        raise ToolError("PostgreSQL or Kafka is away and nothing was written; try again in 5 seconds") from None


def one_of(name: str, value: str | None, allowed: tuple[str, ...]) -> None:
    """Raises `ToolError` that names what is allowed."""
    if value is not None and value not in allowed:
        raise ToolError(f"{name}: {value[:40]!r} is none; use {', '.join(allowed[:-1])} or {allowed[-1]}")


def result(answered: object) -> CallToolResult:
    """The answer as text, in which every digit is exact, and as structure where floats keep its numbers."""
    built = msgspec.to_builtins(answered, builtin_types=(Decimal,))
    structured, exact = _floats(built)
    return CallToolResult(
        content=[TextContent(type="text", text=write(answered).decode())],
        structured_content=structured if exact else None,
    )


def told(text: str, structured: dict[str, Any]) -> CallToolResult:
    """An answer in sentences, with what a program needs beside them."""
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=structured)


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

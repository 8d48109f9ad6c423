"""The two servers, with and without what writes, and the guard in front of them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import CallToolResult, InputRequiredResult
from pydantic import ValidationError
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from services.alerts.handlers.http.auth import Caller, caller_of
from services.alerts.handlers.http.problem import Problem, answer
from services.alerts.handlers.mcp import budget_tools, discrepancy_tools, letter_tools, prompts, run_tools
from services.alerts.handlers.mcp.answers import CALLER
from services.alerts.ports.directory import DirectoryStore
from services.alerts.use_cases.budgets import Budgets
from services.alerts.use_cases.dead_letters import DeadLetters
from services.alerts.use_cases.requested_runs import RequestedRuns
from services.alerts.use_cases.story import Stories
from services.alerts.use_cases.triage import Triage

PATH = "/mcp"
READ_ONLY_PATH = "/mcp/read-only"
INSTRUCTIONS = (
    "tieout reconciles money. What is open: list_discrepancies, then why_is_this_open tells a record's whole history and "
    "what would close it; acknowledge, assign, note or resolve it, always with a reason. Runs: list_runs, get_run, "
    "trigger_run; reports are the resources tieout://runs/{run_id}/report. What could not be read: list_dead_letters. "
    "Budgets: tracked usage + plugs = total - remaining, to the cent; read the provider's console, then call "
    "update_budget(remaining_budget) or record_budget_reconciliation, and the difference is recorded as a plug with its "
    "reason. Amounts are exact; send more than 15 digits as a string. The prompt morning_review goes through all of it."
)


@dataclass(frozen=True, slots=True)
class UseCases:
    """What the tools are over."""

    budgets: Budgets
    triage: Triage
    runs: RequestedRuns
    letters: DeadLetters


class McpTools:
    """The two servers and their routes."""

    def __init__(self, directory: DirectoryStore, cases: UseCases) -> None:
        self._directory = directory
        self._servers = {
            PATH: make_server(cases, read_only=False),
            READ_ONLY_PATH: make_server(cases, read_only=True),
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
        scope[CALLER] = caller
        await self._app(scope, receive, send)

    async def _admitted(self, key: str | None) -> Caller:
        caller = await caller_of(self._directory, key)
        if caller.role == "ingest":
            raise Problem(403, "forbidden", "this needs a key with the role owner, manager or viewer; yours is ingest")
        return caller


class _Server(MCPServer[Any]):
    """Tells what is wrong with arguments as the HTTP API does, and refuses those that there are not."""

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        tool = self._tool_manager.get_tool(name)
        if tool is not None:
            _refuse_unknown(name, arguments, tool.parameters["properties"])
        try:
            return await super().call_tool(name, arguments, context)
        except UnexpectedToolError:
            raise
        except ToolError as error:
            if isinstance(error.__cause__, ValidationError):
                raise ToolError(_wrong(error.__cause__)) from None
            raise ToolError(str(error).removeprefix(f"Error executing tool {name}: ")) from error.__cause__


def _refuse_unknown(name: str, arguments: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    unknown = [one for one in arguments if one not in known]
    if unknown:
        # A slip in the name of an optional argument would otherwise change what is written.
        raise ToolError(f"{unknown[0][:64]}: {name} has no such argument; it takes {', '.join(known) or 'none'}")


def _wrong(error: ValidationError) -> str:
    """Every argument that is wrong with why, without the library's own decoration."""
    told: dict[str, str] = {}
    for found in error.errors(include_url=False, include_input=False):
        told.setdefault(str(found["loc"][0]), str(found["msg"]).removeprefix("Value error, "))
    return "; ".join(f"{argument}: {why}" for argument, why in told.items())


def make_server(cases: UseCases, *, read_only: bool) -> MCPServer[Any]:
    """Return a server with its tools, resources and prompts; nothing is called yet."""
    server = _Server("tieout", version=version("tieout"), instructions=INSTRUCTIONS, log_level="WARNING")
    budget_tools.add_reads(server, cases.budgets)
    discrepancy_tools.add_reads(server, cases.triage, Stories(cases.triage.store))
    run_tools.add_reads(server, cases.runs)
    letter_tools.add_reads(server, cases.letters)
    if not read_only:
        budget_tools.add_writes(server, cases.budgets)
        discrepancy_tools.add_writes(server, cases.triage)
        run_tools.add_writes(server, cases.runs)
    prompts.add(server, read_only=read_only)
    return server

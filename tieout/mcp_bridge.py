"""MCP over stdin and stdout for clients that start their servers: passes every request on to `/mcp` of alerts.

Tools, resources and prompts are those of the service, so there is one of each; the key comes from the environment and not from the client.
"""

from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.server import Server
from mcp.server.context import ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp.types import (
    INTERNAL_ERROR,
    CallToolRequestParams,
    CallToolResult,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    TextContent,
)

from shared.errors import DependencyAway, UsageError

PATH = "/mcp"
READ_ONLY_PATH = "/mcp/read-only"
TIMEOUT_S = 60.0
"""A run may take some seconds; longer is a service that hangs."""

_AWAY = "alerts did not answer"
T = TypeVar("T")


async def serve(url: str, key: str, *, read_only: bool) -> None:
    """Serve one client until it closes stdin.

    Raises:
        UsageError: the service refuses the key.
        DependencyAway: nobody answers at `url`.
    """
    address = url + (READ_ONLY_PATH if read_only else PATH)
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(headers=headers, timeout=TIMEOUT_S) as http:
        await _knock(http, address)
        await _bridge(http, address)


async def _knock(http: httpx2.AsyncClient, address: str) -> None:
    """Find out before the client waits for it whether the key is let in."""
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    accept = {"Accept": "application/json, text/event-stream"}
    try:
        response = await http.post(address, json=ping, headers=accept)
    except httpx2.TransportError as error:
        raise DependencyAway(
            f"alerts at {address} does not answer: {error or type(error).__name__}; start it, or set TIEOUT_API_URL to where it runs"
        ) from None
    if response.status_code in {401, 403}:
        raise UsageError(f"{response.json().get('detail', 'the key is refused')} (the key is TIEOUT_API_KEY)")
    if response.status_code == 404:
        raise UsageError(f"{address} offers no MCP; set TIEOUT_API_URL to alerts, installed with the extra `mcp`")


async def _bridge(http: httpx2.AsyncClient, address: str) -> None:
    async with AsyncExitStack() as open_:
        remote = await open_.enter_async_context(Client(streamable_http_client(address, http_client=http)))
        server = _passing_on(remote)
        read, write = await open_.enter_async_context(stdio_server())
        await server.run(read, write, server.create_initialization_options())


def _passing_on(remote: Client) -> Server[Any]:
    """Return a server whose every answer is the service's own."""

    async def list_tools(_: ServerRequestContext, params: PaginatedRequestParams | None) -> ListToolsResult:
        return await _answered(remote.list_tools(cursor=_cursor(params)))

    async def call_tool(_: ServerRequestContext, params: CallToolRequestParams) -> CallToolResult:
        try:
            return await remote.call_tool(params.name, params.arguments)
        except (MCPError, httpx2.HTTPError) as error:
            text = f"{_AWAY}: {error}; try again in 5 seconds"
            return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)

    async def list_resources(_: ServerRequestContext, params: PaginatedRequestParams | None) -> ListResourcesResult:
        return await _answered(remote.list_resources(cursor=_cursor(params)))

    async def list_templates(
        _: ServerRequestContext, params: PaginatedRequestParams | None
    ) -> ListResourceTemplatesResult:
        return await _answered(remote.list_resource_templates(cursor=_cursor(params)))

    async def read_resource(_: ServerRequestContext, params: ReadResourceRequestParams) -> ReadResourceResult:
        return await _answered(remote.read_resource(params.uri))

    async def list_prompts(_: ServerRequestContext, params: PaginatedRequestParams | None) -> ListPromptsResult:
        return await _answered(remote.list_prompts(cursor=_cursor(params)))

    async def get_prompt(_: ServerRequestContext, params: GetPromptRequestParams) -> GetPromptResult:
        return await _answered(remote.get_prompt(params.name, params.arguments))

    return Server(
        "tieout",
        instructions=remote.instructions,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
    )


def _cursor(params: PaginatedRequestParams | None) -> str | None:
    return None if params is None else params.cursor


async def _answered(request: Awaitable[T]) -> T:
    """Wait for the service; what it refuses goes on as it is, and a service that is away is said to be."""
    try:
        return await request
    except httpx2.HTTPError as error:
        raise MCPError(code=INTERNAL_ERROR, message=f"{_AWAY}: {error}; try again in 5 seconds") from None

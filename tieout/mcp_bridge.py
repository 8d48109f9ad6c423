"""MCP over stdin and stdout for clients that start their servers: passes every request on to `/mcp` of alerts.

The tools are those of the service, so there is one of each; the key comes from the environment and not from the client.
"""

from contextlib import AsyncExitStack

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.server import Server
from mcp.server.context import ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp.types import CallToolRequestParams, CallToolResult, ListToolsResult, PaginatedRequestParams, TextContent

from shared.errors import DependencyAway, UsageError

PATH = "/mcp"
READ_ONLY_PATH = "/mcp/read-only"
TIMEOUT_S = 60.0
"""A tool answers within a second; longer is a service that hangs."""


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

        async def list_tools(_: ServerRequestContext, params: PaginatedRequestParams | None) -> ListToolsResult:
            return await remote.list_tools(cursor=None if params is None else params.cursor)

        async def call_tool(_: ServerRequestContext, params: CallToolRequestParams) -> CallToolResult:
            try:
                return await remote.call_tool(params.name, params.arguments)
            except (MCPError, httpx2.HTTPError) as error:
                text = f"alerts did not answer: {error}; try again in 5 seconds"
                return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)

        server = Server("tieout", instructions=remote.instructions, on_list_tools=list_tools, on_call_tool=call_tool)
        read, write = await open_.enter_async_context(stdio_server())
        await server.run(read, write, server.create_initialization_options())

"""MCP for agents: tools, resources and prompts over the same use cases as the HTTP API.

Streamable HTTP under `/mcp` with API keys and roles; `/mcp/read-only` offers only what changes nothing, whichever role
the key has.
"""

from services.alerts.handlers.mcp.server import PATH, READ_ONLY_PATH, McpTools, UseCases, make_server

__all__ = ["PATH", "READ_ONLY_PATH", "McpTools", "UseCases", "make_server"]

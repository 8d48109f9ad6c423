"""`tieout mcp`: the tools of alerts over stdin and stdout, for agents whose client starts its servers."""

from typing import Annotated

import typer

EXAMPLE = """Example, in a client's configuration:

    {"mcpServers": {"tieout": {"command": "tieout", "args": ["mcp"], "env": {"TIEOUT_API_URL": "http://127.0.0.1:8081", "TIEOUT_API_KEY": "tk_…"}}}}
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLE)(mcp)


def mcp(
    read_only: Annotated[bool, typer.Option("--read-only", help="Offer only the tools that change nothing.")] = False,
) -> None:
    """Serve MCP over stdin and stdout. Needs TIEOUT_API_URL (default http://127.0.0.1:8081) and TIEOUT_API_KEY."""
    import asyncio

    from shared.errors import TieoutError, UsageError
    from tieout.api import from_environment

    api = from_environment()
    try:
        from tieout.mcp_bridge import serve
    except ImportError:
        raise UsageError("MCP is not installed: pip install 'tieout[mcp]'") from None
    try:
        asyncio.run(serve(api.url, api.key, read_only=read_only))
    except ExceptionGroup as group:
        ours = group.subgroup(TieoutError)
        if ours is None:
            raise
        raise ours.exceptions[0] from None

"""Writes what agents are offered over MCP into `docs/`: every tool with its schema, resources and prompts.

`python -m tieout.mcp_document` writes; with `--check` it writes nothing and exits 1 naming stale files.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.types import Tool

from services.alerts.adapters.budget_store import PostgresBudgets
from services.alerts.adapters.cuts import KafkaCuts
from services.alerts.adapters.database import Database
from services.alerts.adapters.dead_letter_store import PostgresDeadLetters
from services.alerts.adapters.directory_store import PostgresDirectory
from services.alerts.adapters.inbox_reader import KafkaInbox
from services.alerts.adapters.rule_topic import RuleTopic
from services.alerts.adapters.run_requests_store import PostgresRunRequests
from services.alerts.adapters.runs_store import PostgresRuns
from services.alerts.adapters.triage_store import PostgresTriage
from services.alerts.handlers.mcp import PATH, READ_ONLY_PATH, UseCases, make_server
from services.alerts.use_cases.budgets import Budgets
from services.alerts.use_cases.dead_letters import DeadLetters
from services.alerts.use_cases.requested_runs import RequestedRuns
from services.alerts.use_cases.runs import Runs
from services.alerts.use_cases.triage import Triage
from shared.kafka.settings import KafkaSettings

DOCS = Path(__file__).resolve().parents[1] / "docs"
LISTING = "contracts/mcp.json"
PAGE = "mcp.md"
NOWHERE = "postgresql+asyncpg://nobody@127.0.0.1:1/none"
"""Nothing connects: only descriptions are asked for."""

HEAD = f"""# MCP: what agents are offered

Generated from the code (`make docs`); the whole schemas are in [{LISTING}]({LISTING}). How to connect: [budgets](budgets.md#mcp). How a
morning goes: [morning review](morning-review.md).

Tools marked *writes* need a key with the role owner or manager, ask for a reason, and leave it in the action log (of a
discrepancy), in the history (of a budget) or beside the run. `{READ_ONLY_PATH}` and `tieout mcp --read-only` do not have them.
"""


def documents() -> Mapping[str, str]:
    """Return the generated files by their place in `docs`."""
    listing = asyncio.run(_listing())
    return {LISTING: json.dumps(listing, indent=2, ensure_ascii=False) + "\n", PAGE: "\n".join(_page(listing)) + "\n"}


async def _listing() -> dict[str, Any]:
    cases = _use_cases()
    full, read_only = make_server(cases, read_only=False), make_server(cases, read_only=True)
    reading = {tool.name for tool in await read_only.list_tools()}
    return {
        "endpoints": {"all": PATH, "read_only": READ_ONLY_PATH},
        "instructions": full.instructions,
        "tools": [_tool(tool, writes=tool.name not in reading) for tool in await full.list_tools()],
        "resource_templates": [
            {"uri": one.uri_template, "mime_type": one.mime_type, "description": one.description}
            for one in await full.list_resource_templates()
        ],
        "prompts": await _prompts(full, read_only),
    }


def _tool(tool: Tool, *, writes: bool) -> dict[str, Any]:
    assert tool.annotations is not None, "every tool says whether it writes"
    assert tool.annotations.read_only_hint is not writes, tool.name
    return {"name": tool.name, "writes": writes, "description": tool.description, "input_schema": tool.input_schema}


async def _prompts(full: MCPServer[Any], read_only: MCPServer[Any]) -> list[dict[str, Any]]:
    reading = {one.name for one in await read_only.list_prompts()}
    return [
        {
            "name": one.name,
            "writes": one.name not in reading,
            "description": one.description,
            "arguments": [
                {"name": given.name, "description": given.description, "required": given.required}
                for given in one.arguments or []
            ],
        }
        for one in await full.list_prompts()
    ]


def _use_cases() -> UseCases:
    database, kafka = Database(NOWHERE), KafkaSettings(bootstrap_servers="127.0.0.1:1")

    def now() -> datetime:
        return datetime.now(UTC)

    runs = Runs(store=PostgresRuns(database), directory=PostgresDirectory(database), cuts=KafkaCuts(kafka), now=now)
    return UseCases(
        budgets=Budgets(PostgresBudgets(database), now),
        triage=Triage(PostgresTriage(database), RuleTopic(kafka), now),
        runs=RequestedRuns(runs, PostgresRunRequests(database), now),
        letters=DeadLetters(PostgresDeadLetters(database), KafkaInbox(kafka), now),
    )


def _page(listing: Mapping[str, Any]) -> Iterator[str]:
    yield HEAD
    yield "## Tools"
    for tool in listing["tools"]:
        yield f"\n### {tool['name']}{' (writes)' if tool['writes'] else ''}\n\n{tool['description']}"
        yield from _parameters(tool["input_schema"])
    yield "\n## Resources\n\n| address | type | |\n| --- | --- | --- |"
    for one in listing["resource_templates"]:
        yield f"| `{one['uri']}` | {one['mime_type']} | {one['description']} |"
    yield "\n## Prompts\n\n| prompt | arguments | |\n| --- | --- | --- |"
    for one in listing["prompts"]:
        given = ", ".join(f"`{name['name']}`" for name in one["arguments"]) or "-"
        yield f"| `{one['name']}` | {given} | {one['description']}{' Not read-only.' if one['writes'] else ''} |"


def _parameters(schema: Mapping[str, Any]) -> Iterator[str]:
    if not schema["properties"]:
        return
    yield "\n| parameter | type | default | |\n| --- | --- | --- | --- |"
    required = schema.get("required", [])
    for name, one in schema["properties"].items():
        default = "required" if name in required else f"`{json.dumps(one.get('default'))}`"
        yield f"| `{name}` | {_type(one)} | {default} | {one['description']} |"


def _type(schema: Mapping[str, Any]) -> str:
    if "anyOf" not in schema:
        return str(schema["type"])
    return " or ".join(dict.fromkeys(_type(one) for one in schema["anyOf"]))


def main() -> None:
    """Write the documents, or say which are stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a document is stale")
    check = parser.parse_args().check
    stale = [
        name
        for name, text in documents().items()
        if not (DOCS / name).is_file() or (DOCS / name).read_text(encoding="utf-8") != text
    ]
    if check and stale:
        sys.exit(f"stale: {', '.join(f'docs/{name}' for name in stale)}; run `make docs`")
    for name in stale:
        (DOCS / name).write_text(documents()[name], encoding="utf-8")


if __name__ == "__main__":
    main()

"""`tieout runs`: trigger a reconciliation run, list runs, read a report; over the API of alerts."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tieout.api import AlertsApi

PATH = "/billing/reconciliation/runs"
PAGE_ROWS = 100

HELP = (
    """Runs of a period and their reports. Needs TIEOUT_API_URL (default http://127.0.0.1:8081) and TIEOUT_API_KEY."""
)
TRIGGER_EXAMPLE = """Examples:

    tieout runs trigger 2026-11

    tieout runs trigger 2026-11-01 2026-11-08
"""
LIST_EXAMPLE = """Example:

    tieout runs list --limit 5
"""
REPORT_EXAMPLE = """Examples:

    tieout runs report latest

    tieout runs report 0b5f7f0e-6e0f-4d0a-9a55-0a6d1a1f6f10 --format json
"""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    runs = typer.Typer(help=HELP, no_args_is_help=True)
    runs.command(epilog=TRIGGER_EXAMPLE)(trigger)
    runs.command(name="list", epilog=LIST_EXAMPLE)(list_)
    runs.command(epilog=REPORT_EXAMPLE)(report)
    app.add_typer(runs, name="runs")


def trigger(
    period: Annotated[str, typer.Argument(help="A month (2026-11), a day (2026-11-20), or the first day of a range.")],
    end: Annotated[
        str | None, typer.Argument(help="Of a range: the first day that no longer belongs to it.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the run as JSON.")] = False,
) -> None:
    """Run a period, or find the run there is. A provisional run completes by itself."""
    from tieout.api import from_environment

    wish: Any = period if end is None else {"start": period, "end": end}
    run = from_environment().post(f"{PATH}/trigger", {"period": wish})
    if as_json:
        print(json.dumps(run), flush=True)
        return
    for line in _shown(run):
        print(line, flush=True)


def list_(
    limit: Annotated[int, typer.Option(help="Runs shown at most, newest first.", min=1)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """List runs, newest first."""
    from tieout.api import from_environment

    found = _runs(from_environment(), limit)
    if as_json:
        for run in found:
            print(json.dumps(run), flush=True)
        return
    rows = [_row(run) for run in found]
    if not rows:
        print("no runs yet: make one with `tieout runs trigger 2026-11`", flush=True)
        return
    for line in _table([["RUN", "PERIOD", "STATUS", "MATCHED", "OPEN", "MADE"], *rows]):
        print(line, flush=True)


def report(
    run: Annotated[str, typer.Argument(help="Id of the run, or `latest`.")],
    format_: Annotated[
        Literal["markdown", "json"], typer.Option("--format", help="Markdown for people, JSON for programs.")
    ] = "markdown",
) -> None:
    """Print the report of a run."""
    from urllib.parse import quote

    from tieout.api import from_environment

    api = from_environment()
    run_id = _latest(api) if run == "latest" else run
    path = f"{PATH}/{quote(run_id, safe='')}/report"
    if format_ == "json":
        print(json.dumps(api.get(path)["reportJson"]), flush=True)
        return
    sys.stdout.write(api.get_text(path, accept="text/markdown"))
    sys.stdout.flush()


def _latest(api: "AlertsApi") -> str:
    from shared.errors import UsageError

    for run in _runs(api, 1):
        return str(run["id"])
    raise UsageError("there are no runs yet: make one with `tieout runs trigger 2026-11`")


def _runs(api: "AlertsApi", limit: int) -> "Iterator[dict[str, Any]]":
    cursor: str | None = None
    left = limit
    while left > 0:
        query = {"limit": str(min(left, PAGE_ROWS))} | ({"cursor": cursor} if cursor else {})
        page = api.get(PATH, query)
        yield from page["data"]
        left -= len(page["data"])
        cursor = page["next_cursor"]
        if cursor is None:
            return


def _period(run: dict[str, Any]) -> str:
    period = run["period"]
    return f"{period['start']}..{period['end']}"


def _rules(run: dict[str, Any]) -> dict[str, Any]:
    """Figures per rule, of rules that have any."""
    rules = (run["summary"] or {}).get("rules", {})
    return {name: figures for name, figures in rules.items() if figures["items"]["total"] or figures["open"]}


def _row(run: dict[str, Any]) -> list[str]:
    rules = _rules(run)
    first = next(iter(rules.values()), None)
    matched = f"{first['matched_percent']} %" if first and first["matched_percent"] else "-"
    more = f" +{len(rules) - 1}" if len(rules) > 1 else ""
    opened = "/".join(str(figures["open"]) for figures in rules.values()) or "-"
    return [run["id"], _period(run), run["status"], matched + more, opened, run["created_at"][:16] + "Z"]


def _shown(run: dict[str, Any]) -> "Iterable[str]":
    yield f"run {run['id']}: {_period(run)} ({run['period']['zone']}), {run['status']}"
    if run["error"]:
        yield f"  {run['error']}"
    for name, figures in _rules(run).items():
        items = figures["items"]
        percent = f"{figures['matched_percent']} % of {items['total']} matched" if items["total"] else "no items"
        types = ", ".join(f"{count} {type_}" for type_, count in figures["discrepancies"].items())
        yield f"  {name}: {percent}, {figures['open']} open{f' ({types})' if types else ''}"
    if run["provisional"]:
        yield "  provisional: it completes by itself once everything of the period is stored"
    yield f"  report: tieout runs report {run['id']}"


def _table(rows: list[list[str]]) -> "Iterable[str]":
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

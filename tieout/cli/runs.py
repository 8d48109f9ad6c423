"""`tieout runs`: make reconciliation runs of any pack, list them, take a report away; over the API of alerts."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tieout.api import AlertsApi

PATH = "/v1/runs"
PAGE_ROWS = 100

HELP = """Runs of a period and their reports, of every pack. Needs TIEOUT_API_URL (default http://127.0.0.1:8081) and
TIEOUT_API_KEY."""
TRIGGER_EXAMPLE = """Examples:

    tieout runs trigger 2026-11

    tieout runs trigger 2026-11-01 2026-11-08 --pack stack
"""
NOW_EXAMPLE = """Example:

    tieout runs now --pack stack
"""
LIST_EXAMPLE = """Examples:

    tieout runs list --limit 5

    tieout runs list --pack stack --type hourly
"""
REPORT_EXAMPLE = """Examples:

    tieout runs report latest

    tieout runs report latest --pack stack --as html -o report.html

    tieout runs report 0b5f7f0e-6e0f-4d0a-9a55-0a6d1a1f6f10 --as csv -o items.csv
"""
PACK = Annotated[str | None, typer.Option(help="Only of this pack.", show_default="every pack")]
Form = Literal["markdown", "md", "json", "html", "csv"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    runs = typer.Typer(help=HELP, no_args_is_help=True)
    runs.command(epilog=TRIGGER_EXAMPLE)(trigger)
    runs.command(epilog=NOW_EXAMPLE)(now)
    runs.command(name="list", epilog=LIST_EXAMPLE)(list_)
    runs.command(epilog=REPORT_EXAMPLE)(report)
    app.add_typer(runs, name="runs")


def trigger(
    period: Annotated[str, typer.Argument(help="A month (2026-11), a day (2026-11-20), or the first day of a range.")],
    end: Annotated[
        str | None, typer.Argument(help="Of a range: the first day that no longer belongs to it.", show_default=False)
    ] = None,
    pack: Annotated[str, typer.Option(help="Whose rules.")] = "billing",
    as_json: Annotated[bool, typer.Option("--json", help="Print the run as JSON.")] = False,
) -> None:
    """Run a period, or find the run there is. A provisional run completes by itself."""
    wish: Any = period if end is None else {"start": period, "end": end}
    _make({"period": wish, "pack": pack}, as_json=as_json)


def now(
    pack: Annotated[str, typer.Option(help="Whose rules.")] = "stack",
    as_json: Annotated[bool, typer.Option("--json", help="Print the run as JSON.")] = False,
) -> None:
    """Run the 24 hours up to now."""
    _make({"pack": pack}, as_json=as_json)


def _make(wish: dict[str, Any], *, as_json: bool) -> None:
    from tieout.api import from_environment

    run = from_environment().post(PATH, wish)
    if as_json:
        print(json.dumps(run), flush=True)
        return
    for line in _shown(run):
        print(line, flush=True)


def list_(
    limit: Annotated[int, typer.Option(help="Runs shown at most, newest first.", min=1)] = 20,
    pack: PACK = None,
    run_type: Annotated[
        Literal["hourly", "daily", "period", "manual"] | None,
        typer.Option("--type", help="Only of this type.", show_default="every type"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """List runs, newest first."""
    from tieout.api import from_environment

    found = _runs(from_environment(), limit, pack, run_type)
    if as_json:
        for run in found:
            print(json.dumps(run), flush=True)
        return
    rows = [_row(run) for run in found]
    if not rows:
        print("no runs yet: make one with `tieout runs trigger 2026-11`", flush=True)
        return
    header = ["RUN", "PACK", "TYPE", "PERIOD", "STATE", "CHECKS", "MATCHED", "OPEN", "TOOK", "MADE"]
    for line in _table([header, *rows]):
        print(line, flush=True)


def report(
    run: Annotated[str, typer.Argument(help="Id of the run, or `latest`.")],
    form: Annotated[
        Form,
        typer.Option(
            "--as", "--format", help="Markdown; JSON with every figure; HTML to print; CSV of the items counted."
        ),
    ] = "markdown",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write; whole or not at all.", show_default="stdout")
    ] = None,
    pack: PACK = None,
) -> None:
    """Print the report of a run, or write it to a file."""
    from urllib.parse import quote

    from tieout.api import from_environment

    api = from_environment()
    run_id = _latest(api, pack) if run == "latest" else run
    path = f"{PATH}/{quote(run_id, safe='')}/report"
    if form == "json":
        _write((json.dumps(api.get(path)["reportJson"]) + "\n").encode(), output)
        return
    if output is None:
        api.download(path, {"format": form}, sys.stdout.buffer)
        sys.stdout.flush()
        return
    _download(api, path, form, output)


def _write(content: bytes, output: Path | None) -> None:
    if output is None:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return
    from shared.errors import UsageError

    part = output.with_name(f".{output.name}.part")
    try:
        part.write_bytes(content)
        part.replace(output)
    except OSError as error:
        raise UsageError(f"{output}: cannot be written: {error.strerror}") from None


def _download(api: "AlertsApi", path: str, form: str, output: Path) -> None:
    """Write the file under another name first: one that breaks off is no report."""
    from shared.errors import UsageError

    part = output.with_name(f".{output.name}.part")
    try:
        with part.open("wb") as target:
            api.download(path, {"format": form}, target)
        part.replace(output)
    except OSError as error:
        raise UsageError(f"{output}: cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)


def _latest(api: "AlertsApi", pack: str | None) -> str:
    from shared.errors import UsageError

    for run in _runs(api, 1, pack, None):
        return str(run["id"])
    named = f" --pack {pack}" if pack else ""
    raise UsageError(f"there are no runs yet: make one with `tieout runs trigger 2026-11{named}`")


def _runs(api: "AlertsApi", limit: int, pack: str | None, run_type: str | None) -> "Iterator[dict[str, Any]]":
    cursor: str | None = None
    left = limit
    chosen = ({"pack": pack} if pack else {}) | ({"run_type": run_type} if run_type else {})
    while left > 0:
        query = {"limit": str(min(left, PAGE_ROWS))} | chosen | ({"cursor": cursor} if cursor else {})
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
    rules, summary = _rules(run), run["summary"] or {}
    first = next(iter(rules.values()), None)
    matched = f"{first['matched_percent']} %" if first and first["matched_percent"] else "-"
    more = f" +{len(rules) - 1}" if len(rules) > 1 else ""
    opened = "/".join(str(figures["open"]) for figures in rules.values()) or "-"
    checks = f"{summary['checks_passed']}/{summary['checks_total']}" if summary.get("checks_total") else "-"
    made = run["created_at"][:16] + "Z"
    return [
        run["id"], run["pack"], run["run_type"], _period(run), run["stage"], checks, matched + more, opened, _took(run), made,
    ]  # fmt: skip


def _took(run: dict[str, Any]) -> str:
    return "-" if run["duration_ms"] is None else f"{run['duration_ms'] / 1000:.1f} s"


def _shown(run: dict[str, Any]) -> "Iterable[str]":
    yield f"run {run['id']}: {run['pack']} {_period(run)} ({run['period']['zone']}), {run['stage']} in {_took(run)}"
    if run["error"]:
        yield f"  {run['error']}"
    for check in (run["summary"] or {}).get("checks", []):
        if not check["passed"]:
            yield f"  check {check['check_type']}: {check['outcome']}{': ' + check['error'] if check['error'] else ''}"
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

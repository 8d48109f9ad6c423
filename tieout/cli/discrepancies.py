"""`tieout discrepancies`: list, look, triage and export, over the API of alerts."""

import json
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from tieout.api import AlertsApi

PATH = "/v1/discrepancies"
PAGE_ROWS = 200

HELP = "Discrepancies and their triage. Needs TIEOUT_API_URL (default http://127.0.0.1:8081) and TIEOUT_API_KEY."
LIST_EXAMPLE = """Examples:

    tieout discrepancies list --status open --severity high

    tieout discrepancies list --key pay_9 --json
"""
RESOLVE_EXAMPLE = """Example:

    tieout discrepancies resolve 5b6c3a52-6d53-5d0e-a4f1-0d1b6c1c8f0e --reason accepted --notes "bank fee"
"""
EXPORT_EXAMPLE = """Examples:

    tieout discrepancies export --status open > open.csv

    tieout discrepancies export --format jsonl --since 2026-11-01T00:00:00Z > november.jsonl
"""
EXPORT_FIELDS = (
    "id", "status", "state", "type", "severity", "rule", "key", "expected", "actual", "difference", "currency",
    "raised_at", "resolved_at", "resolution", "assignee", "reason", "explanation",
)  # fmt: skip

Id = Annotated[str, typer.Argument(help="Id of the discrepancy.", metavar="ID")]
StatusOption = Annotated[
    Literal["open", "acknowledged", "resolved"] | None, typer.Option(help="What people made of it.")
]
StateOption = Annotated[Literal["raised", "resolved"] | None, typer.Option(help="Whether it is true now.")]
SeverityOption = Annotated[Literal["low", "medium", "high", "critical"] | None, typer.Option(help="How bad it is.")]
TypeOption = Annotated[str | None, typer.Option("--type", help="Such as AmountMismatch.")]
RuleOption = Annotated[str | None, typer.Option(help="Such as billing.payments.")]
KeyOption = Annotated[str | None, typer.Option(help="The match key; several fields as a JSON list.")]
SinceOption = Annotated[str | None, typer.Option(help="Raised first at or after this RFC 3339 time.")]
ClusterOption = Annotated[str | None, typer.Option(help="Id of a cluster: only what belongs to it.")]
ShadowOption = Annotated[
    Literal["false", "true", "any"], typer.Option(help="Of rules that only watch: leave out, only those, or any.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help=HELP, no_args_is_help=True)
    group.command(name="list", epilog=LIST_EXAMPLE)(list_)
    group.command(epilog="Example: tieout discrepancies show 5b6c3a52-6d53-5d0e-a4f1-0d1b6c1c8f0e")(show)
    group.command(epilog="Example: tieout discrepancies ack 5b6c3a52-6d53-5d0e-a4f1-0d1b6c1c8f0e")(ack)
    group.command(epilog="Example: tieout discrepancies assign 5b6c3a52-6d53-5d0e-a4f1-0d1b6c1c8f0e ann")(assign)
    group.command(epilog='Example: tieout discrepancies note 5b6c3a52-6d53-5d0e-a4f1-0d1b6c1c8f0e "asked Stripe"')(note)
    group.command(epilog=RESOLVE_EXAMPLE)(resolve)
    group.command(epilog=EXPORT_EXAMPLE)(export)
    app.add_typer(group, name="discrepancies")


def list_(
    status: StatusOption = None,
    state: StateOption = None,
    severity: SeverityOption = None,
    type_: TypeOption = None,
    rule: RuleOption = None,
    key: KeyOption = None,
    since: SinceOption = None,
    cluster: ClusterOption = None,
    shadow: ShadowOption = "false",
    limit: Annotated[int, typer.Option(help="Rows shown at most.", min=1)] = 50,
    as_json: JsonOption = False,
    fail_on: Annotated[
        Literal["low", "medium", "high", "critical"] | None,
        typer.Option(help="Exit 1 where one of those listed is open and at least this severe."),
    ] = None,
) -> None:
    """List discrepancies, those raised last first."""
    from tieout.api import from_environment

    wish = _query(
        status=status,
        state=state,
        severity=severity,
        type=type_,
        rule=rule,
        key=key,
        since=since,
        cluster=cluster,
        shadow=shadow,
    )
    found = list(_all(from_environment(), wish, limit))
    if as_json:
        _print_lines(json.dumps(row) for row in found)
    elif sys.stdout.isatty():
        _print_table(found)
    else:
        _print_lines(_line(row) for row in found)
    if not as_json:
        _print_lines(_clusters(found))
    if not found and not as_json:
        typer.echo("none", err=True)
    if fail_on is not None and _any_at_least(found, fail_on):
        raise typer.Exit(1)


def show(id_: Id, as_json: JsonOption = False) -> None:
    """Show one with both sides, its history and who did what."""
    from tieout.api import from_environment

    found = from_environment().get(_path(id_))
    if as_json:
        _print_lines([json.dumps(found)])
        return
    _print_lines(_shown(found))


def ack(id_: Id) -> None:
    """Say that somebody looks into it."""
    from tieout.api import from_environment

    _done(from_environment().patch(f"{_path(id_)}/acknowledge", {}))


def assign(id_: Id, assignee: Annotated[str, typer.Argument(help="Who is to look into it.")]) -> None:
    """Say who is to look into it."""
    from tieout.api import from_environment

    _done(from_environment().patch(f"{_path(id_)}/assign", {"assignee": assignee}))


def note(id_: Id, text: Annotated[str, typer.Argument(help="The remark.")]) -> None:
    """Add a remark to its log."""
    from tieout.api import from_environment

    _done(from_environment().post(f"{_path(id_)}/notes", {"text": text}))


def resolve(
    id_: Id,
    reason: Annotated[
        Literal["accepted", "written_off", "timing", "adjusted", "false_positive"],
        typer.Option(help="Why nothing more is to be done."),
    ],
    notes: Annotated[str | None, typer.Option(help="In your own words.")] = None,
) -> None:
    """Decide that nothing more is to be done; it reopens when its type, amounts or currency change."""
    from tieout.api import from_environment

    body = {"reason": reason} | ({"notes": notes} if notes else {})
    _done(from_environment().patch(f"{_path(id_)}/resolve", body))


def export(
    format_: Annotated[
        Literal["csv", "jsonl"], typer.Option("--format", help="CSV for sheets, JSONL for programs.")
    ] = "csv",
    status: StatusOption = None,
    state: StateOption = None,
    severity: SeverityOption = None,
    type_: TypeOption = None,
    rule: RuleOption = None,
    key: KeyOption = None,
    since: SinceOption = None,
) -> None:
    """Write all that match to standard output, page by page."""
    import csv

    from tieout.api import from_environment

    wish = _query(status=status, state=state, severity=severity, type=type_, rule=rule, key=key, since=since)
    rows = _all(from_environment(), wish)
    if format_ == "jsonl":
        _print_lines(json.dumps(row) for row in rows)
        return
    writer = csv.DictWriter(sys.stdout, EXPORT_FIELDS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(row[name]) for name in EXPORT_FIELDS})
    sys.stdout.flush()


def _query(**wanted: str | None) -> dict[str, str]:
    return {name: value for name, value in wanted.items() if value is not None}


def _path(id_: str) -> str:
    from urllib.parse import quote

    return f"{PATH}/{quote(id_, safe='')}"


def _all(api: "AlertsApi", wish: dict[str, str], limit: int | None = None) -> Iterator[dict[str, Any]]:
    cursor: str | None = None
    left = limit
    while left is None or left > 0:
        rows = PAGE_ROWS if left is None else min(left, PAGE_ROWS)
        page = api.get(PATH, wish | {"limit": str(rows)} | ({"cursor": cursor} if cursor else {}))
        yield from page["data"]
        left = None if left is None else left - len(page["data"])
        cursor = page["next_cursor"]
        if cursor is None:
            return


def _cell(value: Any) -> str:
    """A cell that a sheet does not run: a text that begins like a formula gets an apostrophe before it."""
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    is_number = text.lstrip("-").replace(".", "", 1).isdigit()
    return f"'{text}" if text[:1] in {"=", "+", "-", "@", "\t", "\r"} and not is_number else text


def _key(row: dict[str, Any]) -> str:
    return row["key"] if isinstance(row["key"], str) else " / ".join(row["key"])


def _money(row: dict[str, Any]) -> str:
    if row["difference"] is not None:
        return f"{row['difference']} {row['currency'] or ''}".rstrip()
    return f"{row['expected'] or '-'} / {row['actual'] or '-'}"


def _line(row: dict[str, Any]) -> str:
    return "  ".join(
        [row["id"], row["status"], row["severity"], row["type"], row["rule"], _key(row), _money(row), row["raised_at"]]
        + (["shadow"] if row.get("shadow") else [])
    )


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    colours = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "green"}
    table = Table(box=None, header_style="bold")
    for title in ("ID", "STATUS", "SEVERITY", "TYPE", "KEY", "DIFFERENCE", "RAISED"):
        table.add_column(title, justify="right" if title == "DIFFERENCE" else "left", overflow="fold")
    for row in rows:
        table.add_row(
            row["id"], row["status"], f"[{colours[row['severity']]}]{row['severity']}[/]", row["type"], _key(row),
            _money(row), row["raised_at"][:19] + "Z",
        )  # fmt: skip
    Console().print(table)


def _shown(found: dict[str, Any]) -> Iterator[str]:
    yield f"{found['id']}  {found['type']}  {found['severity']}  {found['status']} ({found['state']})"
    yield f"  {found['explanation']}"
    for said in ("near_miss", "cluster"):
        if found.get(said):
            yield f"  {found[said]['sentence']}"
    yield f"  rule {found['rule']}, key {_key(found)}, raised {found['raised_at']}, revision {found['revision']}"
    yield f"  expected {found['expected'] or '-'}, actual {found['actual'] or '-'}, difference {_money(found)}"
    for side, record in found["sides"].items():
        yield f"  {side}: {_evidence(record)}"
    if found["assignee"]:
        yield f"  assigned to {found['assignee']}"
    for action in found["actions"]:
        about = " ".join(str(action[name]) for name in ("assignee", "reason", "notes") if action[name])
        yield f"  {action['at']}  {action['actor']}: {action['action']} {about}".rstrip()
    for entry in found["adjustments"]:
        yield f"  {entry['created_at']}  adjustment {entry['amount']} {entry['currency']} on {entry['source']}"


def _clusters(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Say of each cluster among the rows what its members share."""
    for cluster in {row["cluster"]["id"]: row["cluster"] for row in rows if row.get("cluster")}.values():
        yield f"cluster {cluster['id']}  {cluster['sentence']}"


def _evidence(record: dict[str, Any] | None) -> str:
    if record is None:
        return "no record"
    if record.get("count") is not None:
        return f"{record['count']} records, {record['amount']} {record['currency']}"
    return f"{record['source']} {record['record']}: {record['amount']} {record['currency']}, {record['status'] or '-'}"


def _done(found: dict[str, Any]) -> None:
    who = f", assigned to {found['assignee']}" if found["assignee"] else ""
    _print_lines([f"{found['id']} is {found['status']}{who}"])


def _any_at_least(rows: Iterable[dict[str, Any]], severity: str) -> bool:
    from shared.contracts.discrepancy import SEVERITIES

    order: dict[str, int] = {name: place for place, name in enumerate(SEVERITIES)}
    return any(row["status"] != "resolved" and order[row["severity"]] >= order[severity] for row in rows)


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, flush=True)

"""`tieout budget`: reconcile what a provider's console says with what was tracked; over the API of alerts."""

import json
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tieout.budget_consoles import Console
    from tieout.budget_sqlite import Step

PAGE_ROWS = 100
PICTURE_ROWS_MAX = 400
"""Rows below a picture: a year of a daily job."""

HELP = """Budgets: tracked usage + plugs = what was spent, to the cent. Needs TIEOUT_API_URL (default http://127.0.0.1:8081) and TIEOUT_API_KEY."""
CREATE_EXAMPLE = """Example:

    tieout budget create claude --provider anthropic --total 24.96 --plug-warn 1.00 --plug-critical 5.00
"""
RECONCILE_EXAMPLE = """Examples:

    tieout budget reconcile --remaining 19.54

    tieout budget reconcile --remaining 29.54 --total 34.96 --reason "topped up, console read on Monday"
"""
ODOMETER_EXAMPLE = """Examples:

    tieout budget odometer groq

    tieout budget odometer groq --read 0.42

    tieout budget odometer groq --read 0.80 --month 2025-08
"""
TRACK_EXAMPLE = """Example:

    tieout budget track session-17 0.11
"""

DAILY_EXAMPLE = """Example, from cron:

    tieout budget daily consoles.yaml

with consoles.yaml such as

    consoles: {claude: {file: balance.json, field: remaining}, other: {url: "https://…", field: data.balance, token_variable: OTHER_TOKEN}}
"""

PICTURE_EXAMPLE = """Examples:

    tieout budget picture

    tieout budget picture --budget claude --output claude.html
"""

IMPORT_EXAMPLE = """Examples:

    tieout budget import-sqlite usage.db --dry-run

    tieout budget import-sqlite usage.db --budget claude --provider anthropic
"""

BudgetOption = Annotated[
    str | None,
    typer.Option("--budget", help="Which budget; the organisation's first where left out.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as JSON, numbers with their exact text.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    budget = typer.Typer(help=HELP, no_args_is_help=True)
    budget.command(epilog=CREATE_EXAMPLE)(create)
    budget.command(epilog=RECONCILE_EXAMPLE)(reconcile)
    budget.command()(status)
    budget.command()(history)
    budget.command(epilog=ODOMETER_EXAMPLE)(odometer)
    budget.command(epilog=PICTURE_EXAMPLE)(picture)
    budget.command()(unified)
    budget.command(epilog=DAILY_EXAMPLE)(daily)
    budget.command(name="import-sqlite", epilog=IMPORT_EXAMPLE)(import_sqlite)
    budget.command(epilog=TRACK_EXAMPLE)(track)
    app.add_typer(budget, name="budget")


def create(
    name: Annotated[str, typer.Argument(help="Its name, such as claude.")],
    provider: Annotated[str, typer.Option(help="Who is paid, such as anthropic.")],
    total: Annotated[str, typer.Option(help="The whole budget, such as 24.96.")],
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = "USD",
    plug_warn: Annotated[
        str | None, typer.Option(help="A plug of this size is pointed out.", show_default=False)
    ] = None,
    plug_critical: Annotated[
        str | None, typer.Option(help="A plug of this size is critical.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a budget, or change the thresholds of one there is."""
    from urllib.parse import quote

    body = {
        "provider": provider,
        "total_budget": _amount("--total", total),
        "currency": currency,
        "plug_warn": _amount("--plug-warn", plug_warn),
        "plug_critical": _amount("--plug-critical", plug_critical),
    }
    _tell(_send("PUT", f"/budget/budgets/{quote(name, safe='')}", body), _status_lines, as_json)


def reconcile(
    remaining: Annotated[str, typer.Option(help="What the provider's console says is left, such as 19.54.")],
    total: Annotated[
        str | None, typer.Option(help="The new total, where it changed: a row of its own.", show_default=False)
    ] = None,
    adjustment: Annotated[
        str | None,
        typer.Option(help="What you make it: refused with the expected figure if it is not that.", show_default=False),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; it stands in the history.")] = "anthropic-console-sync",
    budget: BudgetOption = None,
    key: Annotated[
        str | None,
        typer.Option(help="Idempotency key: the same call twice is recorded once.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Record what remains; the difference to what was tracked becomes a plug with a reason."""
    body = {
        "remaining_budget": _amount("--remaining", remaining),
        "total_budget": _amount("--total", total),
        "manual_adjustment": _amount("--adjustment", adjustment),
        "adjustment_reason": reason,
        "budget": budget,
        "idempotency_key": key,
    }
    _tell(_send("POST", "/budget/reconcile", body), _reconciled_lines, as_json)


def status(
    budget: BudgetOption = None,
    days: Annotated[int, typer.Option(help="How far back the recommended actions look.", min=1)] = 7,
    as_json: JsonOption = False,
) -> None:
    """Show how budgets stand, how well the tracking does, and what to do."""
    named = {} if budget is None else {"budget": budget}
    shown = [_get("/budget/status", named)] if named else _get("/budget/budgets", {})["data"]
    health = _get("/budget/reconciliation/status", named | {"days": str(days)})
    _tell({"budgets": shown, "reconciliation": health}, _overview_lines, as_json)


def history(
    budget: Annotated[
        str | None, typer.Option("--budget", help="Which budget; all where left out.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(help="Rows shown at most, newest first.", min=1)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """List what was recorded, by whom and why."""
    rows = list(_rows(budget, limit))
    if as_json:
        for row in rows:
            print(_exact(row), flush=True)
        return
    if not rows:
        print("nothing recorded yet: tieout budget reconcile --remaining 19.54", flush=True)
        return
    table = [["ID", "DATE", "BUDGET", "BEFORE", "ADJUSTED", "AFTER", "TRACKED", "PLUG", "REASON", "BY"]]
    table += [_row(row) for row in rows]
    widths = [max(len(line[place]) for line in table) for place in range(len(table[0]))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), flush=True)


def odometer(
    provider: Annotated[str, typer.Argument(help="Whose counter.")] = "groq",
    read: Annotated[str | None, typer.Option(help="Enter what it shows.", show_default=False)] = None,
    month: Annotated[
        str | None, typer.Option(help="What is entered is this month's final figure: 2025-08.", show_default=False)
    ] = None,
    currency: Annotated[str, typer.Option(help="Of what is entered.")] = "USD",
    as_json: JsonOption = False,
) -> None:
    """Show a provider's odometer, or enter what it shows."""
    from shared.errors import UsageError

    if read is None and month is not None:
        raise UsageError("--month: say which figure the month ended with, too: --read 0.80 --month 2025-08")
    if read is None:
        _tell(_get("/budget/odometer", {"provider": provider}), _odometer_lines, as_json)
        return
    body = {"provider": provider, "reading": _amount("--read", read), "month": month, "currency": currency}
    _tell(_send("POST", "/budget/odometer", body), _odometer_lines, as_json)


def picture(
    budget: BudgetOption = None,
    output: Annotated[Path, typer.Option(help="Where to: an SVG, or a page with its rows if it ends in .html.")] = Path(
        "budget.svg"
    ),
) -> None:
    """Draw a budget over time: tracked usage and plugs, adding up to what was spent."""
    from shared.errors import UsageError
    from tieout.api import from_environment
    from tieout.budget_page import page

    if output.suffix not in {".svg", ".html"}:
        raise UsageError(f"--output: {output} ends neither in .svg nor in .html")
    named = {} if budget is None else {"budget": budget}
    status = _get("/budget/status", named)
    drawn = from_environment().get_text("/budget/picture", {"budget": status["budget"]}, accept="image/svg+xml")
    if output.suffix == ".html":
        drawn = page(status["budget"], drawn, list(_rows(status["budget"], PICTURE_ROWS_MAX)))
    try:
        output.write_text(drawn, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{output}: {error.strerror}") from None
    print(f"wrote {output}", flush=True)


def unified(as_json: JsonOption = False) -> None:
    """Add up the cost over all providers, per currency."""
    _tell(_get("/budget/unified", {}), _unified_lines, as_json)


def track(
    id_: Annotated[str, typer.Argument(metavar="ID", help="The tracker's own id: the same twice is one usage.")],
    amount: Annotated[str, typer.Argument(help="What was used, such as 0.11.")],
    budget: BudgetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add usage that was tracked."""
    body = {"budget": budget, "usage": [{"id": id_, "amount": _amount("amount", amount)}]}
    _tell(_send("POST", "/budget/usage", body), lambda answer: _status_lines(answer["budget_status"]), as_json)


def daily(
    consoles: Annotated[Path, typer.Argument(help="YAML: where each budget's balance is read.")],
) -> None:
    """Hold every console's balance against what was tracked; one JSON result a line. Exit 3 if a provider failed."""
    from tieout.budget_consoles import read_consoles

    results = [_checked(budget, console) for budget, console in read_consoles(consoles).items()]
    for result in results:
        print(_exact(result), flush=True)
    if not all(result["success"] for result in results):
        raise typer.Exit(3)


def _checked(budget: str, console: "Console") -> dict[str, Any]:
    """One provider's result; its failure stops no other."""
    import msgspec

    from services.alerts.domain.budget import DAILY_CHECK
    from services.alerts.domain.budget_answers import ReconciliationResult
    from shared.errors import TieoutError
    from shared.money import exact_sum
    from tieout.budget_consoles import ConsoleAway, balance

    provider = f"{budget}-budget"
    try:
        body = {"remaining_budget": format(balance(console), "f"), "adjustment_reason": DAILY_CHECK, "budget": budget}
        done = _send("POST", "/budget/reconcile", body)
    except (ConsoleAway, TieoutError) as error:
        result = ReconciliationResult(provider=provider, success=False, error=str(error))
    else:
        moved = exact_sum(row["manual_adjustment"] for row in done["recorded"])
        result = ReconciliationResult(provider=provider, success=True, manual_adjustment=moved)
    return msgspec.structs.asdict(result)


def import_sqlite(
    file: Annotated[Path, typer.Argument(help="The database; it is only read.")],
    budget: Annotated[str, typer.Option(help="The budget to make of it.")] = "claude",
    provider: Annotated[str, typer.Option(help="Who is paid.")] = "anthropic",
    odometer_of: Annotated[str, typer.Option("--odometer", help="Whose odometer readings it holds.")] = "groq",
    currency: Annotated[str, typer.Option(help="Of its amounts.")] = "USD",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it holds and whether it ties out.")] = False,
) -> None:
    """Bring a budget over from SQLite, say whether it ties out before and after, and name what does not."""
    from urllib.parse import quote

    from tieout.budget_sqlite import read_sqlite, steps

    old = read_sqlite(file)
    print(
        f"before: used {old.used} of {old.total} {currency} = {old.tracked} tracked + {old.plugged} plugs", flush=True
    )
    if old.unexplained:
        print(
            f"  {old.unexplained} {currency} of it are explained by no row: they become a plug of their own", flush=True
        )
    if dry_run:
        return
    _send(
        "PUT",
        f"/budget/budgets/{quote(budget, safe='')}",
        {"provider": provider, "total_budget": str(old.total), "currency": currency},
    )
    for step in steps(old):
        _bring(budget, step)
    for month, usage in old.months.items():
        _send(
            "POST",
            "/budget/odometer",
            {"provider": odometer_of, "reading": str(usage), "month": month, "currency": currency},
        )
    print("after:", flush=True)
    _tell(_get("/budget/status", {"budget": budget}), _status_lines, as_json=False)


def _bring(budget: str, step: "Step") -> None:
    """One old row; its ids make a second import add nothing."""
    name = f"import:{step.id}"
    if step.tracked:
        usage = {"id": name, "amount": format(step.tracked, "f")}
        _send("POST", "/budget/usage", {"budget": budget, "usage": [usage]})
    body = {
        "budget": budget,
        "current_budget": format(step.remaining, "f"),
        "manual_adjustment": format(step.adjustment, "f"),
        "adjustment_reason": step.reason,
        "idempotency_key": name,
    }
    _send("POST", "/budget/reconciliation/manual", body)


def _amount(option: str, text: str | None) -> str | None:
    """Check an amount here, so that a slip of the finger needs no service to be found."""
    from shared.errors import UsageError
    from shared.money import AmountError, parse_amount

    if text is None:
        return None
    try:
        parse_amount(text)
    except AmountError as error:
        raise UsageError(f"{option}: {error}") from None
    return text


def _get(path: str, query: "Mapping[str, str]") -> Any:
    from tieout.api import from_environment

    return json.loads(from_environment().get_text(path, query, accept="application/json"), parse_float=Decimal)


def _send(method: str, path: str, body: "Mapping[str, Any]") -> Any:
    from tieout.api import from_environment

    given = {name: value for name, value in body.items() if value is not None}
    return json.loads(from_environment().send_text(method, path, json.dumps(given)), parse_float=Decimal)


def _rows(budget: str | None, limit: int) -> "Iterator[dict[str, Any]]":
    named = {} if budget is None else {"budget": budget}
    cursor: str | None = None
    left = limit
    while left > 0:
        wish = {"limit": str(min(left, PAGE_ROWS))} | ({} if cursor is None else {"cursor": cursor})
        page = _get("/budget/reconciliation/history", named | wish)
        yield from page["data"]
        left -= len(page["data"])
        cursor = page["next_cursor"]
        if cursor is None:
            return


def _exact(value: Any) -> str:
    """JSON whose numbers have the text that they came with."""
    import msgspec

    def written(inner: Any) -> Any:
        if isinstance(inner, Decimal):
            return msgspec.Raw(format(inner, "f").encode())
        if isinstance(inner, dict):
            return {name: written(more) for name, more in inner.items()}
        return [written(more) for more in inner] if isinstance(inner, list) else inner

    return msgspec.json.encode(written(value)).decode()


def _tell(answer: Any, lines: "Any", as_json: bool) -> None:
    for line in [_exact(answer)] if as_json else lines(answer):
        print(line, flush=True)


def _status_lines(status: "Mapping[str, Any]") -> "Iterable[str]":
    currency = status["currency"]
    yield (
        f"{status['budget']} ({status['provider']}): {status['remaining_budget']} {currency} remain of "
        f"{status['total_budget']} {currency}"
    )
    yield (
        f"  used {status['used_budget']} = {status['api_usage_tracked']} tracked + {status['manual_plug_amount']} plugs"
        f"{'' if status['ties_out'] else ': DOES NOT TIE OUT'}"
        f"{'' if not status['untaken_usage'] else ', ' + str(status['untaken_usage']) + ' of it not yet reconciled'}"
    )


def _reconciled_lines(answer: "Mapping[str, Any]") -> "Iterable[str]":
    if answer["repeated"]:
        yield "this call was recorded before:"
    elif not answer["recorded"]:
        yield "nothing differs, nothing recorded"
    for row in answer["recorded"]:
        yield (
            f"recorded {row['id']}: {row['budget']} {row['budget_before']} {row['manual_adjustment']:+} = "
            f"{row['budget_after']} {row['currency']}, tracked {row['api_usage_tracked']}, "
            f"plug {row['manual_plug_amount']} ({row['adjustment_reason']})"
        )
    yield from _status_lines(answer["updated_budget_status"])


def _overview_lines(answer: "Mapping[str, Any]") -> "Iterable[str]":
    for one in answer["budgets"]:
        yield from _status_lines(one)
    found = answer["reconciliation"]
    plugs = ", ".join(f"{amount} {currency}" for currency, amount in found["total_plugs"].items()) or "none"
    yield f"last {found['days']} days: plugs {plugs}, tracking {found['tracking_health']}, trend {found['plug_trend']}"
    for action in found["recommended_actions"]:
        yield f"  - {action}"


def _odometer_lines(found: "Mapping[str, Any]") -> "Iterable[str]":
    currency = found["currency"]
    yield (
        f"{found['provider']}: {found['current_usage']} {currency} in {found['current_month']}, "
        f"{found['days_until_reset']} days until its reset"
    )
    for month in found["historic_months"]:
        yield f"  {month['month']}  {month['usage']} {currency}{'  partial' if month['partial'] else ''}"
    yield f"  all    {found['total_usage']} {currency}"


def _unified_lines(found: "Mapping[str, Any]") -> "Iterable[str]":
    for cost in found["providers"]:
        left = "" if cost["remaining"] is None else f", {cost['remaining']} of {cost['total']} remain"
        yield f"{cost['provider']}  {cost['budget'] or 'odometer'}  spent {cost['spent']} {cost['currency']}{left}"
    for currency, amount in found["total_spent"].items():
        yield f"all  spent {amount} {currency}"


def _row(row: "Mapping[str, Any]") -> list[str]:
    amounts = ("budget_before", "manual_adjustment", "budget_after", "api_usage_tracked", "manual_plug_amount")
    return [
        str(row["id"]),
        row["reconciliation_date"],
        row["budget"],
        *(str(row[name]) for name in amounts),
        row["adjustment_reason"],
        row["actor"],
    ]

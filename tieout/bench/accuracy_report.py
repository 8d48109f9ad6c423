"""`tieout bench accuracy`: both halves, with keys and without, as one result and as tables."""

from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from shared.errors import UsageError
from tieout.bench import accuracy, keyed_accuracy
from tieout.bench.harness import machine_facts, versions_used
from tieout.bench.labelled_payments import RATES


def measure(
    *, movements: int | None, invoices: int | None, seed: int, rates: list[str], curves: bool
) -> dict[str, Any]:
    """Run what has a size; return the outcome as plain data."""
    result: dict[str, Any] = {"benchmark": "accuracy", "versions": versions_used(), "machine": machine_facts()}
    if movements is not None:
        result["keyed"] = asdict(keyed_accuracy.bench(movements, seed, RATES | _read(rates), curves=curves))
    if invoices is not None:
        result["statement"] = asdict(accuracy.bench(invoices, seed))
    return result


def _read(rates: list[str]) -> dict[str, float]:
    read = {}
    for text in rates:
        name, _, share = text.partition("=")
        try:
            read[name] = float(share)
        except ValueError:
            raise UsageError(f"--rate {text!r}: write NAME=SHARE, e.g. late=0.1") from None
    return read


def show_accuracy(result: dict[str, Any]) -> None:
    """Print tables for people."""
    console = Console()
    if "keyed" in result:
        _show_keyed(console, result["keyed"])
    if "statement" in result:
        _show_statement(console, result["statement"])


def _show_keyed(console: Console, keyed: dict[str, Any]) -> None:
    console.print(
        f"With a key: {keyed['movements']:,} movements, {keyed['events']:,} events, {keyed['seconds']} s. "
        f"Precision {keyed['precision']}, recall {keyed['recall']}. Raised and taken back: "
        f"{keyed['taken_back_right']:,} of {keyed['taken_back_expected']:,} expected, {keyed['taken_back_more']:,} more."
    )
    names = ("type", "expected", "found", "precision", "recall", "detected_s_p50")
    _table(console, names, keyed["types"])
    console.print("What was planted, and what of it was open at the end:")
    rows = [
        {
            "planted": label,
            "movements": sum(counts.values()),
            "open at the end": ", ".join(f"{type_} {count:,}" for type_, count in counts.items()),
        }
        for label, counts in keyed["confusion"].items()
    ]
    _table(console, ("planted", "movements", "open at the end"), rows)
    for title, costs in (("deadline", keyed["deadlines"]), ("tolerance", keyed["tolerances"])):
        if costs:
            console.print(f"What another {title} costs:")
            _table(console, tuple(costs[0]), costs)


def _show_statement(console: Console, statement: dict[str, Any]) -> None:
    console.print(
        f"Without a key: {statement['invoices']:,} invoices, {statement['lines']:,} lines, {statement['seconds']} s "
        f"({statement['cpu_seconds']} s of CPU). Precision {statement['precision']}, recall {statement['recall']}, "
        f"{statement['ambiguous']:,} left to a person."
    )
    wrong = statement["wrong_by_kind"]
    kinds = sorted({*statement["recall_by_kind"], *wrong})
    rows = [
        {"kind": one, "recall": statement["recall_by_kind"].get(one), "wrong pairs": wrong.get(one)} for one in kinds
    ]
    _table(console, ("kind", "recall", "wrong pairs"), rows)


def _table(console: Console, names: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    for at, name in enumerate(names):
        table.add_column(name.replace("_", " "), justify="right" if at else "left", no_wrap=not at)
    for row in rows:
        table.add_row(*("" if row.get(name) is None else str(row[name]) for name in names))
    console.print(table)

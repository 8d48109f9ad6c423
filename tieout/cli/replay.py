"""`tieout replay`: reconcile files offline."""

import gc
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer

from shared.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shared.contracts.discrepancy import Check, Discrepancy, Key
    from shared.rules.model import Rule
    from tieout.offline.explained import Explained
    from tieout.offline.lines import Place
    from tieout.offline.replay import Replayed


class Format(StrEnum):
    """How discrepancies are printed."""

    JSONL = "jsonl"
    TABLE = "table"


class FailOn(StrEnum):
    """From which severity open discrepancies make the exit code 1."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "replay",
        epilog="Example: tieout replay ledger.jsonl stripe.jsonl --rules rules.yaml --until 2026-11-21T00:00:00Z",
    )(replay)


def replay(
    events: Annotated[
        list[Path],
        typer.Argument(
            help="Event files, one JSON object a line; /dev/stdin reads what is piped in.", show_default=False
        ),
    ],
    rules: Annotated[list[Path], typer.Option(help="Rules file; may be given several times.", show_default=False)],
    until: Annotated[
        str | None, typer.Option(help="Advance log time to this time at the end, so that deadlines fire (RFC 3339).")
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="One JSON object a line, or a table.")] = Format.JSONL,
    all_revisions: Annotated[
        bool, typer.Option("--all-revisions", help="Print every revision, not only the last.")
    ] = False,
    checks: Annotated[
        bool, typer.Option("--checks", help="Print the last verdict on every reading as well, after the discrepancies.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 2 when a line was refused or became a dead letter.")
    ] = False,
    org: Annotated[str, typer.Option(help="Organisation of events that name none.")] = "default",
    fail_on: Annotated[
        FailOn | None, typer.Option(help="Exit 1 when a discrepancy of at least this severity is open at the end.")
    ] = None,
) -> None:
    """Reconcile event files with the same core as the services: no Kafka, no database.

    Prints the last revision of every discrepancy, with its near miss and cluster where there is one. Lines that cannot be used are named on stderr and the rest goes on.
    """
    from shared.rules.load import load_rules
    from shared.settings import load_settings
    from tieout.offline.explained import explain
    from tieout.offline.replay import replay as run
    from tieout.offline.settings import OfflineSettings

    packs: dict[str, Sequence[Rule]] = {}
    for path in rules:
        file = load_rules(path)
        if file.pack in packs:
            raise UsageError(f"{path}: the pack {file.pack!r} is already given by another --rules file; join them")
        packs[file.pack] = file.rules
    with _collected_rarely():
        with _Progress() as progress:
            replayed = run(
                events,
                packs,
                org=org,
                until=time_of(until),
                complain=progress.complain,
                step=progress.step,
                items=False,
                compiled=load_settings(OfflineSettings).compiled,
            )
        engine = replayed.engine
        last = engine.last_revisions()
        shown = engine.revisions if all_revisions else last
        explained = explain(engine.revisions)
        if format_ is Format.TABLE:
            _print_table(shown, explained, _nothing_found(replayed, until))
            if checks:
                _print_check_table(engine.last_checks())
            _print_summary(replayed)
        else:
            _print_explained(shown, explained)
            if checks:
                _print_lines(engine.last_checks())
        if strict and replayed.complaints:
            raise typer.Exit(2)
        if fail_on is not None and _is_open(last, fail_on):
            raise typer.Exit(1)


@contextmanager
def _collected_rarely() -> "Iterator[None]":
    """Results are kept to the end: to look through them for garbage as often as usual takes a tenth of a replay."""
    usual = gc.get_threshold()
    gc.set_threshold(20_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def time_of(text: str | None) -> datetime | None:
    """Read the value of `--until`."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise UsageError(f'--until: {text!r} is no RFC 3339 time with a zone; write e.g. "2026-11-21T00:00:00Z"')
    return time.astimezone(UTC)


def _is_open(discrepancies: "list[Discrepancy]", severity: FailOn) -> bool:
    from shared.contracts.discrepancy import SEVERITIES

    counted = SEVERITIES[SEVERITIES.index(severity.value) :]
    return any(one.state == "raised" and one.severity in counted for one in discrepancies)


def _print_lines(results: "Sequence[Discrepancy] | Sequence[Check]") -> None:
    import msgspec

    encode = msgspec.json.Encoder().encode
    for result in results:
        sys.stdout.buffer.write(encode(result) + b"\n")
    sys.stdout.buffer.flush()


def _print_explained(discrepancies: "list[Discrepancy]", explained: "Explained") -> None:
    for discrepancy in discrepancies:
        sys.stdout.buffer.write(explained.line(discrepancy) + b"\n")
    sys.stdout.buffer.flush()


def _nothing_found(replayed: "Replayed", until: str | None) -> str:
    if not replayed.events:
        return "No event was read, so nothing was compared."
    waits = "" if until else "; what is due later still waits (--until lets it fall due)"
    return f"No discrepancies up to {replayed.engine.log_time}{waits}."


def _print_table(discrepancies: "list[Discrepancy]", explained: "Explained", nothing: str) -> None:
    rows = []
    for one in discrepancies:
        amount = f"{one.difference} {one.currency or ''}".strip() if one.difference is not None else ""
        rows.append(((one.state, one.severity, one.type, _key_text(one.key), amount), explained.sentence(one)))
    if not rows:
        typer.echo(nothing)
        return
    _print_columns(("STATE", "SEVERITY", "TYPE", "KEY", "DIFFERENCE"), rows, figures={"DIFFERENCE"})
    for sentence in dict.fromkeys(cluster.sentence for cluster in explained.clusters.values()):
        typer.echo(f"cluster: {sentence}")


def _print_check_table(checks: "list[Check]") -> None:
    rows = []
    for one in checks:
        figures = [
            f"{text} {one.currency or ''}".strip() if text else ""
            for text in (one.expected, one.actual, one.difference)
        ]
        rule = f"{one.rule} {one.code or ''}".strip()
        cells = (one.result, rule, _key_text(one.key), f"{one.as_of:%Y-%m-%d %H:%M:%S}", *figures)
        rows.append((cells, one.reason or ""))
    if not rows:
        typer.echo("No readings were judged.")
        return
    headings = ("RESULT", "RULE", "KEY", "AS OF", "EXPECTED", "ACTUAL", "DIFFERENCE")
    _print_columns(headings, rows, figures={"EXPECTED", "ACTUAL", "DIFFERENCE"})


def _print_columns(
    headings: tuple[str, ...], rows: "Sequence[tuple[tuple[str, ...], str]]", *, figures: set[str]
) -> None:
    """Print aligned cells and below each row its sentence, which no narrow terminal presses into a column."""
    table = [headings, *(cells for cells, _ in rows)]
    widths = [max(len(cells[place]) for cells in table) for place in range(len(headings))]

    def line(cells: tuple[str, ...]) -> str:
        return "  ".join(
            text.rjust(width) if heading in figures else text.ljust(width)
            for heading, text, width in zip(headings, cells, widths, strict=True)
        ).rstrip()

    typer.echo(line(headings))
    for cells, sentence in rows:
        typer.echo(line(cells))
        if sentence:
            typer.echo(f"    {sentence}")
    typer.echo()


def _key_text(key: "Key") -> str:
    return key if isinstance(key, str) else " ".join(key)


def _print_summary(replayed: "Replayed") -> None:
    typer.echo(f"{replayed.events} events read, {replayed.complaints} refused or set aside.")
    if replayed.settled_ahead is not None:
        typer.echo(f"{replayed.settled_ahead} of them agree in plain pairs and were settled ahead of the core.")
    for (source, type_), count in sorted(replayed.engine.not_reconciled.items()):
        typer.echo(f"not reconciled: {count} x {type_} from {source} (no rule selects it)")


class _Progress:
    """A bar on a terminal, silence elsewhere; complaints go to stderr as they come."""

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True)
        self._bar = Progress(console=console, transient=True, disable=not console.is_terminal)
        self._bar.start()
        self._task = self._bar.add_task("Replaying", total=None)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def step(self, done: int, of: int) -> None:
        self._bar.update(self._task, completed=done, total=of)

    def complain(self, place: "Place", what: str) -> None:
        sys.stderr.write(f"{place}: {what}\n")

"""`tieout rules diff`: what a change of rules would do, shown on events, before it is applied."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shared.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from shared.contracts.discrepancy import Discrepancy
    from shared.rules.model import RuleFile
    from tieout.offline.compare import Change, Comparison, Figures
    from tieout.offline.engine import OfflineEngine
    from tieout.offline.lines import Place

EXAMPLE = """Example:

    tieout rules diff rules.yaml new-rules.yaml --events events.jsonl --until 2026-11-21T00:00:00Z
"""
LIMIT = 10
"""Discrepancies shown of each rule, type and effect: enough to see what they are."""


class Format(StrEnum):
    """How the answer is printed."""

    TABLE = "table"
    JSONL = "jsonl"


class FailOn(StrEnum):
    """What makes the exit code 1."""

    NEW = "new"
    ANY = "any"


def diff(
    old: Annotated[Path, typer.Argument(help="Rules file that is in force.")],
    new: Annotated[Path, typer.Argument(help="Rules file that is to come.")],
    events: Annotated[
        list[Path],
        typer.Option(help="Event file, one JSON object a line; may be given several times.", show_default=False),
    ],
    until: Annotated[
        str | None, typer.Option(help="Advance log time to this time at the end, so that deadlines fire (RFC 3339).")
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="For people, or one JSON object a line.")] = Format.TABLE,
    limit: Annotated[
        int, typer.Option(min=0, help="Discrepancies shown of each rule, type and effect (table).")
    ] = LIMIT,
    org: Annotated[str, typer.Option(help="Organisation of events that name none.")] = "default",
    fail_on: Annotated[
        FailOn | None,
        typer.Option(help="Exit 1 when a discrepancy would be open that is not now (new), or on any difference (any)."),
    ] = None,
) -> None:
    """Replay events under both versions of a pack and show which discrepancies appear, disappear and change.

    Offline, with the same core as the services. Both versions start with the first event; what a change does to groups
    that are open at the moment it is applied is the same, for they are judged again.
    """
    from tieout.cli.replay import time_of
    from tieout.offline.compare import compare

    was, now = _load_both(old, new)
    told: set[str] = set()
    end = time_of(until)
    before = _run(was, events, org, end, told)
    after = _run(now, events, org, end, told)
    compared = compare(was.rules, now.rules, before, after)
    if format_ is Format.JSONL:
        _print_lines(compared)
    else:
        _print_text(compared, limit)
    failed = {
        None: False,
        FailOn.NEW: any(change.is_open_anew for change in compared.changes),
        FailOn.ANY: bool(compared.changes),
    }
    if failed[fail_on]:
        raise typer.Exit(1)


def _load_both(old: Path, new: Path) -> "tuple[RuleFile, RuleFile]":
    from shared.rules.load import load_rules

    was, now = load_rules(old), load_rules(new)
    if was.pack != now.pack:
        raise UsageError(f"{old} is pack {was.pack!r} and {new} is pack {now.pack!r}: compare two versions of one pack")
    return was, now


def _run(file: "RuleFile", events: list[Path], org: str, until: "datetime | None", told: set[str]) -> "OfflineEngine":
    """Replay `events`; a line that cannot be used is named once, whichever version says so first."""
    from tieout.offline.replay import replay

    def complain(place: "Place", what: str) -> None:
        line = f"{place}: {what}"
        if line not in told:
            told.add(line)
            sys.stderr.write(line + "\n")

    return replay(events, {file.pack: file.rules}, org=org, until=until, complain=complain).engine


# ---- one JSON object a line


def _print_lines(compared: "Comparison") -> None:
    import msgspec

    encode = msgspec.json.Encoder().encode
    for rule in compared.rules:
        before, after = compared.figures[rule.rule]
        line = {"what": "rule", **msgspec.to_builtins(rule), "before": before, "after": after}
        sys.stdout.buffer.write(encode(line) + b"\n")
    for change in compared.changes:
        plain = {"what": "discrepancy", **{name: getattr(change, name) for name in change.__struct_fields__}}
        sys.stdout.buffer.write(encode(plain) + b"\n")
    sys.stdout.buffer.flush()


# ---- for people


def _print_text(compared: "Comparison", limit: int) -> None:
    for rule in compared.rules:
        typer.echo(str(rule))
    from tieout.offline.compare import EFFECTS

    for (rule_name, type_), by_effect in compared.effects.items():
        counts = ", ".join(
            f"{len(by_effect[effect])} {_verb(effect, len(by_effect[effect]))}"
            for effect in EFFECTS
            if effect in by_effect
        )
        typer.echo(f"\n{rule_name} {type_}: {counts}")
        for effect in EFFECTS:
            found = by_effect.get(effect, [])
            for change in found[:limit]:
                typer.echo(f"  {_MARKS[effect]} {_line(change)}")
            if len(found) > limit:
                typer.echo(f"  {_MARKS[effect]} … and {len(found) - limit} more")
    if not compared.changes:
        typer.echo("\nNo discrepancy appears, disappears or changes.")
    typer.echo("")
    for rule_name, (before, after) in compared.figures.items():
        typer.echo(f"{rule_name}: {_figures_line(before, after)}")
    was, now = compared.not_reconciled
    if was or now:
        typer.echo(f"events that no rule selects: {_arrow(was, now)}")


_MARKS = {"appears": "+", "disappears": "-", "changes": "~"}


def _verb(effect: str, count: int) -> str:
    return effect if count == 1 else effect.removesuffix("s")


def _line(change: "Change") -> str:
    one = change.one
    key = one.key if isinstance(one.key, str) else " ".join(one.key)
    words = [key] + ([one.side] if one.side else [])
    if change.before is None or change.after is None:
        return " ".join([*words, _standing(one)])
    return " ".join([*words, _standing(change.before), "->", _standing(change.after)])


def _standing(one: "Discrepancy") -> str:
    """Return what is said of a discrepancy, e.g. `raised high, expected 10.00, actual 9.00 EUR`."""
    state = one.state if one.resolution is None else f"{one.state} ({one.resolution})"
    amounts = ""
    if one.expected is not None or one.actual is not None:
        amounts = f", expected {one.expected or 'none'}, actual {one.actual or 'none'}"
        amounts += f" {one.currency}" if one.currency else ""
    return f"{state} {one.severity}{' shadow' if one.shadow else ''}{amounts}"


def _figures_line(before: "Figures", after: "Figures") -> str:
    parts = [
        f"{name.replace('_', ' ')} {_arrow(getattr(before, name), getattr(after, name))}"
        for name in ("matched", "pending", "open", "healed", "dead_letters")
    ]
    parts += [
        f"{currency} {_arrow(before.totals.get(currency, '0'), after.totals.get(currency, '0'))}"
        for currency in sorted(before.totals.keys() | after.totals.keys())
    ]
    parts += [
        f"checks {result} {_arrow(before.checks.get(result, 0), after.checks.get(result, 0))}"
        for result in sorted(before.checks.keys() | after.checks.keys())
    ]
    return ", ".join(parts)


def _arrow(before: object, after: object) -> str:
    return str(after) if before == after else f"{before} -> {after}"

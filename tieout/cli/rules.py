"""`tieout rules`: check a rules file, show what a change does, and put it in force for an org."""

import getpass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tieout.cli.rules_diff import EXAMPLE as DIFF_EXAMPLE
from tieout.cli.rules_diff import diff
from tieout.cli.rules_learn import EXAMPLE as LEARN_EXAMPLE
from tieout.cli.rules_learn import learn

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.kafka.settings import KafkaSettings
    from shared.rules.model import RuleFile

CHECK_EXAMPLE = """Example:

    tieout rules check shared/packs/billing/rules.yaml
"""
APPLY_EXAMPLE = """Example:

    tieout rules apply shared/packs/billing/rules.yaml --org acme

    tieout rules apply rules.yaml --org acme --rederive --since 2026-11-01T00:00:00Z
"""
WATCH_S = 2.0
"""How often a derivation is looked at."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    rules = typer.Typer(help="Check and compare rules files, and put them in force.", no_args_is_help=True)
    rules.command(epilog=CHECK_EXAMPLE)(check)
    rules.command(epilog=APPLY_EXAMPLE)(apply)
    rules.command(epilog=DIFF_EXAMPLE)(diff)
    rules.command(epilog=LEARN_EXAMPLE)(learn)
    app.add_typer(rules, name="rules")


def check(file: Annotated[Path, typer.Argument(help="Rules file in YAML.")]) -> None:
    """Validate FILE and list its rules; problems name the rule and the field (exit 2)."""
    from shared.rules.load import load_rules

    _show(load_rules(file), file)


def apply(
    file: Annotated[Path, typer.Argument(help="Rules file in YAML.")],
    org: Annotated[str, typer.Option(help="Org whose rules these are.")],
    rederive: Annotated[
        bool,
        typer.Option(
            "--rederive",
            help="Also change kind, sides, key or cardinality: what is open of these rules closes (rule_changed), and "
            "their events are derived anew from the topic `events`.",
        ),
    ] = False,
    since: Annotated[
        str | None, typer.Option(help="With --rederive: only events received at or after this time (RFC 3339).")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="With --rederive: wait until everything is derived.")
    ] = True,
) -> None:
    """Put FILE in force for an org; what the pack had before and FILE does not have is withdrawn.

    The new rules hold for every leg after them; open groups are judged again in place.
    """
    import asyncio

    from shared.errors import UsageError
    from shared.kafka.settings import KafkaSettings
    from shared.rules.load import load_rules
    from shared.settings import load_settings
    from tieout.cli.replay import time_of
    from tieout.rules_topic import Again, apply_rules

    if since is not None and not rederive:
        raise UsageError("--since says from when on events are derived anew: give --rederive as well")
    rules = load_rules(file)
    kafka = load_settings(KafkaSettings)
    again = Again(_time("--since", time_of, since)) if rederive else None
    applied = asyncio.run(apply_rules(kafka, rules, org, getpass.getuser(), again))
    for line in applied.lines:
        print(line, flush=True)
    if not applied.derivations:
        return
    if wait:
        asyncio.run(_watch(kafka, org, file=rules, numbers=applied.derivations))
    else:
        print(
            "their events are being derived anew; until that is done they only watch (shadow). To see how far it is: "
            "the metric tieout_ingest_derivation_remaining_records, or the log of ingest",
            flush=True,
        )


def _time(option: str, read: "Callable[[str | None], datetime | None]", text: str | None) -> datetime | None:
    from shared.errors import UsageError

    try:
        return read(text)
    except UsageError as error:
        raise UsageError(str(error).replace("--until", option)) from None


async def _watch(kafka: "KafkaSettings", org: str, file: "RuleFile", numbers: dict[str, int]) -> None:
    """Tell how far the derivations are, until they are done."""
    import asyncio

    from tieout.rules_topic import how_far, read_rules_topic

    last = ""
    while True:
        done = (await read_rules_topic(kafka, org)).derived
        waiting = {rule: n for rule, n in numbers.items() if done.get((file.pack, rule), 0) < n}
        for rule in [rule for rule in numbers if rule not in waiting]:
            print(f"{rule}: derived anew", flush=True)
            del numbers[rule]
        if not waiting:
            return
        line = "; ".join([await how_far(kafka, f"{org}.{file.pack}.{rule}.{n}", rule) for rule, n in waiting.items()])
        if line != last:
            print(line, flush=True)
        last = line
        await asyncio.sleep(WATCH_S)


def _show(file: "RuleFile", path: Path) -> None:
    import sys

    rows = [
        (
            rule.name,
            rule.kind,
            " = ".join(f"{name}({side.source}: {', '.join(side.type)})" for name, side in rule.selectors.items()),
            ", ".join(rule.grouped_by),
            ", ".join(f"{name} {value}" for name, value in rule.times.items()),
        )
        for rule in file.rules
    ]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table("rule", "kind", "sides", "grouped by", "times")
        for row in rows:
            table.add_row(*row)
        Console().print(table)
    else:
        for row in rows:
            print("\t".join(row))
    print(f"{path}: pack {file.pack}, {len(rows)} rules, no problems", flush=True)

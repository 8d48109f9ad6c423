"""`tieout rules`: check a rules file, show what a change does, and put it in force for an org."""

import getpass
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tieout.cli.rules_diff import EXAMPLE as DIFF_EXAMPLE
from tieout.cli.rules_diff import diff
from tieout.cli.rules_learn import EXAMPLE as LEARN_EXAMPLE
from tieout.cli.rules_learn import learn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shared.contracts.rule_set import RuleSetRecord
    from shared.kafka.settings import KafkaSettings
    from shared.rules.model import RuleFile
    from shared.rules.parts import RuleModel

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


@dataclass(frozen=True, slots=True)
class Again:
    """Rules that change their shape are derived anew."""

    since: datetime | None = None
    """Only events received at or after it."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply has done."""

    lines: list[str]
    """For people: what changed, a line each."""
    derivations: dict[str, int]
    """Rules whose events are derived anew by it, with the number of the derivation."""


def _time(option: str, read: "Callable[[str | None], datetime | None]", text: str | None) -> datetime | None:
    from shared.errors import UsageError

    try:
        return read(text)
    except UsageError as error:
        raise UsageError(str(error).replace("--until", option)) from None


async def apply_rules(
    kafka: "KafkaSettings", file: "RuleFile", org: str, applied_by: str, again: Again | None = None
) -> Applied:
    """Write the rule set of (org, pack) and wait until Kafka has it.

    Args:
        kafka: where.
        file: the rules.
        org: whose.
        applied_by: by whom, for the record.
        again: rules may change their shape and are derived anew then; None: that is refused.

    Raises:
        UsageError: a rule changes what may not change in place, or bears a name of another pack.
        KafkaAway: no broker answers, or it does not acknowledge.
    """
    from aiokafka.errors import KafkaError

    from shared.contracts.rule_set import Derivation, RuleSetRecord, encode_rule_set, rule_set_key
    from shared.kafka.client import producer, wait_for_kafka
    from shared.kafka.errors import KafkaAway
    from shared.kafka.topics import Topics
    from shared.rules.generation import specification

    _check_org(org)
    await wait_for_kafka(kafka)
    known = (await _rules_topic(kafka, org)).sets
    before = known.get(file.pack)
    _check_names(file, org, [rule_set for pack, rule_set in known.items() if pack != file.pack])
    reshaped = _reshaped(file, before)
    if again is None:
        _refuse_orphans(reshaped, org)
    lines = _changes(file, before)
    gone = set(before.withdrawn) | {rule["name"] for rule in before.rules} if before else set()
    derivations = dict(before.derivations) if before else {}
    started = {name: derivations[name].number + 1 if name in derivations else 1 for name in (reshaped if again else ())}
    _refuse_balance(file, started)
    since = again.since if again else None
    derivations |= {name: Derivation(number=number, since=since) for name, number in started.items()}
    record = RuleSetRecord(
        version=file.version,
        org=org,
        pack=file.pack,
        rules=[specification(rule) for rule in file.rules],
        applied_at=datetime.now(UTC),
        applied_by=applied_by,
        withdrawn=sorted(gone - {rule.name for rule in file.rules}),
        derivations=derivations,
    )
    sender = producer(kafka)
    try:
        await sender.start()
        sent = await sender.send_and_wait(
            Topics(kafka.topic_prefix).rules, encode_rule_set(record), key=rule_set_key(org, file.pack)
        )
    except KafkaError as error:
        raise KafkaAway(f"the rules were not acknowledged: {type(error).__name__}: {error}") from error
    finally:
        await sender.stop()
    return Applied([*lines, f"pack {file.pack} of org {org} is in force (version {sent.offset})"], started)


async def _watch(kafka: "KafkaSettings", org: str, file: "RuleFile", numbers: dict[str, int]) -> None:
    """Tell how far the derivations are, until they are done."""
    import asyncio

    last = ""
    while True:
        done = (await _rules_topic(kafka, org)).derived
        waiting = {rule: n for rule, n in numbers.items() if done.get((file.pack, rule), 0) < n}
        for rule in [rule for rule in numbers if rule not in waiting]:
            print(f"{rule}: derived anew", flush=True)
            del numbers[rule]
        if not waiting:
            return
        line = "; ".join([await _how_far(kafka, f"{org}.{file.pack}.{rule}.{n}", rule) for rule, n in waiting.items()])
        if line != last:
            print(line, flush=True)
        last = line
        await asyncio.sleep(WATCH_S)


async def _how_far(kafka: "KafkaSettings", name: str, rule: str) -> str:
    from services.ingest.domain.rule_book import derivation_group
    from services.ingest.handlers.rederiver import decode_reach
    from services.ingest.settings import IngestSettings
    from shared.kafka.group_places import noted_offsets
    from shared.kafka.topics import Topics
    from shared.settings import load_settings

    noted = await noted_offsets(
        kafka, derivation_group(load_settings(IngestSettings).ingest_group, name), Topics(kafka.topic_prefix).events
    )
    if not noted:
        return f"{rule}: waits for ingest (does it run?)"
    remaining = sum(max(decode_reach(one.metadata).end - one.offset, 0) for one in noted.values())
    return f"{rule}: {remaining:,} events to go"


@dataclass(frozen=True, slots=True)
class _RulesTopic:
    sets: "dict[str, RuleSetRecord]"
    """By pack."""
    derived: dict[tuple[str, str], int]
    """By pack and rule: number of the last derivation that is done."""


async def rules_in_force(org: str) -> "dict[str, Sequence[RuleModel]]":
    """Return the rules of an org by pack, as the topic has them.

    Raises:
        KafkaAway: no broker answers.
    """
    from shared.kafka.client import wait_for_kafka
    from shared.kafka.settings import KafkaSettings
    from shared.rules.load import validate_rules
    from shared.settings import load_settings

    _check_org(org)
    kafka = load_settings(KafkaSettings)
    await wait_for_kafka(kafka)
    sets = (await _rules_topic(kafka, org)).sets
    return {
        pack: validate_rules({"version": found.version, "pack": pack, "rules": found.rules}, f"pack {pack}").rules
        for pack, found in sets.items()
    }


async def _rules_topic(kafka: "KafkaSettings", org: str) -> _RulesTopic:
    """Return what the topic has of the org."""
    from shared.contracts.rule_set import decode_rule_derived, decode_rule_set, read_key
    from shared.kafka.topics import Topics
    from shared.kafka.whole_topic import read_whole

    sets: dict[str, RuleSetRecord] = {}
    derived: dict[tuple[str, str], int] = {}
    async for record in read_whole(kafka, Topics(kafka.topic_prefix).rules):
        of, pack, rule = read_key(record.key)
        if of != org:
            continue
        if rule is not None:
            if record.value is not None:
                derived[pack, rule] = decode_rule_derived(record.value).number
        elif record.value is None:
            sets.pop(pack, None)
        else:
            sets[pack] = decode_rule_set(record.value)
    return _RulesTopic(sets, derived)


def _check_org(org: str) -> None:
    import msgspec

    from shared.contracts.event import Name
    from shared.errors import UsageError

    try:
        msgspec.convert(org, Name)
    except msgspec.ValidationError:
        raise UsageError(
            f"--org {org!r} is no name of an org: letters, digits, dot, hyphen and underscore, at most 64"
        ) from None


def _check_names(file: "RuleFile", org: str, others: "Sequence[RuleSetRecord]") -> None:
    from shared.errors import UsageError

    for other in others:
        for taken in {rule["name"] for rule in other.rules} & {rule.name for rule in file.rules}:
            raise UsageError(f"rule {taken} exists in pack {other.pack} of org {org}: names are unique within an org")


def _reshaped(file: "RuleFile", before: "RuleSetRecord | None") -> dict[str, tuple[str, ...]]:
    """Return the rules that change what their open groups were made by, with the names of what changes."""
    from shared.rules.compiled import read_rule
    from shared.rules.diff import fixed_changes

    former = {rule["name"]: read_rule(rule) for rule in before.rules} if before else {}
    changed = {rule.name: fixed_changes(former[rule.name], rule) for rule in file.rules if rule.name in former}
    return {name: names for name, names in changed.items() if names}


def _refuse_balance(file: "RuleFile", started: dict[str, int]) -> None:
    from shared.errors import UsageError

    for rule in file.rules:
        if rule.kind == "balance" and rule.name in started:
            raise UsageError(
                f"rule {rule.name}: what moved a balance cannot be derived anew, for movements older than `keep` are too "
                "late for it; give the changed rule a new name, with the opening it starts from"
            )


def _refuse_orphans(reshaped: dict[str, tuple[str, ...]], org: str) -> None:
    from shared.errors import UsageError

    if not reshaped:
        return
    counts = _open_counts()
    parts = []
    for name, names in reshaped.items():
        is_open = "" if counts is None else f" ({counts.get(name, 0)} discrepancies of it are open)"
        parts.append(f"{name}: {', '.join(names)}{is_open}")
    raise UsageError(
        f"not applied to org {org}: open groups were made by what changes here, and would never be complete: "
        f"{'; '.join(parts)}. Add --rederive: they close with rule_changed and the events are derived anew; or give the "
        "changed rule a new name (the old one is then withdrawn)"
    )


def _open_counts() -> dict[str, int] | None:
    """Return how many discrepancies are open by rule, where the API of alerts can be asked."""
    import os

    from shared.errors import TieoutError
    from tieout.api import from_environment

    if "TIEOUT_API_KEY" not in os.environ:
        return None
    counts: dict[str, int] = {}
    try:
        for kind in from_environment().get("/v1/discrepancy-counts")["data"]:
            if kind["state"] == "raised":
                counts[kind["rule"]] = counts.get(kind["rule"], 0) + kind["count"]
    except TieoutError:
        return None
    return counts


def _changes(file: "RuleFile", before: "RuleSetRecord | None") -> list[str]:
    from shared.rules.compiled import read_rule
    from shared.rules.diff import diff_rules

    former = [read_rule(rule) for rule in before.rules] if before else []
    return [str(change) for change in diff_rules(former, file.rules)]


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

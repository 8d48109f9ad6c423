"""`tieout rules`: check a rules file, show what a change does, and put it in force for an org."""

import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tieout.cli.rules_diff import EXAMPLE as DIFF_EXAMPLE
from tieout.cli.rules_diff import diff

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.contracts.rule_set import RuleSetRecord
    from shared.kafka.settings import KafkaSettings
    from shared.rules.model import RuleFile

CHECK_EXAMPLE = """Example:

    tieout rules check shared/packs/billing/rules.yaml
"""
APPLY_EXAMPLE = """Example:

    tieout rules apply shared/packs/billing/rules.yaml --org acme
"""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    rules = typer.Typer(help="Check and compare rules files, and put them in force.", no_args_is_help=True)
    rules.command(epilog=CHECK_EXAMPLE)(check)
    rules.command(epilog=APPLY_EXAMPLE)(apply)
    rules.command(epilog=DIFF_EXAMPLE)(diff)
    app.add_typer(rules, name="rules")


def check(file: Annotated[Path, typer.Argument(help="Rules file in YAML.")]) -> None:
    """Validate FILE and list its rules; problems name the rule and the field (exit 2)."""
    from shared.rules.load import load_rules

    _show(load_rules(file), file)


def apply(
    file: Annotated[Path, typer.Argument(help="Rules file in YAML.")],
    org: Annotated[str, typer.Option(help="Org whose rules these are.")],
) -> None:
    """Put FILE in force for an org; what the pack had before and FILE does not have is withdrawn.

    The new rules hold for every leg after them; open groups are judged again in place.
    """
    import asyncio

    from shared.kafka.settings import KafkaSettings
    from shared.rules.load import load_rules
    from shared.settings import load_settings

    rules = load_rules(file)
    for line in asyncio.run(apply_rules(load_settings(KafkaSettings), rules, org, getpass.getuser())):
        print(line, flush=True)


async def apply_rules(kafka: "KafkaSettings", file: "RuleFile", org: str, applied_by: str) -> list[str]:
    """Write the rule set of (org, pack) and wait until Kafka has it; return what changed, a line each.

    Raises:
        UsageError: a rule changes what may not change under one name, or bears a name of another pack.
        KafkaAway: no broker answers, or it does not acknowledge.
    """
    from aiokafka.errors import KafkaError

    from shared.contracts.rule_set import RuleSetRecord, encode_rule_set, rule_set_key
    from shared.kafka.client import producer, wait_for_kafka
    from shared.kafka.errors import KafkaAway
    from shared.kafka.topics import Topics
    from shared.rules.generation import specification

    _check_org(org)
    await wait_for_kafka(kafka)
    known = await _rule_sets(kafka, org)
    before = known.get(file.pack)
    _check_names(file, org, [rule_set for pack, rule_set in known.items() if pack != file.pack])
    _check_fixed(file, before)
    lines = _changes(file, before)
    gone = set(before.withdrawn) | {rule["name"] for rule in before.rules} if before else set()
    record = RuleSetRecord(
        version=file.version,
        org=org,
        pack=file.pack,
        rules=[specification(rule) for rule in file.rules],
        applied_at=datetime.now(UTC),
        applied_by=applied_by,
        withdrawn=sorted(gone - {rule.name for rule in file.rules}),
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
    return [*lines, f"pack {file.pack} of org {org} is in force (version {sent.offset})"]


async def _rule_sets(kafka: "KafkaSettings", org: str) -> "dict[str, RuleSetRecord]":
    """Return the org's rule sets by pack, as the topic has them."""
    import msgspec

    from shared.contracts.rule_set import decode_rule_set
    from shared.kafka.topics import Topics
    from shared.kafka.whole_topic import read_whole

    found: dict[str, RuleSetRecord] = {}
    async for record in read_whole(kafka, Topics(kafka.topic_prefix).rules):
        of, pack = msgspec.json.decode(record.key, type=tuple[str, str])
        if of != org:
            continue
        if record.value is None:
            found.pop(pack, None)
        else:
            found[pack] = decode_rule_set(record.value)
    return found


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


def _check_fixed(file: "RuleFile", before: "RuleSetRecord | None") -> None:
    from shared.errors import UsageError
    from shared.rules.compiled import read_rule

    former = {rule["name"]: read_rule(rule) for rule in before.rules} if before else {}
    for rule in file.rules:
        old = former.get(rule.name)
        changed = [] if old is None else [field for field, value in rule.fixed.items() if old.fixed.get(field) != value]
        if changed:
            raise UsageError(
                f"rule {rule.name}: {', '.join(changed)} may not change under one name, for open groups were made by "
                "it; give the rule a new name (the old one is then withdrawn)"
            )


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

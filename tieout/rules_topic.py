"""The rules in force: read from the topic `rules`, and changed there, for every leg that comes after."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
from aiokafka.errors import KafkaError

from services.ingest.domain.rule_book import derivation_group
from services.ingest.handlers.rederiver import decode_reach
from services.ingest.settings import IngestSettings
from shared.contracts.event import Name
from shared.contracts.rule_set import (
    Derivation,
    RuleSetRecord,
    decode_rule_derived,
    decode_rule_set,
    encode_rule_set,
    read_key,
    rule_set_key,
)
from shared.errors import TieoutError, UsageError
from shared.kafka.client import producer, wait_for_kafka
from shared.kafka.errors import KafkaAway
from shared.kafka.group_places import noted_offsets
from shared.kafka.settings import KafkaSettings
from shared.kafka.topics import Topics
from shared.kafka.whole_topic import read_whole
from shared.rules.compiled import read_rule
from shared.rules.diff import diff_rules, fixed_changes
from shared.rules.generation import specification
from shared.rules.load import validate_rules
from shared.rules.model import RuleFile
from shared.rules.parts import RuleModel
from shared.settings import load_settings
from tieout.api import from_environment


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


async def apply_rules(
    kafka: KafkaSettings, file: RuleFile, org: str, applied_by: str, again: Again | None = None
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
    _check_org(org)
    await wait_for_kafka(kafka)
    known = (await read_rules_topic(kafka, org)).sets
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


async def how_far(kafka: KafkaSettings, name: str, rule: str) -> str:
    noted = await noted_offsets(
        kafka, derivation_group(load_settings(IngestSettings).ingest_group, name), Topics(kafka.topic_prefix).events
    )
    if not noted:
        return f"{rule}: waits for ingest (does it run?)"
    remaining = sum(max(decode_reach(one.metadata).end - one.offset, 0) for one in noted.values())
    return f"{rule}: {remaining:,} events to go"


@dataclass(frozen=True, slots=True)
class RulesTopic:
    sets: dict[str, RuleSetRecord]
    """By pack."""
    derived: dict[tuple[str, str], int]
    """By pack and rule: number of the last derivation that is done."""


async def rules_in_force(org: str) -> dict[str, Sequence[RuleModel]]:
    """Return the rules of an org by pack, as the topic has them.

    Raises:
        KafkaAway: no broker answers.
    """
    _check_org(org)
    kafka = load_settings(KafkaSettings)
    await wait_for_kafka(kafka)
    sets = (await read_rules_topic(kafka, org)).sets
    return {
        pack: validate_rules({"version": found.version, "pack": pack, "rules": found.rules}, f"pack {pack}").rules
        for pack, found in sets.items()
    }


async def read_rules_topic(kafka: KafkaSettings, org: str) -> RulesTopic:
    """Return what the topic has of the org."""
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
    return RulesTopic(sets, derived)


def _check_org(org: str) -> None:

    try:
        msgspec.convert(org, Name)
    except msgspec.ValidationError:
        raise UsageError(
            f"--org {org!r} is no name of an org: letters, digits, dot, hyphen and underscore, at most 64"
        ) from None


def _check_names(file: RuleFile, org: str, others: Sequence[RuleSetRecord]) -> None:
    for other in others:
        for taken in {rule["name"] for rule in other.rules} & {rule.name for rule in file.rules}:
            raise UsageError(f"rule {taken} exists in pack {other.pack} of org {org}: names are unique within an org")


def _reshaped(file: RuleFile, before: RuleSetRecord | None) -> dict[str, tuple[str, ...]]:
    """Return the rules that change what their open groups were made by, with the names of what changes."""
    former = {rule["name"]: read_rule(rule) for rule in before.rules} if before else {}
    changed = {rule.name: fixed_changes(former[rule.name], rule) for rule in file.rules if rule.name in former}
    return {name: names for name, names in changed.items() if names}


def _refuse_balance(file: RuleFile, started: dict[str, int]) -> None:
    for rule in file.rules:
        if rule.kind == "balance" and rule.name in started:
            raise UsageError(
                f"rule {rule.name}: what moved a balance cannot be derived anew, for movements older than `keep` are too "
                "late for it; give the changed rule a new name, with the opening it starts from"
            )


def _refuse_orphans(reshaped: dict[str, tuple[str, ...]], org: str) -> None:
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


def _changes(file: RuleFile, before: RuleSetRecord | None) -> list[str]:
    former = [read_rule(rule) for rule in before.rules] if before else []
    return [str(change) for change in diff_rules(former, file.rules)]

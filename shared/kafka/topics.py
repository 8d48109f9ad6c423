"""The topics of tieout as data, and the one way to create them.

Results of `legs` partition p go to partition p of the topics of class `state`, inside one transaction:
these counts are equal, and never change under data.
"""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from shared.kafka.client import MAX_RECORD_BYTES, admin, wait_for_kafka
from shared.kafka.errors import KafkaAway, TopicMismatch
from shared.kafka.settings import KafkaSettings

if TYPE_CHECKING:
    from aiokafka.admin import AIOKafkaAdminClient

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
# Replay and `verify` start from what is kept here. A month covers a monthly close that found a fault.
INBOX_RETENTION_MS = 30 * DAY_MS
# `legs` only has to outlive the longest `keep` (7 days) and a long weekend without the matcher.
LEGS_RETENTION_MS = 14 * DAY_MS
# A dead letter waits for a person who fixes a mapping: a quarter.
DEAD_LETTERS_RETENTION_MS = 90 * DAY_MS
FOREVER_MS = -1

DEFAULT_PARTITIONS = 12
DEFAULT_INBOX_PARTITIONS = 6
DEAD_LETTERS_PARTITIONS = 6
# What a cluster of three or more brokers gets: one may be away and one may be restarting.
MAX_DEFAULT_REPLICAS = 3
_TOPIC_ALREADY_EXISTS = 36
# A new topic's leaders are known everywhere within a second; a busy cluster gets more.
_VISIBLE_TIMEOUT_S = 15.0
_VISIBLE_PAUSE_S = 0.05


class Count(StrEnum):
    """Which topics must have the same number of partitions."""

    STATE = "state"  # one partition of legs = one matcher state = one partition of each result
    INBOX = "inbox"
    EVENTS = "events"
    DEAD_LETTERS = "dead-letters"
    SINGLE = "single"  # read whole by everybody: order matters, throughput does not


@dataclass(frozen=True, slots=True)
class TopicDeclaration:
    """One topic: its name without prefix, its shape, and what a person should know about it."""

    name: str
    count: Count
    key: str
    carries: str
    kept: str
    config: Mapping[str, str] = field(default_factory=dict)


def _kept_for(retention_ms: int) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": str(retention_ms)}


def _compacted(lag_ms: int = 0) -> dict[str, str]:
    return {"cleanup.policy": "compact", "min.compaction.lag.ms": str(lag_ms)}


# Log time is made of the broker's clock: a producer's clock must not be able to move it.
_BROKER_TIME = {"message.timestamp.type": "LogAppendTime"}
_LARGE_RECORDS = {"max.message.bytes": str(MAX_RECORD_BYTES)}

TOPICS: tuple[TopicDeclaration, ...] = (
    TopicDeclaration(
        name="inbox",
        count=Count.INBOX,
        key="webhook: org, source, delivery id; event row: org, source, record",
        carries="the raw request or row, verdict of the signature check; control requests (cut, withdraw)",
        kept="30 days by broker time; the source of every replay",
        config=_kept_for(INBOX_RETENTION_MS) | _BROKER_TIME | _LARGE_RECORDS,
    ),
    TopicDeclaration(
        name="events",
        count=Count.EVENTS,
        key="event uuid",
        carries="canonical events (a duplicate has the same id), JSON",
        kept="30 days",
        config=_kept_for(INBOX_RETENTION_MS),
    ),
    TopicDeclaration(
        name="not-reconciled",
        count=Count.EVENTS,
        key="event uuid",
        carries="events that no rule selects, each by its name, source, type and times; JSON",
        kept="30 days, as events",
        config=_kept_for(INBOX_RETENTION_MS),
    ),
    TopicDeclaration(
        name="legs",
        count=Count.STATE,
        key="org, rule, match key",
        carries="the part of an event that one rule side needs; control records tick, rules, cut, withdraw",
        kept="14 days",
        config=_kept_for(LEGS_RETENTION_MS),
    ),
    TopicDeclaration(
        name="rules",
        count=Count.SINGLE,
        key="org, pack",
        carries="rule sets",
        kept="the last per key (compacted)",
        config=_compacted(),
    ),
    TopicDeclaration(
        name="directory",
        count=Count.SINGLE,
        key="org, kind, id",
        carries="orgs, sources, API-key hashes and roles; never signing secrets",
        kept="the last per key (compacted)",
        config=_compacted(),
    ),
    TopicDeclaration(
        name="matcher-state",
        count=Count.STATE,
        key="none",
        carries="packed changes with the next input offset, now and then snapshot slices",
        kept="all since the last snapshot: the matcher deletes what a full snapshot replaced",
        config=_kept_for(FOREVER_MS) | {"retention.bytes": "-1"} | _LARGE_RECORDS,
    ),
    TopicDeclaration(
        name="matcher-checkpoints",
        count=Count.STATE,
        key="none",
        carries="daily state of each partition and the core version that made it, for verify",
        kept="14 days, as legs",
        config=_kept_for(LEGS_RETENTION_MS) | _LARGE_RECORDS,
    ),
    TopicDeclaration(
        name="discrepancies",
        count=Count.STATE,
        key="discrepancy id",
        carries="every revision with both sides' evidence and an explaining sentence; progress; JSON",
        kept="the last per key, every revision for 14 days (compacted, not before legs expires)",
        config=_compacted(LEGS_RETENTION_MS),
    ),
    TopicDeclaration(
        name="matches",
        count=Count.STATE,
        key="group",
        carries="settled groups and their withdrawal; progress; JSON, pairs that agree as their two legs",
        kept="30 days",
        config=_kept_for(INBOX_RETENTION_MS),
    ),
    TopicDeclaration(
        name="checks",
        count=Count.STATE,
        key="account",
        carries="results of balance, zero-sum and invariant rules; progress; JSON",
        kept="the last per key, every result for 14 days (compacted, not before legs expires)",
        config=_compacted(LEGS_RETENTION_MS),
    ),
    TopicDeclaration(
        name="dead-letters",
        count=Count.DEAD_LETTERS,
        key="none",
        carries="reason, place in inbox, how to replay it",
        kept="90 days",
        config=_kept_for(DEAD_LETTERS_RETENTION_MS) | _LARGE_RECORDS,
    ),
)


def inbox_of_org(org: str) -> TopicDeclaration:
    """The topic that producers of one org may write directly; ingest copies it into `inbox`."""
    return TopicDeclaration(
        name=f"inbox.{org}",
        count=Count.INBOX,
        key="the producer's",
        carries="rows from producers that write Kafka directly (ACL per org)",
        kept="30 days by broker time",
        config=_kept_for(INBOX_RETENTION_MS) | _BROKER_TIME | _LARGE_RECORDS,
    )


@dataclass(frozen=True, slots=True)
class Topics:
    """Full topic names under one prefix."""

    prefix: str

    def full(self, name: str) -> str:
        return self.prefix + name

    def inbox_of(self, org: str) -> str:
        return self.full(f"inbox.{org}")

    @property
    def inbox(self) -> str:
        return self.full("inbox")

    @property
    def events(self) -> str:
        return self.full("events")

    @property
    def not_reconciled(self) -> str:
        return self.full("not-reconciled")

    @property
    def legs(self) -> str:
        return self.full("legs")

    @property
    def rules(self) -> str:
        return self.full("rules")

    @property
    def directory(self) -> str:
        return self.full("directory")

    @property
    def matcher_state(self) -> str:
        return self.full("matcher-state")

    @property
    def matcher_checkpoints(self) -> str:
        return self.full("matcher-checkpoints")

    @property
    def discrepancies(self) -> str:
        return self.full("discrepancies")

    @property
    def matches(self) -> str:
        return self.full("matches")

    @property
    def checks(self) -> str:
        return self.full("checks")

    @property
    def dead_letters(self) -> str:
        return self.full("dead-letters")

    @property
    def all(self) -> tuple[str, ...]:
        """Every declared topic, without the inboxes of single orgs."""
        return tuple(self.full(topic.name) for topic in TOPICS)


@dataclass(frozen=True, slots=True)
class AppliedTopic:
    """What `apply_topics` did about one topic.

    `embedded`: the broker cannot create topics and chose the partition count itself.
    """

    name: str
    partitions: int
    action: Literal["created", "unchanged", "embedded"]


def partition_counts(
    partitions: int = DEFAULT_PARTITIONS, inbox_partitions: int = DEFAULT_INBOX_PARTITIONS
) -> dict[Count, int]:
    """How many partitions each class of topics gets; raises `ValueError` below 1."""
    if min(partitions, inbox_partitions) < 1:
        raise ValueError("a topic needs at least 1 partition")
    return {
        Count.STATE: partitions,
        Count.INBOX: inbox_partitions,
        Count.EVENTS: partitions,
        Count.DEAD_LETTERS: DEAD_LETTERS_PARTITIONS,
        Count.SINGLE: 1,
    }


async def apply_topics(
    settings: KafkaSettings,
    partitions: int = DEFAULT_PARTITIONS,
    inbox_partitions: int = DEFAULT_INBOX_PARTITIONS,
    replication_factor: int | None = None,
    orgs: Collection[str] = (),
) -> tuple[AppliedTopic, ...]:
    """Create the topics that are missing; safe to run again.

    `replication_factor` None: as many as there are brokers, at most 3. `orgs`: whose direct inboxes to create as well.
    Nothing is created when an existing topic has another shape than asked for: then `TopicMismatch`.
    Raises `KafkaAway` when no broker answers.
    """
    counts = partition_counts(partitions, inbox_partitions)
    declared = TOPICS + tuple(inbox_of_org(org) for org in orgs)
    wanted = {settings.topic_prefix + topic.name: topic for topic in declared}
    await wait_for_kafka(settings)
    client = admin(settings)
    await client.start()
    try:
        if not await _can_create(client):
            return await _appear(client, list(wanted))
        existing = await _existing_counts(client, list(wanted))
        _refuse_other_counts({name: counts[wanted[name].count] for name in existing}, existing)
        await _refuse_other_clocks(client, {name: wanted[name] for name in existing})
        missing = {name: topic for name, topic in wanted.items() if name not in existing}
        created = await _create(client, missing, counts, replication_factor)
    finally:
        await client.close()
    return tuple(
        AppliedTopic(name, counts[topic.count], "created" if name in created else "unchanged")
        for name, topic in wanted.items()
    )


async def partitions_of(settings: KafkaSettings, *names: str) -> dict[str, int]:
    """The partition count of each full topic name that exists; the broker is the authority, not settings."""
    client = admin(settings)
    await client.start()
    try:
        return await _existing_counts(client, list(names))
    finally:
        await client.close()


async def _can_create(client: "AIOKafkaAdminClient") -> bool:
    """Whether the broker can create topics: the embedded one names no controller among its brokers and cannot."""
    cluster: dict[str, Any] = await client.describe_cluster()
    return cluster["controller_id"] in {broker["node_id"] for broker in cluster["brokers"]}


async def _appear(client: "AIOKafkaAdminClient", names: list[str]) -> tuple[AppliedTopic, ...]:
    """Ask for each topic by name: that is what makes it appear on the embedded broker."""
    counts = await _existing_counts(client, names, ask_by_name=True)
    absent = sorted(set(names) - set(counts))
    if absent:
        raise KafkaAway(
            f"the cluster has no controller now and cannot create {', '.join(absent)}: try again when it has one"
        )
    return tuple(AppliedTopic(name, counts[name], "embedded") for name in names)


async def _existing_counts(
    client: "AIOKafkaAdminClient", names: list[str], *, ask_by_name: bool = False
) -> dict[str, int]:
    # Asking for all and filtering creates nothing, even where a broker auto-creates what is asked for.
    described: list[dict[str, Any]] = await client.describe_topics(names if ask_by_name else None)
    return {
        topic["topic"]: len(topic["partitions"])
        for topic in described
        if topic["topic"] in names and topic["error_code"] == 0 and topic["partitions"]
    }


def _refuse_other_counts(expected: Mapping[str, int], existing: Mapping[str, int]) -> None:
    differing = [
        f"{name} has {existing[name]} partitions, {expected[name]} were asked for"
        for name in sorted(existing)
        if existing[name] != expected[name]
    ]
    if differing:
        raise TopicMismatch(
            f"{'; '.join(differing)}: keys and state live by partition, so a count never changes under data. "
            "Ask for the counts that exist (--partitions, --inbox-partitions), or choose another "
            "TIEOUT_KAFKA_TOPIC_PREFIX"
        )


async def _refuse_other_clocks(client: "AIOKafkaAdminClient", existing: Mapping[str, TopicDeclaration]) -> None:
    """An inbox that takes its producer's clock would let one wrong clock move log time for everybody."""
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    setting, wanted = next(iter(_BROKER_TIME.items()))
    asked = [name for name, topic in existing.items() if topic.config.get(setting) == wanted]
    if not asked:
        return
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, {setting: ""}) for name in asked]
    for response in await client.describe_configs(resources):
        for code, message, _, name, entries in response.resources:
            if code != 0:
                raise TopicMismatch(f"{name}: the broker does not show its settings: {message}")
            found = {entry[0]: entry[1] for entry in entries}.get(setting)
            if found != wanted:
                raise TopicMismatch(
                    f"{name} has {setting}={found}, but log time needs {wanted}: change it with "
                    "kafka-configs, or choose another TIEOUT_KAFKA_TOPIC_PREFIX"
                )


async def _create(
    client: "AIOKafkaAdminClient",
    missing: Mapping[str, TopicDeclaration],
    counts: Mapping[Count, int],
    replication_factor: int | None,
) -> set[str]:
    """The names that this call created; one that somebody else created meanwhile is checked, not created."""
    from aiokafka.admin import NewTopic

    if not missing:
        return set()
    if replication_factor is None:
        cluster: dict[str, Any] = await client.describe_cluster()
        replication_factor = min(MAX_DEFAULT_REPLICAS, len(cluster["brokers"]))
    response = await client.create_topics(
        [
            NewTopic(name, counts[topic.count], replication_factor, topic_configs=dict(topic.config))
            for name, topic in missing.items()
        ]
    )
    raced: set[str] = set()
    for name, code, message in response.topic_errors:
        if code == _TOPIC_ALREADY_EXISTS:
            raced.add(name)
        elif code != 0:
            raise TopicMismatch(f"the broker refused to create {name}: {message or f'error {code}'}")
    visible = await _until_visible(client, list(missing))
    _refuse_other_counts({name: counts[missing[name].count] for name in visible}, visible)
    await _refuse_other_clocks(client, {name: missing[name] for name in raced})
    return set(missing) - raced


async def _until_visible(client: "AIOKafkaAdminClient", names: list[str]) -> dict[str, int]:
    """A topic is created before every broker knows its leaders; clients would stumble in between."""
    try:
        async with asyncio.timeout(_VISIBLE_TIMEOUT_S):
            while True:
                existing = await _existing_counts(client, names)
                if len(existing) == len(names):
                    return existing
                await asyncio.sleep(_VISIBLE_PAUSE_S)
    except TimeoutError:
        raise KafkaAway(
            f"the created topics are not visible after {_VISIBLE_TIMEOUT_S:g} s: look at the broker's log"
        ) from None

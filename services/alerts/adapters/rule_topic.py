"""The rules in force, read from the topic `rules` when somebody asks: a small topic, a rare question."""

import asyncio
from collections.abc import Mapping, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from services.alerts.domain.adjustment import BookedSign, RuleShape
from services.alerts.domain.checks import JUDGING
from shared.contracts.rule_set import RuleSetRecord, decode_rule_set, read_key, rule_set_key
from shared.kafka.client import consumer
from shared.kafka.errors import KafkaAway
from shared.kafka.settings import KafkaSettings
from shared.rules.balance_rule import MOVEMENTS
from shared.rules.compiled import read_rule
from shared.rules.parts import RuleModel, Selector, SignBy
from shared.rules.zero_sum_rule import ENTRIES

READ_TIMEOUT_S = 10
"""The whole topic is some hundred records."""


class RuleTopic:
    """`RuleShapes` over Kafka."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka

    async def shape(self, org: str, pack: str, rule: str) -> RuleShape | None:
        value = (await self._values()).get(rule_set_key(org, pack))
        return None if value is None else _shape(decode_rule_set(value), rule)

    async def in_force(self) -> Mapping[tuple[str, str], Mapping[str, str]]:
        """See `ports.runs.RuleSets`."""
        found: dict[tuple[str, str], Mapping[str, str]] = {}
        for key, value in (await self._values()).items():
            org, pack, note = read_key(key)
            if note is None and (rules := _kinds(decode_rule_set(value))):
                found[org, pack] = rules
        return found

    async def models(self) -> Mapping[tuple[str, str], Sequence[RuleModel]]:
        """Return every rule in force, by (org, pack)."""
        found: dict[tuple[str, str], Sequence[RuleModel]] = {}
        for key, value in (await self._values()).items():
            org, pack, note = read_key(key)
            if note is None:
                found[org, pack] = [read_rule(written) for written in decode_rule_set(value).rules]
        return found

    async def _values(self) -> dict[bytes, bytes]:
        """Return the last value of every key that has one."""
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                return await self._read()
        except (KafkaError, OSError, TimeoutError) as error:
            raise KafkaAway(f"the rules could not be read from Kafka: {type(error).__name__}: {error}") from error

    async def _read(self) -> dict[bytes, bytes]:
        partition = TopicPartition(self._kafka.topic_prefix + "rules", 0)
        client = consumer(self._kafka, auto_offset_reset="earliest")
        await client.start()
        try:
            client.assign([partition])
            await client.seek_to_beginning(partition)
            return await _read(client, partition)
        finally:
            await client.stop()


async def _read(client: AIOKafkaConsumer, partition: TopicPartition) -> dict[bytes, bytes]:
    end = (await client.end_offsets([partition]))[partition]
    last: dict[bytes, bytes | None] = {}
    while await client.position(partition) < end:
        for record in (await client.getmany(partition, timeout_ms=500)).get(partition, ()):
            last[record.key] = record.value
    return {key: value for key, value in last.items() if value is not None}


def _kinds(record: RuleSetRecord) -> dict[str, str]:
    models = [read_rule(written) for written in record.rules]
    return {model.name: model.kind for model in models if not model.shadow and model.kind in JUDGING}


def _shape(record: RuleSetRecord, rule: str) -> RuleShape | None:
    written = next((model for model in record.rules if model.get("name") == rule), None)
    if written is None:
        return None
    model = read_rule(written)
    sides = {name: selector for name, selector in model.selectors.items() if _takes_entries(model.kind, name)}
    signs = {} if model.kind == "match" else {selector.source: _sign(selector) for selector in sides.values()}
    return RuleShape(
        key_fields=tuple(model.grouped_by),
        sources={name: selector.source for name, selector in sides.items()},
        signs=signs,
    )


def _takes_entries(kind: str, selector: str) -> bool:
    """Tell whether adjustment entries are added to what a selector takes; what was read is never adjusted."""
    return kind == "match" or selector in {ENTRIES, MOVEMENTS}


def _sign(selector: Selector) -> BookedSign:
    """Return how an entry of this selector is booked so that it adds what it says."""
    if not isinstance(selector.sign, SignBy):
        return BookedSign(factor=selector.sign)
    value, factor = max(selector.sign.values.items(), key=lambda one: one[1])
    return BookedSign(factor=factor, field=selector.sign.by, value=value)

"""A log of legs as ingest would have written it: payments of both sides, mostly in agreement."""

import random
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path

from shared.contracts.leg import Leg, Tick, encode_leg_record, group_key
from shared.kafka.client import await_sent, producer
from shared.kafka.partitioner import partition_of
from shared.kafka.settings import KafkaSettings
from shared.rules.compiled import rule_record
from shared.rules.generation import generation_of
from shared.rules.load import load_rules
from shared.rules.match_rule import MatchRuleModel

ORG = "acme"
PACK = "billing"
RULE = "billing.payments"
INBOX_PARTITIONS = 6
START_MS = 1_780_000_000_000
LEGS_PER_SECOND = 5_000
"""Of log time."""
GAP_LEGS = 10_000
"""Legs between the two sides of a payment: two seconds of log time."""
MISMATCHED = 0.01
MISSING = 0.01

Prepared = tuple[int, bytes | None, bytes]
"""Partition, key, value."""


@cache
def payments_rule() -> MatchRuleModel:
    """The billing pack's rule for payments."""
    with_rules = Path(str(files("shared.packs.billing").joinpath("rules.yaml")))
    rule = next(rule for rule in load_rules(with_rules).rules if rule.name == RULE)
    assert isinstance(rule, MatchRuleModel)
    return rule


def prepared_legs(
    count: int, partitions: int, seed: int = 7, *, mismatched: float = MISMATCHED, missing: float = MISSING
) -> Iterator[Prepared]:
    """Yield `count` legs with their rule and a tick per second, in log order; the same for the same seed.

    Of the payments, `mismatched` differ in amount and `missing` have no other side; all others agree within seconds.
    """
    rule = payments_rule()
    record = encode_leg_record(rule_record(ORG, PACK, rule, 1))
    generation = generation_of(ORG, PACK, rule)
    yield from ((number, None, record) for number in range(partitions))
    yield from _ticks(START_MS, partitions)
    chance = random.Random(seed)  # noqa: S311 - not a secret: the same data in every run
    later: list[tuple[int, int, str]] = []
    due = number = made = 0
    told_ms = START_MS
    while made < count:
        now_ms = START_MS + made * 1000 // LEGS_PER_SECOND
        if now_ms - told_ms >= 1000:
            yield from _ticks(now_ms, partitions)
            told_ms = now_ms
        if due < len(later) and later[due][0] <= made:
            _, payment, amount = later[due]
            due += 1
            side = 1
        else:
            payment, side = number, 0
            number += 1
            amount = f"{chance.randrange(100, 1_000_000) / 100:.2f}"
            luck = chance.random()
            if luck >= missing:
                other = f"{amount[:-1]}{(int(amount[-1]) + 1) % 10}" if luck < missing + mismatched else amount
                later.append((made + GAP_LEGS, payment, other))
        yield _leg(generation, payment, side, amount, now_ms, made, partitions)
        made += 1


def settled_and_waiting(
    settled: int, waiting: int, start_ms: int = START_MS, first: int = 0
) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and value of the legs of `settled` pairs and then of `waiting` payments without their other side.

    In log order, without the rule they need: see `rule_and_ticks`. `first` is the number of the first payment.
    """
    generation = generation_of(ORG, PACK, payments_rule())
    chance = random.Random(settled + waiting)  # noqa: S311 - not a secret: the same data in every run
    made = 0
    for number in range(first, first + settled + waiting):
        amount = f"{chance.randrange(100, 1_000_000) / 100:.2f}"
        for side in (0, 1) if number - first < settled else (0,):
            _, key, value = _leg(generation, number, side, amount, start_ms + made * 1000 // LEGS_PER_SECOND, made, 1)
            assert key is not None
            yield key, value
            made += 1


def rule_and_ticks(at_ms: int = START_MS) -> list[bytes]:
    """Return what a partition needs before its first leg: the rule, and a time of every inbox partition."""
    ticks = [Tick(inbox_partition, INBOX_PARTITIONS, at_ms) for inbox_partition in range(INBOX_PARTITIONS)]
    return [encode_leg_record(rule_record(ORG, PACK, payments_rule(), 1)), *map(encode_leg_record, ticks)]


def _leg(generation: str, payment: int, side: int, amount: str, now_ms: int, place: int, partitions: int) -> Prepared:
    name = f"pi_3Q{payment:012d}"
    key = group_key(ORG, RULE, (name,))
    source, record = ("ledger", f"pay-{payment:012d}") if side == 0 else ("stripe", name)
    leg = Leg(
        generation,
        side,
        source,
        record,
        f"evt_{source}_{payment:012d}",
        now_ms * 1000 - 250_000,
        place % INBOX_PARTITIONS,
        place // INBOX_PARTITIONS,
        now_ms,
        0,
        None,
        amount,
        "EUR",
        "succeeded",
    )
    return partition_of(key, partitions), key, encode_leg_record(leg)


def _ticks(now_ms: int, partitions: int) -> Iterator[Prepared]:
    for inbox_partition in range(INBOX_PARTITIONS):
        value = encode_leg_record(Tick(inbox_partition, INBOX_PARTITIONS, now_ms))
        yield from ((number, None, value) for number in range(partitions))


async def write(kafka: KafkaSettings, topic: str, legs: Iterator[Prepared], partitions: int) -> int:
    """Write prepared legs in full batches; returns how many records."""
    sender = producer(kafka)
    await sender.start()
    try:
        builders = [sender.create_batch() for _ in range(partitions)]
        sent = []
        count = 0
        for number, key, value in legs:
            count += 1
            if builders[number].append(key=key, value=value, timestamp=None) is None:
                sent.append(await sender.send_batch(builders[number], topic, partition=number))
                builders[number] = sender.create_batch()
                builders[number].append(key=key, value=value, timestamp=None)
        for number, builder in enumerate(builders):
            if builder.record_count():
                sent.append(await sender.send_batch(builder, topic, partition=number))
        await await_sent(sent)
        return count
    finally:
        await sender.stop()

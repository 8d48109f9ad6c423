"""What goes into a run: legs as ingest would have written them, and what must be left of them, known by construction.

The stories and their outcome come from `tests/support/planted.py`, which knows nothing of the product. Beside it stands
what the core says about the same log in one piece, byte by byte.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from services.matcher.adapters.results import check_results, discrepancy_results, item_results
from services.matcher.domain.core import Core
from services.matcher.use_cases.partition import Partition, Policy
from shared.contracts.leg import Tick, encode_leg_record
from shared.kafka.partitioner import partition_of
from shared.rules.compiled import rule_record
from shared.rules.extract import Extractor
from tests.support.offline import PACK, accepted
from tests.support.planted import Open, plan
from tests.support.services import short_rules

ORG = "acme"
PARTITIONS = 2
INBOXES = 2
DEADLINE_S = 20.0
BEGIN = datetime(2026, 6, 1, 10, tzinfo=UTC)
REPEATED = 0.06
"""Part of the legs that ingest writes a second time, as it does after a crash."""

Entry = tuple[int, bytes | None, bytes]
"""Partition, key, value."""


@dataclass(frozen=True)
class Stream:
    """One log of legs and its outcome."""

    entries: list[Entry]
    open: frozenset[Open]


@lru_cache(maxsize=256)
def stream(variant: int, groups: int) -> Stream:
    """Return the log of about `groups` payments and refunds; every third one has a fault of its own."""
    planned = plan(max(4, groups * 2), 1, seed=variant + 1, fault_every=3, refund_every=5)
    # The generator dates events by the clock, and makes the first payment a webhook: neither is wanted here.
    events = [event for event in planned.events if "refs" in event.body and not _is_first(event.body)]
    shift = BEGIN - min(datetime.fromisoformat(event.body["occurred_at"]) for event in events) - timedelta(hours=2)
    bodies = [_dated(event.body, shift, number) for number, event in enumerate(events)]
    left = frozenset(one for one in planned.open if not one.key.endswith("_0000000"))
    return Stream(_log(bodies, random.Random(variant)), left)


def _is_first(body: dict[str, Any]) -> bool:
    return any(str(value).endswith("_0000000") for value in body["refs"].values())


def _dated(body: dict[str, Any], shift: timedelta, number: int) -> dict[str, Any]:
    occurred = datetime.fromisoformat(body["occurred_at"]) + shift
    received = BEGIN + timedelta(milliseconds=50 * number)
    return body | {"org": ORG, "occurred_at": occurred.isoformat(), "received_at": received.isoformat()}


@lru_cache(maxsize=1)
def _extractor() -> Extractor:
    return Extractor(ORG, {PACK: short_rules(DEADLINE_S).rules})


def _log(bodies: Sequence[dict[str, Any]], chance: random.Random) -> list[Entry]:
    extractor = _extractor()
    entries: list[Entry] = []

    def to_all(value: bytes) -> None:
        entries.extend((number, None, value) for number in range(PARTITIONS))

    for _, model in extractor.models.values():
        to_all(encode_leg_record(rule_record(ORG, PACK, model, 0)))
    legs: list[Entry] = []
    received_ms = 0
    for number, body in enumerate(bodies):
        event = accepted(body)
        received_ms = round(event.received_at.timestamp() * 1000)
        inbox = number % INBOXES
        for group, leg in extractor.extract(event, inbox, number, received_ms).legs:
            entry = partition_of(group, PARTITIONS), group, encode_leg_record(leg)
            entries.append(entry)
            legs.append(entry)
        if chance.random() < REPEATED:
            entries.append(chance.choice(legs[-8:]))
        if chance.random() < 0.2:
            to_all(encode_leg_record(Tick(chance.randrange(INBOXES), INBOXES, received_ms)))
    # Then nothing comes any more, and deadlines pass one after the other.
    for step in range(1, 26):
        for inbox in range(INBOXES):
            to_all(encode_leg_record(Tick(inbox, INBOXES, received_ms + 1000 * step)))
    return entries


class _Record:
    headers = ()

    def __init__(self, offset: int, key: bytes | None, value: bytes) -> None:
        self.offset, self.key, self.value = offset, key, value


Results = dict[tuple[str, int], list[bytes]]
"""By topic and partition, in order."""


def expected(entries: Sequence[Entry]) -> tuple[Results, list[Core]]:
    """What the core makes of the log when nothing happens, and how it ends."""
    found: Results = {}
    cores = []
    for number in range(PARTITIONS):
        mine = [(key, value) for partition, key, value in entries if partition == number]
        core = Core(number)
        partition = Partition(number, core, Policy(1 << 40, 1 << 20, 1.0), 0)
        partition.apply([_Record(offset, key, value) for offset, (key, value) in enumerate(mine)])
        batch = partition.collect(0.0)
        assert batch is not None
        found["discrepancies", number] = [bytes(one[1]) for one in discrepancy_results(batch)]
        found["matches", number] = [bytes(one[1]) for one in item_results(batch)]
        found["checks", number] = [bytes(one[1]) for one in check_results(batch)]
        cores.append(core)
    return found, cores

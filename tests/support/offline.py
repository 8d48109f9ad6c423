"""Runs of the product for tests of the match core: raw events in, the offline engine or single log records out."""

from datetime import UTC, datetime
from typing import Any

from shared.contracts.event import Event, EventRefused, accept, convert_posted, milliseconds
from shared.contracts.leg import LegRecord, Tick, Withdraw, keyless_group_key, read_group_key
from shared.rules.compiled import rule_record
from shared.rules.extract import Extractor
from shared.rules.load import validate_rules
from shared.rules.model import Rule
from tests.support.cases import Case, substitute
from tieout.offline.engine import OfflineEngine

PACK = "billing"


def rules_of(rules: list[dict[str, Any]]) -> list[Rule]:
    """The rules as the product reads them from a file."""
    return validate_rules({"version": 1, "pack": PACK, "rules": rules}).rules


def accepted(raw: dict[str, Any]) -> Event:
    """The canonical event; raises EventRefused."""
    posted = convert_posted(raw)
    assert posted.org is not None
    assert posted.received_at is not None
    return accept(posted, org=posted.org, received_at=posted.received_at.astimezone(UTC))


def run_offline(rules: list[dict[str, Any]], events: list[dict[str, Any]], until: str) -> tuple[OfflineEngine, int]:
    """The engine after all events and with log time at `until`, and how many events were refused."""
    engine = OfflineEngine({PACK: rules_of(rules)})
    refused = 0
    for raw in events:
        try:
            engine.feed(accepted(raw))
        except EventRefused:
            refused += 1
    engine.advance(time_of(until))
    return engine, refused


def time_of(text: str) -> int:
    """Milliseconds since 1970."""
    return milliseconds(datetime.fromisoformat(text))


LogEntry = tuple[bytes, LegRecord]


def log_of(
    rules: list[dict[str, Any]], events: list[dict[str, Any]], until: str, partitions: int = 1
) -> list[LogEntry]:
    """What ingest would write to one partition of `legs`: rules first, every inbox partition ticking at every time."""
    packs = {PACK: rules_of(rules)}
    extractors = {org: Extractor(org, packs) for org in sorted({event["org"] for event in events})}
    log: list[LogEntry] = [
        (b"", rule_record(org, pack, model, 0))
        for org, extractor in extractors.items()
        for pack, model in extractor.models.values()
    ]
    offsets = [0] * partitions
    keyless: set[bytes] = set()
    keyed: set[bytes] = set()
    for raw in events:
        try:
            event = accepted(raw)
        except EventRefused:
            continue
        received = milliseconds(event.received_at)
        log += ticks(received, partitions)
        inbox = sum(event.id.encode()) % partitions
        extracted = extractors[event.org].extract(event, inbox, offsets[inbox], received)
        offsets[inbox] += 1
        log += extracted.legs
        for group, leg in extracted.legs:
            if leg.adjusts is not None:
                continue
            name = read_group_key(group)
            alone = keyless_group_key(event.org, name.rule, event.source, event.record)
            (keyless if name.keyless else keyed).add(alone)
            if alone in keyless and alone in keyed:  # what alerts asks for when it sees the record in both groups
                log.append((alone, Withdraw(event.source, event.record, inbox, received)))
    return log + ticks(time_of(until), partitions)


def ticks(time: int, partitions: int) -> list[LogEntry]:
    """A tick of every inbox partition."""
    return [(b"", Tick(inbox, partitions, time)) for inbox in range(partitions)]


def run_case(case: Case) -> tuple[OfflineEngine, int]:
    """The engine after a case of the format of match.yaml, and how many events were refused."""
    engine = OfflineEngine({PACK: rules_of(case.rules)})
    refused = 0
    for raw in case.events:
        engine.advance(time_of(raw["received_at"]))
        try:
            engine.feed(accepted(substitute(raw, lambda kind: next(d.id for d in engine.revisions if d.type == kind))))
        except EventRefused:
            refused += 1
    engine.advance(time_of(case.until))
    return engine, refused

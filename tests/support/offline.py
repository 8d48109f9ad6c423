"""Runs of the product for tests of the match core: raw events in, the offline engine or single log records out."""

from datetime import UTC, datetime
from typing import Any

from shared.contracts.event import Event, EventRefused, accept, convert_posted, milliseconds
from shared.contracts.leg import LegRecord, Tick
from shared.rules.extract import Extractor
from shared.rules.load import validate_rules
from shared.rules.match_rule import rule_record
from shared.rules.model import Rule
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
    extractors: dict[str, Extractor] = {}
    log: list[LogEntry] = []
    offsets = [0] * partitions
    for raw in events:
        try:
            event = accepted(raw)
        except EventRefused:
            continue
        if event.org not in extractors:
            extractor = extractors[event.org] = Extractor(event.org, {PACK: rules_of(rules)})
            log += [(b"", rule_record(event.org, pack, model, 0)) for pack, model in extractor.models.values()]
        received = milliseconds(event.received_at)
        log += ticks(received, partitions)
        inbox = sum(event.id.encode()) % partitions
        extracted = extractors[event.org].extract(event, inbox, offsets[inbox], received)
        offsets[inbox] += 1
        log += [(leg.group, leg.leg) for leg in extracted.legs]
    return log + ticks(time_of(until), partitions)


def ticks(time: int, partitions: int) -> list[LogEntry]:
    """A tick of every inbox partition."""
    return [(b"", Tick(inbox, partitions, time)) for inbox in range(partitions)]

"""How well records without a shared key find each other: precision, recall and seconds on a labelled bank statement."""

import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from shared.contracts.event import accept, convert_posted, milliseconds
from shared.rules.load import validate_rules
from tieout.bench.bank_statement import DAYS, RULE, START, Statement, generate
from tieout.offline.engine import OfflineEngine

SETTLE_DAYS = 200
"""Log time at the end: every deadline has passed."""

Pair = tuple[str, str]
"""An invoice and a line that pays it."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The outcome: of all pairs said, how many are right, and of all that are right, how many were said."""

    invoices: int
    lines: int
    pairs: int
    said: int
    right: int
    precision: float
    recall: float
    seconds: float
    cpu_seconds: float
    """Of this process: what the seconds are on a machine where nothing else runs."""
    events_per_second: float
    ambiguous: int
    """Discrepancies that leave the choice to a person, at the end."""
    recall_by_kind: dict[str, float]
    wrong_by_kind: dict[str, int]
    """Pairs said that are not so, by what the line is in truth."""
    settings: dict[str, Any] = field(default_factory=dict)


def bench(invoices: int, seed: int) -> Accuracy:
    """Generate a statement, put it through extraction and core, and compare with its labels."""
    statement = generate(invoices, seed)
    return measure(statement, {"seed": seed, "rule": "defaults"})


def measure(statement: Statement, settings: dict[str, Any], rule: dict[str, Any] | None = None) -> Accuracy:
    """Put a statement through extraction and core, and compare with its labels."""
    begun, cpu = time.perf_counter(), time.process_time()
    engine = run(statement, rule or RULE)
    seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu
    said = said_pairs(engine)
    truth: dict[Pair, str] = {(a, b): link.kind for link in statement.links for a in link.invoices for b in link.lines}
    right = said & set(truth)
    kind_of_line = {line: link.kind for link in statement.links for line in link.lines}
    by_kind = Counter(truth.values())
    found = Counter(truth[pair] for pair in right)
    wrong = Counter(kind_of_line.get(line, "noise") for _, line in said - right)
    return Accuracy(
        invoices=statement.invoices,
        lines=statement.lines,
        pairs=len(truth),
        said=len(said),
        right=len(right),
        precision=round(len(right) / len(said), 4) if said else 0.0,
        recall=round(len(right) / len(truth), 4) if truth else 0.0,
        seconds=round(seconds, 2),
        cpu_seconds=round(cpu_seconds, 2),
        events_per_second=round(len(statement.events) / seconds),
        ambiguous=sum(one.type == "AmbiguousMatch" and one.state == "raised" for one in engine.last_revisions()),
        recall_by_kind={kind: round(found[kind] / count, 4) for kind, count in sorted(by_kind.items())},
        wrong_by_kind=dict(sorted(wrong.items())),
        settings=settings,
    )


def run(statement: Statement, rule: dict[str, Any]) -> OfflineEngine:
    """Return the engine after all events."""
    rules = validate_rules({"version": 1, "pack": "bank", "rules": [rule]}, "bench accuracy").rules
    engine = OfflineEngine({"bank": rules})
    for raw in statement.events:
        received_at = datetime.fromisoformat(raw["occurred_at"])
        engine.feed(accept(convert_posted(raw), org="acme", received_at=received_at))
    engine.advance(milliseconds(START + timedelta(days=DAYS + SETTLE_DAYS)))
    return engine


def said_pairs(engine: OfflineEngine) -> set[Pair]:
    """Return the pairs that stand together in an item at the end."""
    said: set[Pair] = set()
    for item in engine.items.values():
        first, last = item.sides.values()
        if first and last:
            said |= {(a.record, b.record) for a in first.records for b in last.records}
    return said

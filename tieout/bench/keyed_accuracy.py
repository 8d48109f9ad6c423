"""How well records with a shared key are judged: precision, recall and time to detect on a stream of known faults."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import quantiles
from typing import Any

from shared.contracts.discrepancy import Discrepancy
from shared.contracts.event import accept, convert_posted, milliseconds
from shared.rules.load import validate_rules
from tieout.bench.labelled_payments import Found, Labelled, generate, rules
from tieout.offline.engine import OfflineEngine

ORG = "acme"
DEADLINES = ("5m", "15m", "30m", "1h", "2h")
"""The stream is made for the deadline of one hour."""
TOLERANCES = ("0.00", "0.01", "1.00", "10.00")
NOTHING = "nothing"
_HUNDREDTHS = 100


@dataclass(frozen=True, slots=True)
class Row:
    """One type of discrepancy."""

    type: str
    expected: int
    found: int
    """Open at the end."""
    right: int
    precision: float
    recall: float
    detected_s_p50: float | None
    """Log time from the group's first record to the raise; a missing record cannot be told before its deadline."""
    detected_s_p99: float | None


@dataclass(frozen=True, slots=True)
class Cost:
    """What another deadline or tolerance does to the same stream."""

    setting: str
    false_alarms: int
    """Raised and taken back, although nothing was wrong but the time it took."""
    missed: int
    """Discrepancies that are real and not open at the end."""
    late_untold: int
    """Records that came too late, or statuses that differed for a while, of which nobody was told."""
    hidden: str
    """Money in the amounts that are off and not told, in all."""
    detected_s_p50: float | None
    """Of missing records."""


@dataclass(frozen=True, slots=True)
class KeyedAccuracy:
    """The outcome over all types, and by type."""

    movements: int
    events: int
    precision: float
    recall: float
    taken_back_expected: int
    """Discrepancies that have to be raised and taken back: late records, reversals, a feed that comes back."""
    taken_back_right: int
    taken_back_more: int
    """Others that were raised for a while."""
    seconds: float
    types: list[Row]
    confusion: dict[str, dict[str, int]]
    """By what was planted: what was open at the end, in movements."""
    deadlines: list[Cost]
    tolerances: list[Cost]
    settings: dict[str, Any]


def bench(movements: int, seed: int, rates: Mapping[str, float], *, curves: bool) -> KeyedAccuracy:
    """Generate a labelled stream, put it through extraction and core, and compare with its labels.

    `curves`: also judge the stream with other deadlines and tolerances.
    """
    stream = generate(movements, seed, rates)
    begun = time.perf_counter()
    last = run(stream, rules())
    seconds = time.perf_counter() - begun
    open_, back = _by_state(last)
    expected = {found for truth in stream.truths for found in truth.open}
    passing = {found for truth in stream.truths for found in truth.passing}
    return KeyedAccuracy(
        movements=len(stream.truths),
        events=len(stream.events),
        precision=_share(len(open_ & expected), len(open_)),
        recall=_share(len(open_ & expected), len(expected)),
        taken_back_expected=len(passing),
        taken_back_right=len(passing & back),
        taken_back_more=len(back - passing),
        seconds=round(seconds, 2),
        types=_types(stream, last, open_, expected),
        confusion=_confusion(stream, open_),
        deadlines=[_cost(stream, name, run(stream, rules(deadline=name))) for name in DEADLINES if curves],
        tolerances=[_cost(stream, name, run(stream, rules(tolerance=name))) for name in TOLERANCES if curves],
        settings={"seed": seed, "rates": dict(rates)},
    )


def run(stream: Labelled, written: Sequence[dict[str, Any]]) -> list[Discrepancy]:
    """Return every discrepancy's last revision after the whole stream."""
    packs = {"accuracy": validate_rules({"version": 1, "pack": "accuracy", "rules": list(written)}, "bench").rules}
    engine = OfflineEngine(packs, items=False)
    for received_at, event in stream.events:
        engine.feed(accept(convert_posted(event), org=ORG, received_at=received_at))
    engine.advance(milliseconds(stream.end))
    return engine.last_revisions()


def _name(one: Discrepancy) -> Found:
    key = one.key if isinstance(one.key, str) else one.key[-1]
    return one.rule, key, one.type


def _by_state(last: Iterable[Discrepancy]) -> tuple[set[Found], set[Found]]:
    found: dict[bool, set[Found]] = {True: set(), False: set()}
    for one in last:
        found[one.state == "raised"].add(_name(one))
    return found[True], found[False]


def _types(stream: Labelled, last: list[Discrepancy], open_: set[Found], expected: set[Found]) -> list[Row]:
    waited = _waited(stream, last)
    rows = []
    for type_ in sorted({name[2] for name in open_ | expected}):
        wanted, found = {n for n in expected if n[2] == type_}, {n for n in open_ if n[2] == type_}
        right = len(wanted & found)
        p50, p99 = _p50_p99([seconds for name, seconds in waited.items() if name in wanted & found])
        rows.append(
            Row(type_, len(wanted), len(found), right, _share(right, len(found)), _share(right, len(wanted)), p50, p99)
        )
    return rows


def _waited(stream: Labelled, last: list[Discrepancy]) -> dict[Found, float]:
    first: dict[str, datetime] = {}
    for received_at, event in stream.events:
        for key in event["refs"].values():
            first.setdefault(key, received_at)
    return {
        _name(one): (one.raised_at - first[name[1]]).total_seconds() for one in last if (name := _name(one))[1] in first
    }


def _confusion(stream: Labelled, open_: set[Found]) -> dict[str, dict[str, int]]:
    by_key: dict[str, list[str]] = defaultdict(list)
    for _, key, type_ in open_:
        by_key[key].append(type_)
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for truth in stream.truths:
        for type_ in by_key.get(truth.key, [NOTHING]):
            table[truth.label][type_] += 1
    return {label: dict(sorted(counts.items())) for label, counts in sorted(table.items())}


def _cost(stream: Labelled, setting: str, last: list[Discrepancy]) -> Cost:
    open_, back = _by_state(last)
    expected = {found for truth in stream.truths for found in truth.open}
    passing = {found for truth in stream.truths for found in truth.passing}
    hidden = {key for _, key, type_ in expected - open_ if type_ == "AmountMismatch"}
    missing = [name for name in open_ & expected if name[2].startswith("Missing")]
    waited = _waited(stream, last)
    return Cost(
        setting=setting,
        false_alarms=len(back - passing),
        missed=len(expected - open_),
        late_untold=len(passing - back),
        hidden=str(sum((stream.off_by[key] for key in hidden), 0)),
        detected_s_p50=_p50_p99([waited[name] for name in missing])[0],
    )


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 1.0


def _p50_p99(seconds: list[float]) -> tuple[float | None, float | None]:
    if not seconds:
        return None, None
    cuts = quantiles([*seconds, *seconds], n=_HUNDREDTHS)
    return round(cuts[49], 1), round(cuts[98], 1)

"""What a run of the product knows at the end, as rows in the words of the cases and of the models."""

from collections import Counter
from datetime import datetime
from typing import Any

import msgspec

from shared.contracts.discrepancy import Check, Discrepancy
from tests.model.kinds import run
from tests.model.outcome import CHECK_FIELDS, DISCREPANCY_FIELDS, USAGE_FIELDS, comparable
from tests.model.stream import Stream
from tests.support.cases import KindCase, kind_complaints
from tests.support.offline import run_offline
from tieout.offline.engine import OfflineEngine

Row = dict[str, Any]
TIMES = ("raised_at", "resolved_at", "as_of")


def complaints(case: KindCase) -> list[str]:
    """Run a case through the product; one sentence for every difference."""
    engine, refused = run_offline([case.rule], case.events, case.until)
    told = kind_complaints(
        case,
        discrepancies(engine),
        checks(engine.checks),
        usage(engine.checks),
        dead_letters(engine),
    )
    if refused != len(case.refused):
        told.append(f"{refused} events were refused, not {len(case.refused)}")
    return told


def unlike(stream: Stream) -> list[str]:
    """Run a stream through the product and the model of its kind; name what they do not tell alike."""
    engine, refused = run_offline([stream.rule], stream.events, stream.until)
    outcome = run(stream.rule, stream.events, stream.until)
    tables = {
        "discrepancies": (discrepancies(engine), outcome.discrepancies, DISCREPANCY_FIELDS),
        "checks": (checks(engine.checks), outcome.checks, CHECK_FIELDS),
        "usage": (usage(engine.checks), outcome.usage, USAGE_FIELDS),
        "dead letters": (dead_letters(engine), outcome.dead_letters, ("id", "reason")),
    }
    told = [
        f"{name}: the product says {comparable(actual, fields)}, the model {comparable(expected, fields)}"
        for name, (actual, expected, fields) in tables.items()
        if comparable(map(_plain, actual), fields) != comparable(map(_plain, expected), fields)
    ]
    return told if refused == len(outcome.refused) else [*told, f"refused: {refused}, the model {outcome.refused}"]


def discrepancies(engine: OfflineEngine) -> list[Row]:
    """The last revision of every discrepancy; a key that was forgotten and comes back the same way is another one."""
    last: dict[Any, Discrepancy] = {}
    times: Counter[str] = Counter()
    for revision in engine.revisions:
        times[revision.id] += revision.revision == 1
        last[revision.id, times[revision.id]] = revision
    return _rows(last)


def dead_letters(engine: OfflineEngine) -> list[Row]:
    return [{"id": letter.event, "reason": letter.reason} for letter in engine.dead_letters]


def checks(published: list[Check]) -> list[Row]:
    """The last verdict of every reading that was judged; a transaction is one reading however often it was opened."""
    last: dict[Any, Check] = {}
    for check in published:
        if check.result == "usage":
            continue
        reading = None if check.entries is not None else (check.as_of, check.code)
        last[check.org, check.rule, str(check.key), check.currency, reading] = check
    return _rows(last)


def usage(published: list[Check]) -> list[Row]:
    """The last usage of every period of every counter that resets."""
    last: dict[Any, Check] = {}
    for check in published:
        if check.period is not None:
            last[check.org, check.rule, str(check.key), check.code, check.period] = check
    return _rows(last)


def _plain(row: Row) -> Row:
    """The same row with times that compare, however they are written, and without what tells readings apart."""
    times = {name: datetime.fromisoformat(row[name]) for name in TIMES if row.get(name)}
    if row.get("entries") is not None:
        times["as_of"] = None
    return row | times


def _rows(last: dict[Any, Any]) -> list[Row]:
    rows: list[Row] = msgspec.to_builtins(list(last.values()))
    return rows

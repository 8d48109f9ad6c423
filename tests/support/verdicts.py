"""What a run of the product knows at the end, as rows in the words of the cases and of the models."""

from typing import Any

import msgspec

from shared.contracts.discrepancy import Check
from tests.support.cases import KindCase, kind_complaints
from tests.support.offline import run_offline
from tieout.offline.engine import OfflineEngine

Row = dict[str, Any]


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


def discrepancies(engine: OfflineEngine) -> list[Row]:
    """The last revision of every discrepancy."""
    rows: list[Row] = msgspec.to_builtins(engine.last_revisions())
    return rows


def dead_letters(engine: OfflineEngine) -> list[Row]:
    return [{"id": letter.event, "reason": letter.reason} for letter in engine.dead_letters]


def checks(published: list[Check]) -> list[Row]:
    """The last verdict of every reading that was judged; a transaction is one reading however often it was opened."""
    last: dict[Any, Check] = {}
    for check in published:
        if check.result == "usage":
            continue
        reading = None if check.entries is not None else (check.as_of, check.code)
        last[check.org, check.rule, str(check.key), check.currency if reading is None else None, reading] = check
    return _rows(last)


def usage(published: list[Check]) -> list[Row]:
    """The last usage of every period of every counter that resets."""
    last: dict[Any, Check] = {}
    for check in published:
        if check.period is not None:
            last[check.org, check.rule, str(check.key), check.code, check.period] = check
    return _rows(last)


def _rows(last: dict[Any, Check]) -> list[Row]:
    rows: list[Row] = msgspec.to_builtins(list(last.values()))
    return rows

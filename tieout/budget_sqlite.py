"""SQLite databases that held budgets before: what they say, whether it ties out, and the steps that bring it over.

Tables: `budget_tracking` (total_budget, remaining_budget; the last row counts), `budget_reconciliation` (tieout's own ten
columns), and an odometer's readings (`*odometer_readings`: month, cumulative_value). Any may be missing but the first.
"""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from pathlib import Path
from typing import Any

from shared.errors import UsageError
from shared.money import EXACT, exact_sum

FLOAT_NOISE = Decimal("1E-9")
"""SQLite held amounts as floats: what their sums carry below this is no money."""
REASON_LENGTH_MAX = 200

_NEAR = Context(prec=60, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True, slots=True)
class OldRow:
    """A row of the old `budget_reconciliation`."""

    id: str
    date: str
    tracked: Decimal
    plug: Decimal
    reason: str


@dataclass(frozen=True, slots=True)
class OldBudget:
    """All that a database says."""

    total: Decimal
    remaining: Decimal
    rows: Sequence[OldRow]
    months: dict[str, Decimal]

    @property
    def used(self) -> Decimal:
        return EXACT.subtract(self.total, self.remaining)

    @property
    def tracked(self) -> Decimal:
        return exact_sum(row.tracked for row in self.rows)

    @property
    def plugged(self) -> Decimal:
        return exact_sum(row.plug for row in self.rows)

    @property
    def unexplained(self) -> Decimal:
        """Used, and neither tracked nor plugged; 0 where the database tied out."""
        return EXACT.subtract(self.used, EXACT.add(self.tracked, self.plugged))


@dataclass(frozen=True, slots=True)
class Step:
    """A reconciliation to make; `tracked` is added as usage before it."""

    id: str
    tracked: Decimal
    adjustment: Decimal
    remaining: Decimal
    reason: str


def read_sqlite(path: Path) -> OldBudget:
    """Read a database without changing it.

    Raises:
        UsageError: it is no SQLite database, or has no budget.
    """
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file")
    try:
        with closing(sqlite3.connect(f"file:{path.absolute()}?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            return _read(database, path)
    except sqlite3.Error as error:
        raise UsageError(f"{path} cannot be read as SQLite: {error}") from None


def steps(old: OldBudget) -> Sequence[Step]:
    """Return what brings the budget over: each old row, then what none of them explains."""
    remaining = old.total
    made = []
    for row in old.rows:
        remaining = EXACT.subtract(remaining, EXACT.add(row.tracked, row.plug))
        reason = f"import {row.date}: {row.reason}"[:REASON_LENGTH_MAX]
        made.append(Step(row.id, row.tracked, EXACT.minus(row.plug), remaining, reason))
    if old.unexplained:
        reason = "import: used before and explained by no row"
        made.append(Step("unexplained", Decimal(0), EXACT.minus(old.unexplained), old.remaining, reason))
    return made


def _read(database: sqlite3.Connection, path: Path) -> OldBudget:
    tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
    if "budget_tracking" not in tables:
        raise UsageError(f"{path} has no table budget_tracking; its tables are {', '.join(tables) or 'none'}")
    last = database.execute("SELECT * FROM budget_tracking ORDER BY rowid DESC LIMIT 1").fetchone()
    if last is None:
        raise UsageError(f"{path}: budget_tracking has no row")
    rows = []
    if "budget_reconciliation" in tables:
        rows = [_row(row, path) for row in database.execute("SELECT * FROM budget_reconciliation ORDER BY id")]
    months: dict[str, Decimal] = {}
    for table in tables:
        if table.endswith("odometer_readings"):
            query = f'SELECT month, max(cumulative_value) AS value FROM "{table}" GROUP BY month ORDER BY month'  # noqa: S608 - a name out of the database's own list
            months |= {row["month"]: _amount(row, "value", path) for row in database.execute(query)}
    return OldBudget(_amount(last, "total_budget", path), _amount(last, "remaining_budget", path), rows, months)


def _row(row: sqlite3.Row, path: Path) -> OldRow:
    return OldRow(
        id=str(row["id"]),
        date=str(row["reconciliation_date"])[:10],
        tracked=_amount(row, "api_usage_tracked", path),
        plug=_amount(row, "manual_plug_amount", path),
        reason=str(row["adjustment_reason"] or "no reason"),
    )


def _amount(row: sqlite3.Row, column: str, path: Path) -> Decimal:
    value: Any = row[column] if column in row.keys() else None  # noqa: SIM118 - a row iterates over its values
    if value is None:
        raise UsageError(f"{path}: {column} is empty or missing in a row")
    try:
        number = Decimal(repr(value) if isinstance(value, float) else str(value))
    except ArithmeticError:
        raise UsageError(f"{path}: {column} {str(value)[:40]!r} is no amount") from None
    if not number.is_finite():
        raise UsageError(f"{path}: {column} {number} is no amount")
    near = number.quantize(FLOAT_NOISE, context=_NEAR)
    return Decimal(format(near.normalize(_NEAR), "f"))

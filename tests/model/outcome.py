"""What the oracles of `balance`, `zero_sum` and `invariant` answer, and how they print it.

Each has the same call: `run(rule, events, until) -> Outcome`; `tests/model/kinds.py` picks one by the rule's kind.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tests.model.match_model import EXACT, NO_DECIMALS, THREE_DECIMALS, Rule, timestamp

TOKEN_DECIMALS = {"USDC": 6, "BTC": 8, "ETH": 18}
DISCREPANCY_FIELDS = (
    *("org", "rule", "type", "key", "currency", "side", "state", "resolution", "severity", "expected", "actual"),
    *("difference", "reason", "revision", "raised_at", "resolved_at", "expired"),
)
CHECK_FIELDS = (
    *("org", "rule", "key", "code", "currency", "as_of", "result", "reason", "expected", "actual", "difference"),
    *("explained", "unexplained", "entries", "of"),
)
USAGE_FIELDS = ("org", "rule", "key", "code", "currency", "period", "usage", "partial")


@dataclass
class Outcome:
    """Everything that is known when log time has reached `until`; rows are dicts in the words of the cases."""

    discrepancies: list[dict[str, Any]] = field(default_factory=list)
    """The last revision of every discrepancy ever raised."""
    checks: list[dict[str, Any]] = field(default_factory=list)
    """The last verdict of each reading: per key, code, currency and `as_of`."""
    usage: list[dict[str, Any]] = field(default_factory=list)
    """`invariant` only: per key, code and period."""
    dead_letters: list[dict[str, str]] = field(default_factory=list)
    """`{id, reason}`, once per delivery."""
    refused: list[str] = field(default_factory=list)
    """Ids of events that the public contract does not accept; they are no part of the log."""
    deadlines: list[tuple[Any, ...]] = field(default_factory=list)
    """`zero_sum` only: (org, key, deadline in ms or None) of every group that ever stood."""
    forgotten: int = 0
    """`zero_sum` only: groups that `keep` or `expire` ended before the end."""

    def open(self) -> list[tuple[Any, ...]]:
        """What the Law speaks of: every discrepancy that stands as raised, with its amounts."""
        raised = [one for one in self.discrepancies if one["state"] == "raised"]
        return comparable(raised, ("org", "rule", "key", "type", "currency", "reason", "expected", "actual"))


class Published:
    """One discrepancy, raised and resolved any number of times; `row` is its last revision."""

    def __init__(self, rule: Rule, org: str, key: Any, kind: str) -> None:
        self.rule = rule
        self.records: frozenset[Any] = frozenset()
        self.row: dict[str, Any] = {"org": org, "rule": rule["name"], "type": kind, "key": key, "side": None}
        self.row |= {"expired": False, "revision": 0, "state": None, "reason": None}

    @property
    def is_open(self) -> bool:
        return self.row["state"] == "raised"

    def publish(
        self,
        at: int,
        figures: tuple[Decimal, Decimal],
        currency: str | None,
        level: str | None = None,
        reason: str | None = None,
        records: frozenset[Any] = frozenset(),
    ) -> bool:
        """Raise it, or bring it up to date; False when that would say nothing new."""
        expected, actual = figures
        difference = EXACT.subtract(actual, expected)
        said = {
            "state": "raised",
            "severity": level or severity(self.rule, self.row["type"], currency, difference),
            "expected": shown(expected, currency),
            "actual": shown(actual, currency),
            "difference": shown(difference, currency),
            "currency": currency,
            "reason": reason,
        }
        if self.records == records and all(self.row.get(name) == value for name, value in said.items()):
            return False
        self.records = records
        self.row.setdefault("raised_at", timestamp(at))
        self.row |= said | {"resolution": None, "resolved_at": None, "revision": self.row["revision"] + 1}
        return True

    def resolve(self, at: int, resolution: str) -> None:
        """Its figures stay those of the last raise."""
        self.row |= {"state": "resolved", "resolution": resolution, "resolved_at": timestamp(at)}
        self.row["revision"] += 1

    def expire(self) -> None:
        self.row["expired"] = True
        self.row["revision"] += 1


def comparable(rows: Iterable[dict[str, Any]], fields: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """Rows of the model or of the product as sorted tuples; a field that a row lacks counts as null."""
    return sorted((tuple(row.get(name) for name in fields) for row in rows), key=repr)


def severity(rule: Rule, kind: str, currency: str | None, difference: Decimal) -> str:
    given = rule.get("severity", {})
    default = given.get("default", "medium")
    of_kind = given.get(kind, default)
    if not isinstance(of_kind, dict):
        return str(of_kind)
    steps = of_kind["above"].get(currency, of_kind["above"].get("default", {}))
    passed = [(Decimal(step), level) for step, level in steps.items() if EXACT.abs(difference) > Decimal(step)]
    return str(max(passed)[1]) if passed else str(default)


def shown(value: Decimal, currency: str | None) -> str:
    """With the currency's decimals, more only if they are not zero; no exponent, no minus before zero."""
    whole, _, fraction = f"{abs(value):f}".partition(".")
    fraction = fraction.rstrip("0").ljust(decimals(currency), "0")
    printed = f"{whole}.{fraction}" if fraction else whole
    return f"-{printed}" if value < 0 else printed


def decimals(currency: str | None) -> int:
    if currency is None or currency in NO_DECIMALS:
        return 0
    return 3 if currency in THREE_DECIMALS else TOKEN_DECIMALS.get(currency, 2)


def instant(microseconds: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    return moment.isoformat().replace("+00:00", "Z")

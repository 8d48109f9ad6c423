"""The oracle of the `invariant` rule kind: slow, simple, and built on nothing of the product.

An account keeps every snapshot that was judged. A new one is judged by each check anew, from all readings of that
check so far: the greatest of the period, the one before, the turnover at which fees last grew.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from tests.model.match_model import EXACT, Event, Rule, content, key_of, look_up, microseconds, order
from tests.model.outcome import Outcome, Published, instant, shown
from tests.model.records import in_log_order, takes

PERIODS = {"daily": "%Y-%m-%d", "monthly": "%Y-%m"}
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
ZERO = Decimal(0)


def run(rule: Rule, events: list[Event], until: str) -> Outcome:
    """Everything that is known when log time has reached `until`; no later event may be among the events."""
    outcome = Outcome()
    accounts: dict[tuple[str, Any], Account] = {}
    for leg in in_log_order(events, outcome):
        event = leg.event
        if not takes(rule["snapshots"], event, adjustments=False):
            continue
        key, complete = key_of(rule, event)
        if not complete:
            outcome.dead_letters.append({"id": event["id"], "reason": "no match key"})
            continue
        account = accounts.setdefault((event["org"], key), Account(rule, event["org"], key))
        reason = account.take(leg.at, event)
        if reason is not None:
            outcome.dead_letters.append({"id": event["id"], "reason": reason})
    for account in accounts.values():
        outcome.discrepancies += [one.row for one in account.found.values() if one.row["revision"]]
        outcome.checks += account.checks.values()
        outcome.usage += account.usage()
    return outcome


@dataclass(frozen=True)
class Reading:
    """What one check saw in one snapshot."""

    event: Event
    value: Decimal
    other: Decimal | None
    """The field of `minus` or `grows_without`."""


@dataclass(frozen=True)
class Verdict:
    expected: Decimal
    actual: Decimal
    level: str | None = None
    """None: the rule's severity for the code."""


class Account:
    def __init__(self, rule: Rule, org: str, key: Any) -> None:
        own = rule.get("overrides", {}).get(key, {})
        self.rule = rule
        self.org = org
        self.key = list(key) if isinstance(key, tuple) else key
        self.watched = [
            check | own.get(check["code"], {})
            for check in rule["checks"]
            if own.get("enabled", True) and own.get(check["code"], {}).get("enabled", True)
        ]
        self.enabled = own.get("enabled", True)
        self.judged: list[Event] = []
        self.closings: list[Event] = []
        self.readings: dict[str, list[Reading]] = defaultdict(list)
        self.found: dict[str, Published] = {}
        self.checks: dict[tuple[str | None, str], dict[str, Any]] = {}

    def take(self, at: int, event: Event) -> str | None:
        """Judge the snapshot; the reason if it is a dead letter, too."""
        if not self.enabled:
            return None
        held = [*self.judged[-1:], *self.closings]
        if any(one["id"] == event["id"] and content(one) != content(event) for one in held):
            return "id reused"
        if closing_of(event):
            return self.close(event)
        if self.judged and order(event) <= order(self.judged[-1]):
            if order(event) < order(self.judged[-1]):
                self.tell(None, event, None, "stale")
            return None
        self.judged.append(event)
        results = [self.judge(at, check, event) for check in self.watched]
        return "not a number" if "error" in results else None

    def close(self, event: Event) -> str | None:
        counters = [check for check in self.watched if resets(check)]
        if any(is_text(event, check["field"]) for check in counters):
            return "not a number"
        self.closings.append(event)
        return None

    # ---- one check on one snapshot

    def judge(self, at: int, check: Rule, event: Event) -> str:
        fields = [check["field"], *(check[name] for name in ("minus", "grows_without") if name in check)]
        if any(is_text(event, path) for path in fields):
            self.tell(check, event, None, "error", "not a number")
            return "error"
        values = [number(event, path) for path in fields]
        if any(value is None for value in values):
            self.tell(check, event, None, "skipped")
            return "skipped"
        value, other = values[0], values[1] if len(values) > 1 else None
        assert value is not None
        readings = self.readings[check["code"]]
        readings.append(Reading(event, value, other))
        finding = self.found.setdefault(check["code"], Published(self.rule, self.org, self.key, check["code"]))
        if check.get("never_decreases"):
            return self.judge_counter(at, check, finding, readings)
        verdict = growth(check, readings, self.zone()) if "grows_without" in check else bounds(check, readings[-1])
        if verdict is None:
            if finding.is_open:
                finding.resolve(at, "corrected")
            self.tell(check, event, value, "passed")
            return "passed"
        self.publish(at, check, finding, event, verdict)
        self.tell(check, event, verdict.actual, "failed", expected=verdict.expected)
        return "failed"

    def judge_counter(self, at: int, check: Rule, finding: Published, readings: list[Reading]) -> str:
        """Falls are measured from the greatest reading of the period; only its own value heals a finding."""
        *before, now = readings
        period = self.period(check, now.event)
        earlier = [one.value for one in before if self.period(check, one.event) == period]
        top = max(earlier, default=now.value)
        verdict = worse(check, top, now.value) if earlier and now.value < earlier[-1] else None
        if verdict is not None:
            self.publish(at, check, finding, now.event, verdict)
        elif finding.is_open and now.value >= Decimal(finding.row["expected"]):
            finding.resolve(at, "corrected")
        if finding.is_open and now.value < top:
            self.tell(check, now.event, now.value, "failed", expected=top)
            return "failed"
        self.tell(check, now.event, now.value, "passed")
        return "passed"

    def publish(self, at: int, check: Rule, finding: Published, event: Event, verdict: Verdict) -> None:
        finding.publish(at, (verdict.expected, verdict.actual), currency_of(check, event), verdict.level)

    def tell(
        self,
        check: Rule | None,
        event: Event,
        actual: Decimal | None,
        result: str,
        reason: str | None = None,
        expected: Decimal | None = None,
    ) -> None:
        """The verdict of a check on a snapshot; of a stale one there is one verdict for all checks."""
        code = check["code"] if check else None
        currency = currency_of(check, event) if check else None
        as_of = instant(microseconds(event["occurred_at"]))
        self.checks[code, as_of] = {
            "org": self.org,
            "rule": self.rule["name"],
            "key": self.key,
            "code": code,
            "currency": currency,
            "as_of": as_of,
            "result": result,
            "reason": reason,
            "expected": None if expected is None else shown(expected, currency),
            "actual": None if actual is None else shown(actual, currency),
            "difference": None if expected is None or actual is None else shown(actual - expected, currency),
        }

    # ---- periods of counters that reset

    def usage(self) -> list[dict[str, Any]]:
        rows = []
        for check in self.watched:
            if not resets(check):
                continue
            last = {self.period(check, one.event): one for one in self.readings[check["code"]]}
            closed: dict[str, Event] = {}
            for event in sorted(self.closings, key=order):
                if number(event, check["field"]) is not None and is_period(check, closing_of(event)):
                    closed[closing_of(event)] = event
            for period in {*last, *closed}:
                event = closed.get(period) or last[period].event
                rows.append(self.usage_row(check, event, period, partial=period not in closed))
        return rows

    def usage_row(self, check: Rule, event: Event, period: str, *, partial: bool) -> dict[str, Any]:
        value, currency = number(event, check["field"]), currency_of(check, event)
        assert value is not None
        return {
            "org": self.org,
            "rule": self.rule["name"],
            "key": self.key,
            "code": check["code"],
            "currency": currency,
            "period": period,
            "usage": shown(value, currency),
            "partial": partial,
        }

    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.rule.get("zone", "UTC"))

    def period(self, check: Rule, event: Event) -> str:
        return period_of(check, event, self.zone())


def bounds(check: Rule, reading: Reading) -> Verdict | None:
    """Against a bound the bound is what was expected, else the other field, or zero."""
    limits = [name for name in ("min", "max", "above") if name in check]
    value = reading.value if reading.other is None else EXACT.subtract(reading.value, reading.other)
    if not limits:
        return worse(check, reading.other or ZERO, reading.value)
    if "min" in check and value < Decimal(check["min"]):
        return worse(check, Decimal(check["min"]), value)
    if "max" in check and value > Decimal(check["max"]):
        return worse(check, Decimal(check["max"]), value)
    if "above" in check and value <= Decimal(check["above"]):
        return worse(check, Decimal(check["above"]), value, equal_is_wrong=True)
    return None


def growth(check: Rule, readings: list[Reading], zone: ZoneInfo) -> Verdict | None:
    """What `field` grew by since the other field last grew; below where it then stood it started again."""
    base, last, period = readings[0].value, readings[0].other, period_of(check, readings[0].event, zone)
    for one in readings:
        assert one.other is not None
        assert last is not None
        if period_of(check, one.event, zone) != period:
            base, last, period = ZERO, ZERO, period_of(check, one.event, zone)
        if one.other > last or one.value < base:
            base = one.value
        last = one.other
    return worse(check, base, readings[-1].value) if readings[-1].value > base else None


def worse(check: Rule, expected: Decimal, actual: Decimal, *, equal_is_wrong: bool = False) -> Verdict | None:
    """None where the difference reaches no threshold; without thresholds every difference is wrong."""
    size = EXACT.abs(EXACT.subtract(actual, expected))
    if "warn" not in check and "critical" not in check:
        return Verdict(expected, actual) if size or equal_is_wrong else None
    if "critical" in check and size >= Decimal(check["critical"]):
        return Verdict(expected, actual, "critical")
    if "warn" in check and size >= Decimal(check["warn"]):
        return Verdict(expected, actual, "medium")
    return None


def number(event: Event, path: str) -> Decimal | None:
    text = look_up(event, path)
    return Decimal(text) if text and NUMBER.fullmatch(text) else None


def is_text(event: Event, path: str) -> bool:
    """Something is there that is no number; what is empty is absent."""
    return bool(look_up(event, path)) and number(event, path) is None


def currency_of(check: Rule, event: Event) -> str | None:
    return event.get("currency") if check["field"] == "amount" else None


def resets(check: Rule) -> bool:
    return bool(check.get("never_decreases")) and check.get("reset", "never") != "never"


def closing_of(event: Event) -> str:
    return look_up(event, "attrs.closing") or ""


def is_period(check: Rule, word: str) -> bool:
    shape = r"\d{4}-\d{2}-\d{2}" if check["reset"] == "daily" else r"\d{4}-\d{2}"
    return re.fullmatch(shape, word) is not None


def period_of(check: Rule, event: Event, zone: ZoneInfo) -> str:
    """One period for ever where nothing resets."""
    if check.get("reset", "never") == "never":
        return ""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds(event["occurred_at"]))
    return moment.astimezone(zone).strftime(PERIODS[check["reset"]])

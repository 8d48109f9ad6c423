"""The oracle of the `balance` rule kind: slow, simple, and built on nothing of the product.

An account keeps every movement and reading it accepted. A reading is judged by adding up, anew from all legs, what is
dated after the opening and at or before it; what is not yet judged waits in a list and is found by its time.
"""

from collections import defaultdict
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from tests.model.match_model import (
    EXACT,
    Event,
    Rule,
    content,
    duration,
    is_adjustment,
    key_of,
    look_up,
    microseconds,
    milliseconds,
    total,
)
from tests.model.outcome import Outcome, Published, instant, shown
from tests.model.records import (
    Leg,
    Records,
    as_taken,
    in_log_order,
    is_live,
    sign_of,
    signed,
    takes,
    unkeyed_adjustment,
    why,
)

RULE_DEFAULTS: Rule = {"measure": "amount", "opening": "snapshot", "tolerance": "0", "settle": "0s", "keep": "7d"}
ZERO = Decimal(0)


def run(rule: Rule, events: list[Event], until: str) -> Outcome:
    """Everything that is known when log time has reached `until`."""
    rule = {**RULE_DEFAULTS, **rule}
    outcome = Outcome()
    legs: dict[tuple[str, Any], list[Leg]] = defaultdict(list)
    end = milliseconds(until)
    for leg in in_log_order(events, outcome):
        event = leg.event
        end = max(end, leg.at)
        if not is_movement(rule, event) and not is_reading(rule, event):
            continue
        key, complete = key_of(rule, event)
        if not of_account(rule, key).get("enabled", True):
            continue
        reason = unkeyed_adjustment(rule, event) or unusable(rule, event) or (None if complete else "no match key")
        if reason is None or (is_reading(rule, event) and complete):
            legs[event["org"], key].append(replace(leg, event=taken(rule, event)))
        else:
            outcome.dead_letters.append({"id": event["id"], "reason": reason})
    for (org, key), of_key in legs.items():
        follow(Account({**rule, **of_account(rule, key)}, org, key), of_key, end, outcome)
    return outcome


def of_account(rule: Rule, key: Any) -> Rule:
    """What an account has instead of the rule's own; one that is switched off is not looked at."""
    return dict(rule.get("overrides", {}).get(key, {}))


def is_movement(rule: Rule, event: Event) -> bool:
    return takes(rule["movements"], event)


def is_reading(rule: Rule, event: Event) -> bool:
    return takes(rule["snapshots"], event, adjustments=False) and not is_movement(rule, event)


def counts(rule: Rule) -> bool:
    return rule["measure"] == "count"


def taken(rule: Rule, event: Event) -> Event:
    """What the rule keeps of an event: in a count nothing has a currency, and a movement no amount."""
    if not is_reading(rule, event):
        event = as_taken(rule["movements"], event)
    if not counts(rule):
        return event
    dropped = {"currency"} if is_reading(rule, event) or is_adjustment(event) else {"currency", "amount"}
    return {name: value for name, value in event.items() if name not in dropped}


def unusable(rule: Rule, event: Event) -> str | None:
    """Why an event is a dead letter for what it says itself."""
    lacks_amount = event.get("amount") is None or (not counts(rule) and event.get("currency") is None)
    if is_reading(rule, event):
        if look_up(event, "attrs.accounts") == "0":
            return "empty read"
        return "no amount" if lacks_amount else None
    if not is_live(rule["movements"], event) or (counts(rule) and not is_adjustment(event)):
        return None
    if lacks_amount:
        return "no amount"
    return "no sign" if sign_of(rule["movements"], event) is None else None


@dataclass(frozen=True)
class Reading:
    event: Event
    judged_after: int
    """Judged as soon as log time is greater than this."""

    @property
    def as_of(self) -> int:
        return microseconds(self.event["occurred_at"])

    @property
    def amount(self) -> Decimal:
        return Decimal(self.event["amount"])

    @property
    def rank(self) -> tuple[int, str]:
        return rank(self.event)


class Account:
    """Movements and adjustments of all currencies, and a book per currency."""

    def __init__(self, rule: Rule, org: str, key: Any) -> None:
        self.rule = rule
        self.org = org
        self.key = key
        self.legs: list[Leg] = []
        self.books: dict[str | None, Book] = {}

    def book(self, currency: str | None) -> "Book":
        return self.books.setdefault(currency, Book(self, currency))

    def records(self) -> Records:
        return Records(self.rule["movements"], self.legs)

    def value(self, event: Event) -> Decimal:
        if counts(self.rule) and not is_adjustment(event):
            return Decimal(1)
        return signed(self.rule["movements"], event)

    def accept(self, leg: Leg) -> str | None:
        """Take the leg in; the reason if it is a dead letter."""
        if is_reading(self.rule, leg.event):
            return self.book(leg.event.get("currency")).read(leg)
        return self.move(leg)

    def move(self, leg: Leg) -> str | None:
        oldest = (leg.at - duration(self.rule["keep"])) * 1000
        if not is_adjustment(leg.event) and microseconds(leg.event["occurred_at"]) < oldest:
            return "too late"
        before = self.records()
        if before.holds_other_content(leg.event):
            return "id reused"
        after = Records(self.rule["movements"], [*self.legs, leg])
        if after.same_as(before):
            return None
        counted = {currency: book.counted() for currency, book in self.books.items()}
        self.legs.append(leg)
        for currency, book in self.books.items():
            if book.judged is not None and book.counted() != counted[currency]:
                book.judge(leg.at, book.judged, why(leg, before, after))
        return None


class Book:
    """One currency of an account: its opening, the readings that wait, the latest judged one, its mismatch."""

    def __init__(self, account: Account, currency: str | None) -> None:
        self.account = account
        self.rule = account.rule
        self.currency = currency
        self.opening: Reading | None = None
        self.waiting: list[Reading] = []
        self.judged: Reading | None = None
        self.ranks: dict[int, tuple[int, str]] = {}
        """By as-of time: the greatest (sequence, id) ever read as of it."""
        self.mismatch = Published(account.rule, account.org, account.key, "BalanceMismatch")
        self.checks: dict[int, dict[str, Any]] = {}

    def given_opening(self) -> Decimal | None:
        given = self.rule["opening"]
        if isinstance(given, dict):
            given = given.get(self.account.key, {}).get(self.currency, "snapshot")
        return None if given == "snapshot" else Decimal(given)

    # ---- readings

    def read(self, leg: Leg) -> str | None:
        event = leg.event
        reason = unusable(self.rule, event)
        if reason is not None:
            self.tell(event, "error", reason=reason)
            return reason
        reading = Reading(event, leg.at + duration(self.rule["settle"]))
        held = [one.event for one in (self.opening, *self.waiting, self.judged) if one is not None]
        if any(one["id"] == event["id"] and content(one) != content(event) for one in held):
            return "id reused"
        if reading.as_of in self.ranks and reading.rank <= self.ranks[reading.as_of]:
            return None
        latest = max(self.ranks, default=reading.as_of)
        self.ranks[reading.as_of] = reading.rank
        if reading.as_of < latest:
            self.tell(event, "stale", actual=reading.amount)
        elif self.given_opening() is None and (self.opening is None or self.opening.as_of == reading.as_of):
            self.opening = reading
            self.tell(event, "opening", actual=reading.amount)
        else:
            self.waiting = [one for one in self.waiting if one.as_of != reading.as_of] + [reading]
            self.judge_what_need_not_wait(leg.at)
        return None

    def judge_what_need_not_wait(self, at: int) -> None:
        """`settle: 0s` is at once."""
        if duration(self.rule["settle"]) == 0:
            self.judge(at, self.waiting.pop(), "corrected")

    def judge_due(self, at: int) -> None:
        while self.waiting and self.waiting[0].judged_after < at:
            reading = self.waiting.pop(0)
            self.judge(reading.judged_after + 1, reading, "corrected")

    # ---- judgement

    def movements(self) -> list[Event]:
        live = self.account.records().live.values()
        return [event for event in live if event.get("currency") == self.currency]

    def adjustments(self) -> list[Event]:
        adjusting = self.account.records().adjustments.values()
        return [event for event in adjusting if event.get("currency") == self.currency]

    def in_reading(self, reading: Reading) -> list[Event]:
        """Dated at or before it and, where a reading was the opening, after that."""
        return [
            event
            for event in self.movements()
            if microseconds(event["occurred_at"]) <= reading.as_of
            and (self.opening is None or microseconds(event["occurred_at"]) > self.opening.as_of)
        ]

    def counted(self) -> Any:
        """Whatever the judgement of the latest judged reading rests on, record by record."""
        if self.judged is None:
            return None
        events = [*self.in_reading(self.judged), *self.adjustments()]
        return {
            (event["source"], event.get("record") or event["id"]): (
                None if is_adjustment(event) else microseconds(event["occurred_at"]),
                self.account.value(event),
            )
            for event in events
        }

    def expected(self, reading: Reading) -> Decimal:
        given = self.given_opening()
        opening = given if given is not None else self.opening.amount if self.opening is not None else ZERO
        events = [*self.in_reading(reading), *self.adjustments()]
        return total([opening, *(self.account.value(event) for event in events)])

    def explained(self, reading: Reading, drift: Decimal) -> Decimal:
        later = [event for event in self.movements() if microseconds(event["occurred_at"]) > reading.as_of]
        known = total([self.account.value(event) for event in later])
        return min(max(known, min(drift, ZERO)), max(drift, ZERO))

    def allowance(self, expected: Decimal) -> Decimal:
        """Absolute or in basis points of what is expected; with both, the larger."""
        share = EXACT.scaleb(Decimal(self.rule.get("tolerance_bps", 0)), -4)
        return max(Decimal(self.rule["tolerance"]), EXACT.multiply(EXACT.abs(expected), share))

    def judge(self, at: int, reading: Reading, resolution: str) -> None:
        self.judged = reading
        expected, actual = self.expected(reading), reading.amount
        drift = EXACT.subtract(actual, expected)
        passed = EXACT.abs(drift) <= self.allowance(expected)
        explained = self.explained(reading, drift)
        figures = {"expected": expected, "difference": drift, "explained": explained}
        figures["unexplained"] = EXACT.subtract(drift, explained)
        self.tell(reading.event, "passed" if passed else "failed", actual=actual, **figures)
        if not passed:
            self.mismatch.publish(at, (expected, actual), self.currency)
        elif self.mismatch.is_open:
            self.mismatch.resolve(at, resolution)

    def tell(self, event: Event, result: str, reason: str | None = None, **figures: Decimal) -> None:
        as_of = microseconds(event["occurred_at"])
        self.checks[as_of] = {
            "org": self.account.org,
            "rule": self.rule["name"],
            "key": list(self.account.key) if isinstance(self.account.key, tuple) else self.account.key,
            "currency": self.currency,
            "as_of": instant(as_of),
            "result": result,
            "reason": reason,
            **{name: shown(value, self.currency) for name, value in figures.items()},
        }


def rank(event: Event) -> tuple[int, str]:
    return event.get("sequence") or 0, event["id"]


def follow(account: Account, legs: list[Leg], end: int, outcome: Outcome) -> None:
    """One account from its first leg to the end of the log."""
    for leg in legs:
        for book in account.books.values():
            book.judge_due(leg.at)
        reason = account.accept(leg)
        if reason is not None:
            outcome.dead_letters.append({"id": leg.event["id"], "reason": reason})
    for book in account.books.values():
        book.judge_due(end)
        outcome.checks += book.checks.values()
        outcome.discrepancies += [book.mismatch.row] if book.mismatch.row["revision"] else []

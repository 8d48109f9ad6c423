"""The oracle of the `zero_sum` rule kind: slow, simple, and built on nothing of the product.

A group keeps the legs it accepted. Whenever something may have changed (a leg, the instant after its deadline), the
verdict of every currency is derived anew from all legs and the log time.
"""

from collections import defaultdict
from dataclasses import replace
from decimal import Decimal
from typing import Any

from tests.model.match_model import (
    Event,
    Rule,
    duration,
    is_adjustment,
    key_of,
    later,
    lonely_key,
    look_up,
    milliseconds,
    record_of,
    total,
)
from tests.model.outcome import Outcome, Published, shown
from tests.model.records import (
    Leg,
    Name,
    Records,
    as_taken,
    in_log_order,
    signed,
    takes,
    unkeyed_adjustment,
    unusable,
    why,
)

RULE_DEFAULTS: Rule = {"deadline": "24h", "keep": "24h", "expire": "90d"}
ZERO = Decimal(0)


def run(rule: Rule, events: list[Event], until: str) -> Outcome:
    """Everything that is known when log time has reached `until`."""
    rule = {**RULE_DEFAULTS, **rule}
    outcome = Outcome()
    legs: dict[tuple[str, Any], list[Leg]] = defaultdict(list)
    places: dict[tuple[str, Name], set[bool]] = defaultdict(set)
    end = milliseconds(until)
    for leg in in_log_order(events, outcome):
        event = leg.event
        end = max(end, leg.at)
        if not takes(rule["entries"], event):
            continue
        key, complete = key_of(rule, event)
        reason = unkeyed_adjustment(rule, event) or unusable(rule["entries"], event)
        if reason is not None:
            outcome.dead_letters.append({"id": event["id"], "reason": reason})
            continue
        if not complete:
            outcome.dead_letters.append({"id": event["id"], "reason": "no match key"})
        taken = replace(leg, event=as_taken(rule["entries"], event))
        legs[event["org"], key].append(taken)
        if is_adjustment(event):
            continue
        seen = places[event["org"], record_of(event)]
        seen.add(complete)
        if len(seen) == 2:
            legs[event["org"], lonely_key(event)].append(replace(taken, withdraws=True))
    for (org, key), of_key in legs.items():
        follow(rule, org, key, of_key, end, outcome)
    return outcome


class Group:
    """One transaction from its first entry until it is forgotten."""

    def __init__(self, rule: Rule, org: str, key: Any) -> None:
        self.rule = rule
        self.org = org
        self.key = key
        self.legs: list[Leg] = []
        self.found: dict[str, Published] = {}
        self.checks: dict[str, dict[str, Any]] = {}
        self.last_change = 0

    def records(self) -> Records:
        return Records(self.rule["entries"], self.legs)

    def deadline(self) -> int | None:
        """None as long as no entry has ever been live."""
        for count in range(1, len(self.legs) + 1):
            if Records(self.rule["entries"], self.legs[:count]).live:
                return later(self.legs[count - 1].at, self.rule["deadline"])
        return None

    def stated(self) -> int | None:
        """The greatest number of entries that a live one states; a word that is no whole number states none."""
        path = self.rule.get("complete", {}).get("count")
        words = [str(look_up(event, path) or "") for event in self.records().live.values()] if path else []
        return max((int(word) for word in words if word.isascii() and word.isdigit()), default=None)

    def is_complete(self) -> bool:
        stated = self.stated()
        return stated is not None and len(self.records().live) >= stated

    def is_over(self, at: int) -> bool:
        deadline = self.deadline()
        return deadline is not None and at > deadline

    def sums(self) -> dict[str, Decimal]:
        """Per currency present; adjustments count beside at least one live entry."""
        records = self.records()
        amounts: dict[str, list[Decimal]] = defaultdict(list)
        for event in [*records.live.values(), *(records.adjustments.values() if records.live else ())]:
            amounts[event["currency"]].append(signed(self.rule["entries"], event))
        return {currency: total(of_one) for currency, of_one in amounts.items()}

    def verdicts(self, at: int) -> dict[str, tuple[Decimal, str | None]]:
        """Sum and reason of each currency that is judged now; one that has left the transaction sums to zero."""
        if not self.is_complete() and not self.is_over(at):
            return {}
        too_few = self.stated() is not None and not self.is_complete()
        sums = self.sums()
        found = {}
        for currency in {*sums, *self.checks}:
            amount = sums.get(currency, ZERO)
            reason = "incomplete" if too_few and currency in sums else "unbalanced" if amount != ZERO else None
            found[currency] = (amount, reason)
        return found

    def judge(self, at: int, resolution: str | None) -> None:
        verdicts = self.verdicts(at)
        for currency, (amount, reason) in verdicts.items():
            self.checks[currency] = self.check(currency, amount, reason)
        for currency, known in self.found.items():
            if known.is_open and verdicts.get(currency, (ZERO, None))[1] is None:
                assert resolution is not None, "time alone makes nothing untrue"
                known.resolve(at, resolution)
                self.last_change = at
        for currency, (amount, reason) in verdicts.items():
            if reason is None:
                continue
            known = self.found.setdefault(currency, Published(self.rule, self.org, self.key_shown(), "LedgerImbalance"))
            names = frozenset(name for name, event in self.records().live.items() if event["currency"] == currency)
            if known.publish(at, (ZERO, amount), currency, reason=reason, records=names):
                self.last_change = at

    def check(self, currency: str, amount: Decimal, reason: str | None) -> dict[str, Any]:
        return {
            "org": self.org,
            "rule": self.rule["name"],
            "key": self.key_shown(),
            "currency": currency,
            "result": "passed" if reason is None else "failed",
            "reason": reason,
            "expected": shown(ZERO, currency),
            "actual": shown(amount, currency),
            "difference": shown(amount, currency),
            "entries": len(self.records().live),
            "of": self.stated(),
        }

    def key_shown(self) -> Any:
        return list(self.key) if isinstance(self.key, tuple) else self.key

    def accept(self, leg: Leg) -> str | None:
        """Take the leg in and judge again; else the reason why it is a dead letter."""
        before = self.records()
        if not leg.withdraws and before.holds_other_content(leg.event):
            return "id reused"
        after = Records(self.rule["entries"], [*self.legs, leg])
        if after.same_as(before):
            return None
        self.legs.append(leg)
        self.last_change = leg.at
        self.judge(leg.at, why(leg, before, after))
        return None

    def waits(self, at: int) -> bool:
        return self.deadline() is not None and not self.is_complete() and not self.is_over(at)

    def end_of_life(self, at: int) -> int | None:
        if self.waits(at):
            return None
        is_open = any(known.is_open for known in self.found.values())
        return self.last_change + duration(self.rule["expire" if is_open else "keep"]) + 1

    def next_instant(self, at: int) -> int | None:
        """The next log time at which something happens if no leg comes."""
        if self.waits(at):
            deadline = self.deadline()
            assert deadline is not None
            return deadline + 1
        return self.end_of_life(at)

    def leave(self) -> None:
        for known in self.found.values():
            if known.is_open:
                known.expire()


def follow(rule: Rule, org: str, key: Any, legs: list[Leg], end: int, outcome: Outcome) -> None:
    """One key from its first leg to the end of the log: one group after the other."""
    group: Group | None = None
    checks: dict[str, dict[str, Any]] = {}

    def close(ended: Group) -> None:
        outcome.discrepancies += [known.row for known in ended.found.values()]
        outcome.deadlines.append((org, key, ended.deadline()))
        checks.update(ended.checks)

    def pass_time(now: int, to: int) -> None:
        nonlocal group
        while group is not None:
            at = group.next_instant(now)
            if at is None or at > to:
                return
            now = max(now, at)
            group.judge(now, None)
            death = group.end_of_life(now)
            if death is not None and death <= now:
                group.leave()
                close(group)
                outcome.forgotten += 1
                group = None

    now = 0
    for leg in legs:
        pass_time(now, leg.at)
        now = leg.at
        current = group or Group(rule, org, key)
        reason = current.accept(leg)
        if reason is not None:
            outcome.dead_letters.append({"id": leg.event["id"], "reason": reason})
        group = current if current.legs else None
    pass_time(now, end)
    if group is not None:
        close(group)
    outcome.checks += checks.values()

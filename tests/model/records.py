"""What one selector of a rule takes from an event, and what a group's events of one selector say together.

`movements`, `entries` and `snapshots` are such selectors. Of the events of one record the newest counts, whole;
a superseded record never counts again; an adjustment is replaced and superseded like a record, but is none.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase

from tests.model.match_model import (
    EXACT,
    NOT_LIVE,
    Event,
    Rule,
    as_list,
    content,
    is_adjustment,
    key_of,
    look_up,
    microseconds,
    milliseconds,
    order,
    record_of,
    refused,
)
from tests.model.outcome import Outcome

Name = tuple[str, str]  # source, record


@dataclass(frozen=True)
class Leg:
    at: int
    """Log time at which it is applied."""
    event: Event
    withdraws: bool = False
    """The record of this event leaves the group for good: it came under a key as well."""


def in_log_order(events: list[Event], outcome: Outcome) -> Iterator[Leg]:
    """The log: by `received_at` (without: `occurred_at`), ties as given; what is refused never gets there."""
    timed = [{"received_at": event["occurred_at"], **event} for event in events]
    for event in sorted(timed, key=lambda one: microseconds(one["received_at"])):
        if refused(event):
            outcome.refused.append(event["id"])
        else:
            yield Leg(milliseconds(event["received_at"]), event)


def takes(selector: Rule, event: Event, *, adjustments: bool = True) -> bool:
    """An adjustment that names a discrepancy belongs to its source, whatever types are listed."""
    if event["source"] not in as_list(selector["source"]):
        return False
    if is_adjustment(event):
        return adjustments
    return any(fnmatchcase(event["type"], pattern) for pattern in as_list(selector["type"]))


def is_live(selector: Rule, event: Event) -> bool:
    status = event.get("status")
    if "live" in selector:
        return status in selector["live"]
    return status is None or not any(fnmatchcase(status, pattern) for pattern in NOT_LIVE)


def sign_of(selector: Rule, event: Event) -> int | None:
    """Which way an amount counts; None where it cannot be told."""
    sign = selector.get("sign", 1)
    if not isinstance(sign, dict):
        return int(sign)
    word = look_up(event, sign["by"])
    return int(sign[word]) if word in sign and word != "by" else None


def signed(selector: Rule, event: Event) -> Decimal:
    sign = sign_of(selector, event)
    assert sign is not None, "an event whose sign cannot be told is a dead letter"
    return EXACT.multiply(Decimal(event["amount"]), Decimal(sign))


def as_taken(selector: Rule, event: Event) -> Event:
    """What a rule keeps of an event that it takes: no amount whose sign cannot be told."""
    if sign_of(selector, event) is not None:
        return event
    return {name: value for name, value in event.items() if name != "amount"}


def unusable(selector: Rule, event: Event) -> str | None:
    """Why a live event of amounts is a dead letter; one that is not live needs no amount."""
    if not is_live(selector, event):
        return None
    if event.get("amount") is None or event.get("currency") is None:
        return "no amount"
    return "no sign" if sign_of(selector, event) is None else None


def unkeyed_adjustment(rule: Rule, event: Event) -> str | None:
    """No group can be told that it adjusts; it is no record, so it has none of its own."""
    return "no match key" if is_adjustment(event) and not key_of(rule, event)[1] else None


class Records:
    """What follows from the accepted legs of a group, whatever the time is."""

    def __init__(self, selector: Rule, legs: list[Leg]) -> None:
        self.superseded: set[Name] = {
            (leg.event["source"], leg.event["supersedes"])
            for leg in legs
            if leg.event.get("supersedes") not in (None, record_of(leg.event)[1])
        }
        events: dict[Name, list[Event]] = defaultdict(list)
        withdrawn = {record_of(leg.event) for leg in legs if leg.withdraws}
        for leg in legs:
            if record_of(leg.event) not in withdrawn:
                events[record_of(leg.event)].append(leg.event)
        self.names = set(events)
        self.held = {name: max(of_one, key=order) for name, of_one in events.items() if name not in self.superseded}
        live = {name: event for name, event in self.held.items() if is_live(selector, event)}
        self.live = {name: event for name, event in live.items() if not is_adjustment(event)}
        self.adjustments = {name: event for name, event in live.items() if is_adjustment(event)}

    def same_as(self, other: "Records") -> bool:
        mine, others = (
            (records.superseded, {name: content(event) for name, event in records.held.items()})
            for records in (self, other)
        )
        return mine == others

    def holds_other_content(self, event: Event) -> bool:
        """Under the id of this event, which names it within its source."""
        return any(
            (held["source"], held["id"]) == (event["source"], event["id"]) and content(held) != content(event)
            for held in self.held.values()
        )


def why(leg: Leg, before: Records, after: Records) -> str:
    """The resolution of what this leg makes untrue."""
    if leg.withdraws:
        return "superseded"
    if is_adjustment(leg.event):
        return "adjusted"
    if set(before.held) & (after.superseded - before.superseded):
        return "superseded"
    name = record_of(leg.event)
    if name not in before.names:
        return "late_arrival"
    return "voided" if name in before.live and name not in after.live else "corrected"

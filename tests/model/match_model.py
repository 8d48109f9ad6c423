"""The oracle of the `match` rule kind: slow, simple, and built on nothing of the product.

A group keeps every leg it accepted and nothing else. Whenever something may have changed (a leg, or an instant
at which a deadline, a settling time, `keep` or `expire` runs out), what is *true* is derived anew from all legs,
what *should be open* from the truths and the log time, and the difference to what was published becomes revisions.
There are no timers: the instants are found by asking every truth from when on it may be raised.

Times are whole milliseconds since 1970 (`occurred_at`: microseconds). A time t has run out at t + 1 ms.
"""

import json
import uuid
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal, Inexact
from fnmatch import fnmatchcase
from typing import Any

Event = dict[str, Any]
Rule = dict[str, Any]
Identity = tuple[str, str, str | None, tuple[str, str] | None]  # type, side, currency of a sum, duplicate record

NOT_LIVE = ["created", "pending", "authorized", "requires_*", "processing", "failed", "canceled", "voided", "expired"]
SIGNED_TYPES = ("entry.", "movement.", "adjustment.", "balance.")
AHEAD_MAX_MS = 10 * 60 * 1000
DAY_MS = 24 * 60 * 60 * 1000
UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": DAY_MS, "w": 7 * DAY_MS}
NO_DECIMALS = [
    "BIF",
    "CLP",
    "DJF",
    "GNF",
    "ISK",
    "JPY",
    "KMF",
    "KRW",
    "PYG",
    "RWF",
    "UGX",
    "VND",
    "VUV",
    "XAF",
    "XOF",
    "XPF",
]
THREE_DECIMALS = ["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"]
IDS = uuid.uuid5(uuid.NAMESPACE_OID, "tieout")
MISSING_TYPES = {"internal": "MissingInternalRecord", "provider": "MissingProviderRecord"}
RULE_DEFAULTS: Rule = {  # only what the design gives; everything else a rule must say
    "deadline": "24h",
    "settle": "0s",
    "keep": "24h",
    "expire": "90d",
    "cardinality": "one_to_one",
    "severity": {"default": "medium"},
}
HOLIDAYS: dict[str, set[str]] = {  # of 2026, as the authorities announced them
    "None": set(),
    "TARGET": {"2026-01-01", "2026-04-03", "2026-04-06", "2026-05-01", "2026-12-25"},
    "DE": {"2026-01-01", "2026-04-03", "2026-04-06", "2026-05-01", "2026-05-14", "2026-05-25", "2026-12-25"},
    "{'country': 'DE', 'subdivision': 'BY'}": {"2026-01-01", "2026-01-06", "2026-04-03", "2026-04-06", "2026-06-04"},
}
EXACT = Context(prec=400, traps=[Inexact])


@dataclass
class Outcome:
    discrepancies: list[dict[str, Any]] = field(default_factory=list)
    dead_letters: list[str] = field(default_factory=list)
    refused: int = 0
    matches: int = 0
    deadlines: dict[tuple[Any, ...], list[dict[str, int]]] = field(default_factory=dict)
    """Per (org, rule, key): for each group that stood under the key, one after the other, its deadline by side."""
    forgotten: int = 0
    """Groups that `keep` or `expire` ended before the end."""
    groups: list[Any] = field(default_factory=list)
    """Every `Group` that ever stood, as it was at its end."""
    openers: list[tuple[Any, ...]] = field(default_factory=list)
    """Of every group that ever stood: org, rule, key and the id of the event that opened it."""


@dataclass(frozen=True)
class Leg:
    at: int
    """Log time at which it was applied."""
    received: int
    side: str
    event: Event
    withdraws: bool = False
    """The record of this event leaves the group: it came under a key as well."""


@dataclass(frozen=True)
class Record:
    """One object a source speaks about, as its newest event has it."""

    name: tuple[str, str]
    side: str
    earliest: int
    event: Event
    live: bool
    sign: int | None
    """None where it cannot be told; then the record has no amount, and is not live."""

    @property
    def amount(self) -> Decimal | None:
        if self.event.get("amount") is None or self.sign is None:
            return None
        return EXACT.multiply(Decimal(self.event["amount"]), Decimal(self.sign))

    @property
    def currency(self) -> str | None:
        return self.event.get("currency")

    @property
    def place(self) -> tuple[Any, ...]:
        return (self.earliest, *self.name)


@dataclass(frozen=True)
class Truth:
    """Something that differs, whether or not it may be raised yet."""

    identity: Identity
    expected: Decimal | str | None
    actual: Decimal | str | None
    difference: Decimal | None
    currency: str | None
    records: frozenset[tuple[str, str]]
    after: int | None = None
    """Not raised before log time is greater than this."""
    settles: bool = True


def run(rules: list[Rule], events: list[Event], until: str) -> Outcome:
    """Everything that is known when log time has reached `until`; events in arrival order, with `received_at`."""
    outcome = Outcome()
    legs: dict[tuple[int, str, Any], list[Leg]] = defaultdict(list)
    full_rules = [{**RULE_DEFAULTS, **rule} for rule in rules]
    log_time = 0
    places: dict[tuple[int, str, tuple[str, str]], set[bool]] = defaultdict(set)
    for event in events:
        if refused(event):
            outcome.refused += 1
            continue
        log_time = max(log_time, milliseconds(event["received_at"]))
        if lost_adjustment(full_rules, event):
            outcome.dead_letters.append("no match key")
        for number, rule in enumerate(full_rules):
            side = side_of(rule, event)
            if side is None:
                continue
            reason = unusable(rule, side, event)
            if reason is not None:
                outcome.dead_letters.append(reason)
                continue
            key, complete = key_of(rule, event)
            if not complete:
                outcome.dead_letters.append("no match key")
            leg = Leg(log_time, milliseconds(event["received_at"]), side, event)
            legs[number, event["org"], key].append(leg)
            if is_adjustment(event):
                continue
            seen = places[number, event["org"], record_of(event)]
            seen.add(complete)
            if len(seen) == 2:
                legs[number, event["org"], lonely_key(event)].append(replace(leg, withdraws=True))
    end = max(log_time, milliseconds(until))
    for (number, org, key), group_legs in legs.items():
        follow(Key(full_rules[number], org, key), group_legs, end, outcome)
    return outcome


# ---- what an event is to a rule


def refused(event: Event) -> bool:
    if microseconds(event["occurred_at"]) > microseconds(event["received_at"]) + AHEAD_MAX_MS * 1000:
        return True
    negative = event.get("amount") is not None and Decimal(event["amount"]) < 0
    return negative and not event["type"].startswith(SIGNED_TYPES)


def is_adjustment(event: Event) -> bool:
    return event["type"].startswith("adjustment.") and bool(event.get("refs", {}).get("discrepancy"))


def lost_adjustment(rules: list[Rule], event: Event) -> bool:
    """No rule can tell which group it adjusts, though one knows its source. It is no record, so it makes no group."""
    sources = {source for rule in rules for side in rule["sides"].values() for source in as_list(side["source"])}
    taken = any(side_of(rule, event) is not None for rule in rules)
    return is_adjustment(event) and event["source"] in sources and not taken


def side_of(rule: Rule, event: Event) -> str | None:
    for side, selector in rule["sides"].items():
        if event["source"] not in as_list(selector["source"]):
            continue
        if is_adjustment(event):
            return side if key_of(rule, event)[1] else None
        if any(fnmatchcase(event["type"], pattern) for pattern in as_list(selector["type"])):
            return side
    return None


def key_of(rule: Rule, event: Event) -> tuple[Any, bool]:
    """The key and whether all of it is there; a record without key is alone under its own name."""
    parts = [look_up(event, path) for path in as_list(rule["key"])]
    if not all(parts):
        return lonely_key(event), False
    return (parts[0] if len(parts) == 1 else tuple(parts)), True


def lonely_key(event: Event) -> str:
    return f"record:{event['source']}/{record_of(event)[1]}"


def record_of(event: Event) -> tuple[str, str]:
    return event["source"], event.get("record") or event["id"]


def head_of(rule: Rule, side: str) -> str:
    """The side under whose name a side is compared: of those that are added up the first that the rule names."""
    for parts in ((rule["compare"].get("amount") or {}).get("equals") or {}).values():
        if side in parts:
            return next(one for one in rule["sides"] if one in parts)
    return side


def is_live(rule: Rule, side: str, event: Event) -> bool:
    status = event.get("status")
    wanted = rule["sides"][side].get("live")
    if wanted is not None:
        return status in wanted
    return status is None or not any(fnmatchcase(status, pattern) for pattern in NOT_LIVE)


def sign_of(rule: Rule, leg_side: str, event: Event) -> int | None:
    """Which way an amount counts; None where it cannot be told."""
    sign = rule["sides"][leg_side].get("sign", 1)
    if not isinstance(sign, dict):
        return int(sign)
    word = look_up(event, sign["by"])
    return int(sign[word]) if word in sign and word != "by" else None


def unusable(rule: Rule, side: str, event: Event) -> str | None:
    """Why the event goes to the dead letters of this rule for what it says itself."""
    if is_adjustment(event):
        return None if event.get("amount") and event.get("currency") else "no amount"
    if not is_live(rule, side, event):
        return None
    compared = [name for name in ("amount", "currency") if name in rule["compare"]]
    if any(event.get(name) is None for name in compared):
        return "no amount"
    return "no sign" if event.get("amount") is not None and sign_of(rule, side, event) is None else None


def order(event: Event) -> tuple[int, int, str]:
    return microseconds(event["occurred_at"]), event.get("sequence") or 0, event["id"]


def said(rule: Rule, leg: Leg) -> Event:
    """What an event says beside what it supersedes; an amount whose sign cannot be told is none."""
    has_amount = is_adjustment(leg.event) or sign_of(rule, leg.side, leg.event) is not None
    unsaid = {"supersedes"} if has_amount else {"supersedes", "amount"}
    return {name: value for name, value in content(leg.event).items() if name not in unsaid}


def content(event: Event) -> Event:
    return {name: value for name, value in event.items() if name != "received_at" and value is not None}


# ---- what the legs of a group say together


@dataclass(frozen=True)
class Key:
    rule: Rule
    org: str
    value: Any


class Facts:
    """What follows from the accepted legs alone, whatever the time is."""

    def __init__(self, key: Key, legs: list[Leg]) -> None:
        self.rule = key.rule
        self.superseded = {
            (leg.event["source"], leg.event["supersedes"])
            for leg in legs
            if leg.event.get("supersedes") not in (None, record_of(leg.event)[1])
        }
        withdrawn = {record_of(leg.event) for leg in legs if leg.withdraws}
        by_record: dict[tuple[str, str], list[Leg]] = defaultdict(list)
        for leg in legs:
            if record_of(leg.event) not in withdrawn:
                by_record[record_of(leg.event)].append(leg)
        self.held = [max(of_one, key=lambda leg: order(leg.event)) for of_one in by_record.values()]
        self.earliest = {
            name: min(microseconds(leg.event["occurred_at"]) for leg in of_one) for name, of_one in by_record.items()
        }
        counted = [leg for leg in self.held if record_of(leg.event) not in self.superseded]
        self.records = [self._record(leg) for leg in counted if not is_adjustment(leg.event)]
        adjustments = [leg for leg in counted if is_adjustment(leg.event) and is_live(key.rule, leg.side, leg.event)]
        opener = legs[0].event["id"] if legs else ""
        self.duplicate_ids = {
            (side, name): duplicate_id(key, opener, side, name)
            for side in key.rule["sides"]
            for name in {record_of(leg.event) for leg in self.held if not is_adjustment(leg.event)} | self.superseded
            if not sums(key.rule)
        }
        own = set(self.duplicate_ids.values())
        self.adjustments = [leg for leg in adjustments if leg.event["refs"]["discrepancy"] not in own]
        self.duplicate_adjustments = [leg for leg in adjustments if leg.event["refs"]["discrepancy"] in own]

    def _record(self, leg: Leg) -> Record:
        name = record_of(leg.event)
        live = is_live(self.rule, leg.side, leg.event)
        side = head_of(self.rule, leg.side)
        return Record(name, side, self.earliest[name], leg.event, live, sign_of(self.rule, leg.side, leg.event))

    def same_as(self, other: "Facts") -> bool:
        """A superseded record never counts again, so what comes of it later is nothing new."""
        mine, others = (
            (
                facts.superseded,
                {name: at for name, at in facts.earliest.items() if name not in facts.superseded},
                {
                    record_of(leg.event): content(leg.event)
                    for leg in facts.held
                    if record_of(leg.event) not in facts.superseded
                },
            )
            for facts in (self, other)
        )
        return mine == others

    def holds_other_content(self, leg: Leg) -> bool:
        """Under the id of this event, which names it within its source; a superseded record is held no longer.

        Of what it supersedes only something new is another content.
        """
        event = leg.event
        held = [one for one in self.held if record_of(one.event) not in self.superseded]
        under_this_id = [
            one for one in held if (one.event["source"], one.event["id"]) == (event["source"], event["id"])
        ]
        supersedes = event.get("supersedes")
        tells_more = supersedes not in (None, record_of(event)[1])
        tells_more = tells_more and (event["source"], supersedes) not in self.superseded
        return any(tells_more or said(self.rule, one) != said(self.rule, leg) for one in under_this_id)

    def on(self, side: str) -> list[Record]:
        return sorted((one for one in self.records if one.side == side), key=lambda one: one.place)

    def live_on(self, side: str) -> list[Record]:
        return [one for one in self.on(side) if one.live]

    def any_live(self) -> bool:
        return any(one.live for one in self.records)

    def present(self) -> list[str]:
        return [side for side in self.rule["sides"] if self.on(side)]

    def missing(self) -> list[str]:
        return [side for side in self.rule["sides"] if head_of(self.rule, side) == side and not self.on(side)]

    def compared(self, side: str) -> Record:
        return (self.live_on(side) or self.on(side))[0]

    def adjusted(self, side: str, amount: Decimal | None, currency: str | None) -> Decimal | None:
        if amount is None:
            return None
        return total([amount, *self.adjusting(side, currency)])

    def adjusting(self, side: str, currency: str | None) -> list[Decimal]:
        return [
            Decimal(leg.event["amount"])
            for leg in self.adjustments
            if head_of(self.rule, leg.side) == side and leg.event["currency"] == currency
        ]


def armed_at(key: Key, legs: list[Leg]) -> int | None:
    """When the leg was received that first made a record of the group live."""
    for count in range(1, len(legs) + 1):
        if Facts(key, legs[:count]).any_live():
            return legs[count - 1].received
    return None


def deadlines(key: Key, legs: list[Leg]) -> dict[str, int]:
    """By the side that may be missing; empty while the group is not armed."""
    armed = armed_at(key, legs)
    if armed is None:
        return {}
    given = key.rule["deadline"]
    closed = HOLIDAYS[str(key.rule.get("calendar"))]
    return {side: later(armed, given[side] if isinstance(given, dict) else given, closed) for side in key.rule["sides"]}


def duplicate_id(key: Key, opener: str, side: str, name: tuple[str, str]) -> str:
    """The id under which a record of this name would be a suspected duplicate."""
    values = key.value if isinstance(key.value, tuple) else (key.value,)
    words = [key.org, key.rule["name"], *values, opener, "DuplicateChargeSuspected", side, *name]
    return str(uuid.uuid5(IDS, json.dumps(words, ensure_ascii=False, separators=(",", ":"))))


def truths(key: Key, legs: list[Leg]) -> dict[Identity, Truth]:
    facts = Facts(key, legs)
    if not facts.any_live():
        return {}
    limits = deadlines(key, legs)
    if sums(key.rule):
        found = missing_sums(facts, limits) + different_sums(facts, limits)
    else:
        found = missing_records(facts, limits) + different_records(facts, limits) + duplicates(facts)
    assert len({one.identity for one in found}) == len(found)
    return {one.identity: one for one in found}


def missing_records(facts: Facts, limits: dict[str, int]) -> list[Truth]:
    present = next(side for side in facts.present() if facts.live_on(side))
    known = facts.compared(present)
    names = frozenset([known.name])
    found = [
        missing(facts, side, None, present, known.amount, known.currency, names, limits[side])
        for side in facts.missing()
    ]
    return [truth for truth in found if truth is not None]


def missing_sums(facts: Facts, limits: dict[str, int]) -> list[Truth]:
    present = next(side for side in facts.present() if facts.live_on(side))
    found = [
        missing(
            facts, side, currency, present, sum_of_records(facts, present, currency), currency,
            names_in(facts, [present], currency), limits[side],
        )
        for side in facts.missing()
        for currency in currencies(facts, present)
    ]  # fmt: skip
    return [truth for truth in found if truth is not None]


def missing(facts: Facts, side: str, sum_currency: str | None, present: str, known: Decimal | None,
            currency: str | None, records: frozenset[tuple[str, str]], deadline: int) -> Truth | None:  # fmt: skip
    """Nothing is missing where adjustments make up for it; where they do so in part, the rest is."""
    here = total(facts.adjusting(side, currency)) if facts.adjusting(side, currency) else None
    there = facts.adjusted(present, known, currency)
    names = list(facts.rule["sides"])
    expected, actual = (here, there) if names.index(side) < names.index(present) else (there, here)
    made_up = facts.adjusting(side, currency) or facts.adjusting(present, currency)
    # A record of unknown worth is not made up for by what is added to it.
    worth, stand_in = total([known or Decimal(0), *facts.adjusting(present, currency)]), here or Decimal(0)
    one, other = (stand_in, worth) if names.index(side) < names.index(present) else (worth, stand_in)
    if made_up and agree(facts.rule["compare"].get("amount", {}), one, other):
        return None
    identity = (MISSING_TYPES.get(side, "MissingRecord"), side, sum_currency, None)
    return Truth(identity, expected, actual, gap(expected, actual), currency, records, deadline, settles=False)


def different_records(facts: Facts, limits: dict[str, int]) -> list[Truth]:
    reference, *others = facts.present()
    gate = max((limits[side] for side in facts.missing()), default=None)
    return [
        truth
        for side in others
        for truth in compare_records(facts, facts.compared(reference), facts.compared(side), gate)
    ]


def compare_records(facts: Facts, first: Record, second: Record, gate: int | None) -> list[Truth]:
    side, compare = second.side, facts.rule["compare"]
    records = frozenset([first.name, second.name])
    found = []
    both_currencies = first.currency is not None and second.currency is not None
    if "currency" in compare and both_currencies and first.currency != second.currency:
        identity = ("CurrencyMismatch", side, None, None)
        found.append(Truth(identity, first.currency, second.currency, None, first.currency, records, gate))
    elif "amount" in compare and (both_currencies or "currency" not in compare):
        expected = facts.adjusted(first.side, first.amount, first.currency)
        actual = facts.adjusted(side, second.amount, second.currency)
        if expected is not None and actual is not None and not agree(compare["amount"], expected, actual):
            identity = ("AmountMismatch", side, None, None)
            difference = gap(expected, actual)
            currency = first.currency or second.currency
            found.append(Truth(identity, expected, actual, difference, currency, records, gate))
    words = first.event.get("status"), second.event.get("status")
    if "status" in compare and all(words):
        differ = translated(facts.rule, first) != translated(facts.rule, second)
    else:
        differ = first.live != second.live
    if differ:
        identity = ("StatusMismatch", side, None, None)
        found.append(Truth(identity, *words, None, first.currency or second.currency, records, gate))
    return found


def different_sums(facts: Facts, limits: dict[str, int]) -> list[Truth]:
    reference, *others = facts.present()
    gate = max(limits.values())
    found = []
    for side in others:
        ours, theirs = currencies(facts, reference), currencies(facts, side)
        if "currency" in facts.rule["compare"] and ours and theirs and ours != theirs:
            records = frozenset(one.name for at in (reference, side) for one in facts.live_on(at))
            identity = ("CurrencyMismatch", side, None, None)
            named = [", ".join(currency or "" for currency in held) for held in (ours, theirs)]
            found.append(Truth(identity, named[0], named[1], None, ours[0], records, gate))
            continue
        if "amount" not in facts.rule["compare"]:
            continue
        adjusted = {leg.event["currency"] for leg in facts.adjustments if leg.side in (reference, side)}
        for currency in sorted({*ours, *theirs, *adjusted}, key=lambda currency: currency or ""):
            expected, actual = sum_of(facts, reference, currency), sum_of(facts, side, currency)
            if agree(facts.rule["compare"]["amount"], expected, actual):
                continue
            records = names_in(facts, [reference, side], currency)
            identity = ("AmountMismatch", side, currency, None)
            found.append(Truth(identity, expected, actual, gap(expected, actual), currency, records, gate))
    return found


def duplicates(facts: Facts) -> list[Truth]:
    found = []
    for side in facts.rule["duplicates"]:
        first = side == next(iter(facts.rule["sides"]))
        for extra in facts.live_on(side)[1:]:
            identity = ("DuplicateChargeSuspected", side, None, extra.name)
            offsets = [
                Decimal(leg.event["amount"])
                for leg in facts.duplicate_adjustments
                if leg.event["refs"]["discrepancy"] == facts.duplicate_ids[side, extra.name]
                and leg.event["currency"] == extra.currency
            ]
            amount = extra.amount if not offsets else total([extra.amount or Decimal(0), *offsets])
            if offsets and amount == 0:
                continue
            expected, actual = (amount, None) if first else (None, amount)
            records = frozenset([extra.name])
            difference = gap(expected, actual)
            found.append(Truth(identity, expected, actual, difference, extra.currency, records, None, settles=False))
    return found


def currencies(facts: Facts, side: str) -> list[str | None]:
    return sorted({one.currency for one in facts.live_on(side)}, key=lambda currency: currency or "")


def sum_of_records(facts: Facts, side: str, currency: str | None) -> Decimal:
    return total([one.amount for one in facts.live_on(side) if one.currency == currency and one.amount is not None])


def sum_of(facts: Facts, side: str, currency: str | None) -> Decimal:
    return total([sum_of_records(facts, side, currency), *facts.adjusting(side, currency)])


def names_in(facts: Facts, sides: list[str], currency: str | None) -> frozenset[tuple[str, str]]:
    return frozenset(one.name for side in sides for one in facts.live_on(side) if one.currency == currency)


def translated(rule: Rule, record: Record) -> str | None:
    words = rule["compare"]["status"].get("map", {}).get(record.side, {})
    status = record.event.get("status")
    return words.get(status, status)


def agree(allowed: dict[str, str], expected: Decimal, actual: Decimal) -> bool:
    tolerance = Decimal(allowed.get("tolerance", "0"))
    percent = EXACT.multiply(EXACT.abs(expected), EXACT.scaleb(Decimal(allowed.get("percent", "0")), -2))
    return EXACT.abs(EXACT.subtract(actual, expected)) <= max(tolerance, percent)


def gap(expected: Decimal | None, actual: Decimal | None) -> Decimal | None:
    if expected is None and actual is None:
        return None
    return EXACT.subtract(actual or Decimal(0), expected or Decimal(0))


def total(amounts: list[Decimal]) -> Decimal:
    result = Decimal(0)
    for amount in amounts:
        result = EXACT.add(result, amount)
    return result


# ---- one key through time


class Group:
    """One group from its first leg until it is forgotten: the accepted legs, and the revisions so far."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.rule = key.rule
        self.legs: list[Leg] = []
        self.published: dict[Identity, dict[str, Any]] = {}
        self.last_change = 0

    def may_raise_after(self, truth: Truth) -> int:
        """The truth may be raised at each log time greater than this."""
        after = truth.after if truth.after is not None else -1
        wait = duration(self.rule["settle"])
        if not truth.settles or wait == 0:
            return after
        return max(after, self.true_since(truth.identity) + wait)

    def true_since(self, identity: Identity) -> int:
        since = self.legs[-1].at
        for count in range(len(self.legs), 0, -1):
            if identity not in truths(self.key, self.legs[:count]):
                break
            since = self.legs[count - 1].at
        return since

    def due(self, at: int) -> dict[Identity, Truth]:
        """What should be open at this log time."""
        return {
            identity: truth
            for identity, truth in truths(self.key, self.legs).items()
            if at > self.may_raise_after(truth)
        }

    def open(self) -> list[dict[str, Any]]:
        return [one for one in self.published.values() if one["state"] == "raised"]

    def settled(self, at: int) -> bool:
        return not self.open() and not truths(self.key, self.legs)

    def matched(self) -> bool:
        return Facts(self.key, self.legs).any_live() and not truths(self.key, self.legs)

    def next_instant(self, at: int) -> int | None:
        """The next log time at which something happens if no leg comes."""
        waits = [self.may_raise_after(truth) for truth in truths(self.key, self.legs).values()]
        later_than_now = [wait + 1 for wait in waits if wait + 1 > at]
        end = self.end_of_life(at)
        if end is not None:
            later_than_now.append(end)
        return min(later_than_now, default=None)

    def end_of_life(self, at: int) -> int | None:
        if self.settled(at):
            return self.last_change + duration(self.rule["keep"]) + 1
        waits = any(self.may_raise_after(one) >= at for one in truths(self.key, self.legs).values())
        if self.open() and not waits:
            return self.last_change + duration(self.rule["expire"]) + 1
        return None

    def leave(self, at: int) -> None:
        for one in self.open():
            one["expired"] = True
            one["revision"] += 1

    def accept(self, leg: Leg) -> str | None:
        """Take the leg in and judge again; else the reason why it is a dead letter."""
        before = Facts(self.key, self.legs)
        if not leg.withdraws and before.holds_other_content(leg):
            return "id reused"
        after = Facts(self.key, [*self.legs, leg])
        if after.same_as(before):
            return None
        self.legs.append(leg)
        self.last_change = leg.at
        self.judge(leg.at, why(leg, before, after))
        return None

    def judge(self, at: int, resolution: str | None) -> None:
        due = self.due(at)
        for one in self.open():
            if one["identity"] not in due:
                assert resolution is not None, "time alone makes nothing untrue"
                one.update(state="resolved", resolution=resolution, resolved_at=timestamp(at))
                one["revision"] += 1
                self.last_change = at
        for identity, truth in due.items():
            self.publish(at, identity, truth)

    def publish(self, at: int, identity: Identity, truth: Truth) -> None:
        said = self.published.get(identity)
        word = {
            "state": "raised",
            "severity": severity(self.rule, truth),
            "expected": shown(truth.expected, truth.currency),
            "actual": shown(truth.actual, truth.currency),
            "difference": shown(truth.difference, truth.currency),
            "currency": truth.currency,
            "records": truth.records,
        }
        if said is None:
            said = self.published[identity] = self.first(at, identity)
        elif all(said[name] == value for name, value in word.items()):
            return
        said.update(word, resolution=None, resolved_at=None, revision=said["revision"] + 1)
        self.last_change = at

    def first(self, at: int, identity: Identity) -> dict[str, Any]:
        kind, side, _, duplicate = identity
        value = self.key.value
        return {
            "identity": identity,
            "id": self.id_of(identity),
            "org": self.key.org,
            "rule": self.rule["name"],
            "type": kind,
            "side": side,
            "key": list(value) if isinstance(value, tuple) else value,
            "duplicate": duplicate[1] if duplicate else None,
            "raised_at": timestamp(at),
            "expired": False,
            "revision": 0,
        }

    def id_of(self, identity: Identity) -> str:
        kind, side, currency, duplicate = identity
        if duplicate:
            return duplicate_id(self.key, self.legs[0].event["id"], side, duplicate)
        values = self.key.value if isinstance(self.key.value, tuple) else (self.key.value,)
        words = [self.key.org, self.rule["name"], *values, self.legs[0].event["id"], kind, side]
        if sums(self.rule) and kind != "CurrencyMismatch":
            words.append(currency or "")
        return str(uuid.uuid5(IDS, json.dumps(words, ensure_ascii=False, separators=(",", ":"))))


def why(leg: Leg, before: Facts, after: Facts) -> str:
    """The resolution of what this leg makes untrue."""
    if leg.withdraws:
        return "superseded"
    if is_adjustment(leg.event):
        return "adjusted"
    name = record_of(leg.event)
    gone = {one.name for one in before.records} & (after.superseded - before.superseded)
    if gone:
        return "superseded"
    if name not in before.earliest:
        return "late_arrival"
    was_live = any(one.name == name and one.live for one in before.records)
    is_still = any(one.name == name and one.live for one in after.records)
    return "voided" if was_live and not is_still else "corrected"


def follow(key: Key, legs: list[Leg], end: int, outcome: Outcome) -> None:
    """One key from its first leg to the end of the log: one group after the other."""
    group: Group | None = None

    def pass_time(now: int, to: int) -> None:
        nonlocal group
        while group is not None:
            instant = group.next_instant(now)
            if instant is None or instant > to:
                return
            now = max(now, instant)
            group.judge(now, None)
            death = group.end_of_life(now)
            if death is not None and death <= now:
                group.leave(now)
                close(group, outcome)
                outcome.forgotten += 1
                group = None

    now = 0
    for leg in legs:
        pass_time(now, leg.at)
        now = leg.at
        current = group or Group(key)
        reason = current.accept(leg)
        if reason is not None:
            outcome.dead_letters.append(reason)
        group = current if current.legs else None
    pass_time(now, end)
    if group is not None:
        close(group, outcome)


def close(group: Group, outcome: Outcome) -> None:
    hidden = ("identity", "records")
    outcome.discrepancies += [
        {name: value for name, value in one.items() if name not in hidden} for one in group.published.values()
    ]
    outcome.matches += group.matched()
    stood = (group.key.org, group.rule["name"], group.key.value)
    outcome.deadlines.setdefault(stood, []).append(deadlines(group.key, group.legs))
    outcome.groups.append(group)
    outcome.openers.append((*stood, group.legs[0].event["id"]))


# ---- words, amounts, times


def severity(rule: Rule, truth: Truth) -> str:
    given = rule["severity"]
    of_type = given.get(truth.identity[0], given.get("default", "medium"))
    if not isinstance(of_type, dict):
        return str(of_type)
    steps = of_type["above"].get(truth.currency, of_type["above"].get("default", {}))
    passed = [
        (Decimal(step), level)
        for step, level in steps.items()
        if truth.difference is not None and EXACT.abs(truth.difference) > Decimal(step)
    ]
    return str(max(passed)[1]) if passed else str(given.get("default", "medium"))


def shown(value: Decimal | str | None, currency: str | None) -> str | None:
    if value is None or isinstance(value, str):
        return value
    decimals = 0 if currency is None or currency in NO_DECIMALS else 3 if currency in THREE_DECIMALS else 2
    if value == 0:
        value = Decimal(0)
    whole, _, fraction = f"{value:f}".partition(".")
    fraction = fraction.rstrip("0").ljust(decimals, "0")
    return f"{whole}.{fraction}" if fraction else whole


def sums(rule: Rule) -> bool:
    return rule["cardinality"] != "one_to_one"


def as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def look_up(event: Event, path: str) -> Any:
    value: Any = event
    for name in path.split("."):
        value = (value or {}).get(name)
    return value


def microseconds(time: str) -> int:
    return (datetime.fromisoformat(time) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def milliseconds(time: str) -> int:
    return microseconds(time) // 1000


def timestamp(at: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def duration(text: str) -> int:
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    return int(number) * UNIT_MS[text[len(number) :]]


def later(start: int, wait: str, closed: set[str] = frozenset()) -> int:  # type: ignore[assignment]
    """`start` plus a duration; of business days no Saturday, Sunday or holiday (UTC) counts, nor the rest of one."""
    if not wait.endswith("bd"):
        return start + duration(wait)
    at = start
    while is_closed(at, closed):
        at = (at // DAY_MS + 1) * DAY_MS
    for _ in range(int(wait.removesuffix("bd"))):
        at += DAY_MS
        while is_closed(at, closed):
            at += DAY_MS
    return at


def is_closed(at: int, closed: set[str]) -> bool:
    day = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at)).date()
    return day.weekday() >= 5 or day.isoformat() in closed

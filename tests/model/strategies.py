"""Small adversarial streams for the `match` rule kind, and the transformations of the Law.

Few keys, few records, few times: so the same record is corrected, superseded and redelivered again and again, with
equal `occurred_at`, `sequence` and ids, and legs fall exactly on a deadline or a millisecond behind it.

Left out are only streams of which the design says nothing: deadlines per side with three sides, duplicates
of a one-to-many rule, a sign on a one-to-one rule.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from tests.model.match_model import Event, Key, Outcome, Rule, duplicate_id, duration

START = datetime(2026, 3, 6, 10, tzinfo=UTC)  # a Friday, so that a business day ends on Monday
SOURCES = {"internal": "ledger", "provider": "stripe", "bank": "bank"}
KEYS = ["p1", "p1", "p1", "p2"]
STATUSES = [*["succeeded"] * 10, "paid", "failed", "canceled", "pending", "requires_action", None]
AMOUNTS = [*["100.00"] * 4, "100.0", "100.01", "99.50", "101.00", "0"]
CURRENCIES = [*["EUR"] * 10, "USD", "JPY"]
OCCURRED = [
    "2026-03-06T09:00:00Z",
    "2026-03-06T09:00:00.000001Z",
    "2026-03-06T09:00:00.000002Z",
    "2026-03-06T09:30:00Z",
]
SIGN_BY = {"by": "attrs.direction", "credit": 1, "debit": -1}
LONG = "3650d"


@dataclass(frozen=True)
class Scenario:
    rules: list[Rule]
    events: list[Event]
    """In arrival order; `received_at` never falls."""
    until: str


# ---- scenarios


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """Anything: groups may be forgotten and expire, ids may be reused, events may be refused."""
    rule = draw(rules())
    events = draw(streams(rule, law=False))
    pool = offsets(rule)
    until = max(events[-1]["received_at"], at(draw(st.sampled_from([*pool, 2 * pool[-1]]))))
    return Scenario([rule], events, until)


@st.composite
def lawful_scenarios(draw: st.DrawFn, *, whole: bool = True) -> Scenario:
    """Streams to which the Law applies: nothing is forgotten, one id is one event, nothing is refused.

    With `whole`, the log runs on until every deadline and settling time has run out in any order of arrival; then
    the Law needs no further condition. Without, it ends anywhere, nothing settles, and `same_sides` is the condition.
    """
    rule = draw(rules()) | {"keep": LONG, "expire": LONG}
    rule |= {} if whole else {"settle": "0s"}
    events = draw(streams(rule, law=True))
    pool = offsets(rule)
    end = at(3 * pool[-1]) if whole else at(draw(st.sampled_from(pool)))
    return Scenario([rule], events, max(events[-1]["received_at"], end))


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    names = draw(st.sampled_from([["internal", "provider"]] * 3 + [["internal", "provider", "bank"]]))
    cardinality = draw(st.sampled_from(["one_to_one", "one_to_one", "one_to_many", "many_to_many"]))
    same_deadline = ["1h", "24h", "1bd"]
    per_side = [{"internal": "1h", "provider": "24h"}, {"internal": "24h", "provider": "1h"}]
    deadline = draw(st.sampled_from(same_deadline + (per_side if len(names) == 2 else [])))
    duplicates = draw(st.sampled_from([names, names, names[1:], []]))
    allowance = draw(
        st.sampled_from([{}, {}, {"tolerance": "0.01"}, {"percent": "0.5"}, {"tolerance": "0.01", "percent": "1"}])
    )
    compare = {
        **draw(st.sampled_from([{"amount": allowance}] * 9 + [{}])),
        **draw(st.sampled_from([{"currency": {}}] * 9 + [{}])),
        **draw(st.sampled_from([{}, {"status": {}}, {"status": {"map": {"provider": {"paid": "succeeded"}}}}])),
    }
    sides: dict[str, Any] = {name: {"source": SOURCES[name], "type": ["payment.*"]} for name in names}
    if cardinality != "one_to_one":
        sides["provider"]["sign"] = draw(st.sampled_from([1, 1, -1, SIGN_BY]))
    if draw(st.sampled_from([False] * 5 + [True])):
        sides["internal"]["live"] = ["succeeded", "paid"]
    return {
        "name": "billing.payments",
        "kind": "match",
        "sides": sides,
        "key": "refs.payment_id",
        "compare": compare,
        "deadline": deadline,
        "settle": draw(st.sampled_from(["0s", "0s", "10m"])),
        "keep": draw(st.sampled_from(["1h", "24h", LONG])),
        "expire": draw(st.sampled_from(["2h", "5d", "6d", LONG])),
        "cardinality": cardinality,
        "duplicates": [] if cardinality == "one_to_many" else duplicates,
        "severity": {
            "default": "low",
            "AmountMismatch": {"above": {"EUR": {"0.50": "high"}, "default": {"1": "medium"}}},
        },
    }


@st.composite
def streams(draw: st.DrawFn, rule: Rule, *, law: bool) -> list[Event]:
    """One to ten events of one rule, each at a slot of the rule's own boundary times, more of them early."""
    pool = offsets(rule)
    slot = st.sampled_from(pool[:3]) | st.sampled_from(pool)
    slots = sorted(draw(st.lists(slot, min_size=1, max_size=10) | st.lists(slot, min_size=5, max_size=10)))
    events: list[Event] = []
    for number, offset in enumerate(slots):
        kinds = ["record"] * 14 + ["again"] * 2 + ["adjustment"] * 2
        kinds += [] if law else ["reused", "refused", "offset", "offset"]
        kind = draw(st.sampled_from(kinds))
        event = draw(one_event(rule, kind, f"{draw(st.sampled_from('abz'))}{number}", events))
        events.append(event | {"received_at": at(offset)})
    return events


@st.composite
def one_event(draw: st.DrawFn, rule: Rule, kind: str, new_id: str, before: list[Event]) -> Event:
    if kind == "again" and before:
        return draw(st.sampled_from(before))
    if kind == "reused" and before:
        other = [{"amount": "77.00", "currency": "EUR"}, {"status": "voided"}, {"record": "r3"}, {"supersedes": "r2"}]
        return draw(st.sampled_from(before)) | draw(st.sampled_from(other))
    if kind == "refused":
        wrong = draw(st.sampled_from([{"occurred_at": "2099-01-01T00:00:00Z"}, {"amount": "-5.00"}]))
        return draw(records(rule, new_id)) | wrong
    if kind == "offset" and before:
        return draw(offsets_of_duplicates(rule, new_id, before))
    return draw(adjustments(rule, new_id) if kind == "adjustment" else records(rule, new_id))


@st.composite
def records(draw: st.DrawFn, rule: Rule, new_id: str) -> Event:
    source = SOURCES[draw(st.sampled_from(list(rule["sides"])))]
    record = draw(st.sampled_from(["r1", "r1", "r2", "r3"]))
    key = draw(st.sampled_from([*KEYS * 7, ""]))
    event = {
        "org": draw(st.sampled_from(["acme"] * 9 + ["globex"])),
        "source": source,
        "type": "payment.updated",
        "id": new_id,
        "record": record,
        "sequence": draw(st.sampled_from([None, None, 0, 1, 2])),
        "supersedes": draw(st.sampled_from([None] * 18 + [other for other in ("r1", "r2", "r3") if other != record])),
        "occurred_at": draw(st.sampled_from(OCCURRED)),
        "amount": draw(st.sampled_from(AMOUNTS)),
        "currency": draw(st.sampled_from(CURRENCIES)),
        "status": draw(st.sampled_from(STATUSES)),
        "refs": {"payment_id": key} if key else draw(st.sampled_from([{}, {"payment_id": ""}])),
    }
    absent = draw(st.sampled_from([()] * 20 + [("amount",), ("currency",), ("amount", "currency")]))
    direction = draw(st.sampled_from([{"direction": "credit"}, {"direction": "debit"}, {"direction": "sideways"}, {}]))
    return present(
        event | dict.fromkeys(absent) | ({"attrs": direction} if rule["cardinality"] != "one_to_one" else {})
    )


@st.composite
def adjustments(draw: st.DrawFn, rule: Rule, new_id: str) -> Event:
    return present(
        {
            "org": "acme",
            "source": SOURCES[draw(st.sampled_from(list(rule["sides"])))],
            "type": "adjustment.fee",
            "id": new_id,
            "record": draw(st.sampled_from(["adj1", "adj1", "adj2"])),
            "sequence": draw(st.sampled_from([None, 1])),
            "occurred_at": draw(st.sampled_from(OCCURRED)),
            "amount": draw(st.sampled_from(["1.00", "-1.00", "-0.01", "100.00"])),
            "currency": draw(st.sampled_from(["EUR", "EUR", "EUR", "USD"])),
            "status": draw(st.sampled_from([None] * 5 + ["voided"])),
            "supersedes": draw(st.sampled_from([None] * 12 + ["adj1"])),
            "refs": {"payment_id": draw(st.sampled_from(KEYS)), "discrepancy": "6f1c2a34-0000-5000-8000-000000000001"},
        }
    )


@st.composite
def offsets_of_duplicates(draw: st.DrawFn, rule: Rule, new_id: str, before: list[Event]) -> Event:
    """An adjustment that names the suspected duplicate that a record of the stream is, or could have been."""
    event = draw(adjustments(rule, new_id))
    extra = draw(st.sampled_from(before))
    side = next(name for name in rule["sides"] if SOURCES[name] == extra["source"])
    key = extra["refs"].get("payment_id") or "p1"
    opener = next((one["id"] for one in before if one["refs"].get("payment_id") == key), "")
    named = duplicate_id(Key(rule, extra["org"], key), opener, side, (extra["source"], extra["record"]))
    amount = draw(st.sampled_from([f"-{extra.get('amount', '1').removeprefix('-')}", "-1.00"]))
    return event | {"amount": amount, "source": extra["source"], "refs": {"payment_id": key, "discrepancy": named}}


def present(event: Event) -> Event:
    return {name: value for name, value in event.items() if value is not None}


# ---- times


def offsets(rule: Rule) -> list[int]:
    """Milliseconds after START at which something may run out for a leg at START, each with its two neighbours."""
    deadline = rule["deadline"]
    waits = list(deadline.values()) if isinstance(deadline, dict) else [deadline.replace("1bd", "3d")]
    short = [name for name in (rule["keep"], rule["expire"]) if name != LONG]
    settle = duration(rule["settle"])
    turning = [0, settle, *map(duration, waits), *map(duration, short)]
    turning += [duration(wait) + more for wait in waits for more in (settle, *map(duration, short))]
    return sorted({max(0, point + step) for point in turning for step in (0, 1, 1000)})


def at(offset_ms: int) -> str:
    return (START + timedelta(milliseconds=offset_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# ---- the Law


@st.composite
def rearranged(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    """The same events in another order of arrival within the same slots."""
    slots = [event["received_at"] for event in scenario.events]
    shuffled = draw(st.permutations(scenario.events))
    events = [event | {"received_at": slot} for event, slot in zip(shuffled, slots, strict=True)]
    return Scenario(scenario.rules, events, scenario.until)


@st.composite
def repeated(draw: st.DrawFn, scenario: Scenario) -> Scenario:
    """Some events delivered again, right behind any event that came later or with themselves."""
    events = list(scenario.events)
    for _ in range(draw(st.integers(1, 4))):
        first = draw(st.integers(0, len(events) - 1))
        behind = draw(st.integers(first, len(events) - 1))
        events.insert(behind + 1, events[first] | {"received_at": events[behind]["received_at"]})
    return Scenario(scenario.rules, events, scenario.until)


def open_at_end(outcome: Outcome | list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What the Law speaks of, in one order: every discrepancy that stands as raised, with its amounts.

    Takes an outcome of the model, or the last revisions of the product as dicts of the public contract.
    """
    found = outcome.discrepancies if isinstance(outcome, Outcome) else outcome
    fields = ("org", "rule", "key", "type", "side", "currency", "duplicate", "expected", "actual")
    rows = [tuple(one.get(name) for name in fields) for one in found if one["state"] == "raised"]
    return sorted(rows, key=repr)


def same_sides(first: Scenario, first_outcome: Outcome, second: Scenario, second_outcome: Outcome) -> bool:
    """The Law's condition: every leg, and the end, is on the same side of its deadline in both streams."""
    return sides(first, first_outcome) == sides(second, second_outcome)


def sides(scenario: Scenario, outcome: Outcome) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for (org, rule, key), groups in outcome.deadlines.items():
        for limits in groups:
            for side, limit in limits.items():
                place = (org, rule, key, side)
                source = SOURCES[side]
                found[place, "end"] = offset_of(scenario.until) > limit
                for event in scenario.events:
                    if event["source"] == source and event["org"] == org and event["refs"].get("payment_id") == key:
                        found[place, event["id"]] = offset_of(event["received_at"]) > limit
    return found


def offset_of(time: str) -> int:
    return (datetime.fromisoformat(time) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)

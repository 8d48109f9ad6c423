"""Small adversarial streams for the `balance` rule kind, and the Law's transformation for its movements.

Two accounts, three records, few times: so movements fall exactly on a reading, on the opening and on the edge of
`keep`, are corrected to another date, amount or currency, voided, superseded and redelivered; readings replace each
other, come faster than `settle`, late, empty or without amount.

Where `keep` is short every record keeps its date and is superseded by none: whether a record older than `keep` may
still be moved by a newer event is left open by the design.
"""

from dataclasses import replace
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from tests.model import balance_model
from tests.model.match_model import Event, Rule, duration
from tests.model.strategies import LONG, SIGN_BY, at, present
from tests.model.stream import Stream

DATES = [
    "2026-03-06T08:00:00Z",
    "2026-03-06T09:00:00Z",
    "2026-03-06T09:00:00.000001Z",
    "2026-03-06T09:30:00Z",
    "2026-03-06T10:00:00Z",
]
DATE_OF = {"r1": DATES[1], "r2": DATES[2], "r3": DATES[3]}
EMPTY_READS = ["2026-03-06T08:30:00Z", "2026-03-06T09:45:00Z"]
AMOUNTS = [*["10.00"] * 6, "5.00", "-5.00", "0.00", "10.01"]
BALANCES = [*["0.00", "10.00", "20.00"] * 3, "10.01", "15.00", "-5.00"]
COUNTS = ["0", "1", "1", "2", "3"]
CURRENCIES = [*["EUR"] * 12, "USD", "USDC"]
STATUSES = [*[None] * 8, "posted", "pending", "voided"]
DISCREPANCY = "6f1c2a34-0000-5000-8000-000000000001"
SHORT = "1h"


@st.composite
def scenarios(draw: st.DrawFn) -> Stream:
    """Anything: movements may be too late, ids may be reused, events may be refused, the log may end anywhere."""
    rule = draw(rules())
    events = draw(streams(rule, law=False))
    return Stream(rule, events, max(events[-1]["received_at"], at(draw(st.sampled_from(offsets(rule))))))


@st.composite
def lawful_scenarios(draw: st.DrawFn) -> Stream:
    """To which the Law applies: no movement is too late, one id is one event, every reading is judged at the end."""
    rule = draw(rules()) | {"keep": LONG}
    return Stream(rule, draw(streams(rule, law=True)), at(3 * offsets(rule)[-1]))


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    tolerances = [{}, {"tolerance": "0.01"}, {"tolerance": "0", "tolerance_bps": 10}, {"tolerance": "5"}]
    overrides = [{}, {}, {"enabled": False}, {"tolerance": "10"}]
    given = {"w1": {"EUR": "10.00"}, "w2": {"EUR": "5.00", "USD": "0"}}
    measure = draw(st.sampled_from(["amount", "amount", "amount", "count"]))
    openings = ["snapshot", "snapshot", "0.00", given] if measure == "amount" else ["snapshot", "0"]
    movements = {"source": "ledger", "type": ["movement.*"], "sign": draw(st.sampled_from([1, 1, -1, SIGN_BY]))}
    return {
        "name": "stack.circle_balance",
        "kind": "balance",
        "movements": movements,
        "snapshots": {"source": "circle", "type": ["balance.*"]},
        "key": "account",
        "measure": measure,
        "opening": draw(st.sampled_from(openings)),
        "settle": draw(st.sampled_from(["0s", "5m", "5m"])),
        "keep": draw(st.sampled_from([SHORT, LONG, LONG])),
        "overrides": {"w2": draw(st.sampled_from(overrides))},
        "severity": {
            "default": "low",
            "BalanceMismatch": {"above": {"EUR": {"5.00": "high"}, "default": {"1": "critical"}}},
        },
    } | draw(st.sampled_from(tolerances))


@st.composite
def streams(draw: st.DrawFn, rule: Rule, *, law: bool) -> list[Event]:
    """Two to fourteen events, each at a slot of the rule's own boundary times, more of them early."""
    pool = offsets(rule)
    slot = st.sampled_from(pool[:3]) | st.sampled_from(pool)
    slots = sorted(draw(st.lists(slot, min_size=2, max_size=8) | st.lists(slot, min_size=6, max_size=14)))
    events: list[Event] = []
    for number, offset in enumerate(slots):
        kinds = ["movement"] * 10 + ["heal"] * 6 + ["reading"] * 7 + ["adjustment"] * 3 + ["again"] * 2
        kinds += [] if law else ["reused", "refused", "empty"]
        kind = draw(st.sampled_from(kinds))
        new_id = f"{draw(st.sampled_from('abz'))}{number}"
        open_now = raised(rule, events, at(offset)) if kind == "heal" else []
        event = draw(healing(rule, new_id, open_now) if open_now else one_event(rule, kind, new_id, events))
        events.append(event | {"received_at": at(offset)})
    return events


@st.composite
def one_event(draw: st.DrawFn, rule: Rule, kind: str, new_id: str, before: list[Event]) -> Event:
    if kind == "again" and before:
        return draw(st.sampled_from(before))
    if kind == "reused" and before:
        return before[-1] | draw(st.sampled_from([{"amount": "77.00"}, {"amount": "0.00", "currency": "EUR"}]))
    if kind == "refused":
        return draw(movements(rule, new_id)) | {"occurred_at": "2099-01-01T00:00:00Z"}
    if kind == "empty":
        fault = draw(st.sampled_from([{"attrs": {"accounts": "0"}}, {"amount": None}]))
        return present(draw(readings(rule, new_id)) | {"occurred_at": draw(st.sampled_from(EMPTY_READS))} | fault)
    if kind == "reading":
        return draw(readings(rule, new_id))
    return draw(adjustments(new_id) if kind == "adjustment" else movements(rule, new_id))


def raised(rule: Rule, events: list[Event], until: str) -> list[dict[str, Any]]:
    return [one for one in balance_model.run(rule, events, until).discrepancies if one["state"] == "raised"]


@st.composite
def healing(draw: st.DrawFn, rule: Rule, new_id: str, open_now: list[dict[str, Any]]) -> Event:
    """A movement, an adjustment or a reading that brings an open mismatch to nothing."""
    wrong = draw(st.sampled_from(open_now))
    sign, drift = rule["movements"]["sign"], Decimal(wrong["difference"])
    amount = abs(drift) if isinstance(sign, dict) else drift * sign
    event = {
        "org": wrong["org"],
        "source": "ledger",
        "id": new_id,
        "record": new_id,
        "account": wrong["key"],
        "currency": wrong["currency"] or "EUR",
        "status": "posted",
        "attrs": {"direction": "credit" if drift > 0 else "debit"},
    }
    reading = {"source": "circle", "type": "balance.read", "amount": wrong["expected"], "sequence": 3}
    plug = {"type": "adjustment.plug", "refs": {"discrepancy": DISCREPANCY}}
    kind = draw(
        st.sampled_from([{"type": "movement.posted", "record": "r1"}, {"type": "movement.posted"}, plug, reading])
    )
    of_reading = DATES[-1] if kind is reading else DATE_OF["r1"]
    return event | {"amount": f"{amount:f}", "occurred_at": of_reading} | kind


@st.composite
def movements(draw: st.DrawFn, rule: Rule, new_id: str) -> Event:
    record = draw(st.sampled_from(["r1", "r2", "r3"]))
    is_short = rule["keep"] == SHORT
    supersedes = [None] if is_short else [None] * 15 + [one for one in DATE_OF if one != record]
    directions = [*["credit"] * 8, *["debit"] * 8, "sideways", None]
    absent = draw(st.sampled_from([()] * 20 + [("amount",), ("currency",)]))
    return present(
        {
            "org": draw(st.sampled_from(["acme"] * 15 + ["globex"])),
            "source": "ledger",
            "type": "movement.posted",
            "id": new_id,
            "record": record,
            "sequence": draw(st.sampled_from([None, None, 0, 1, 2])),
            "supersedes": draw(st.sampled_from(supersedes)),
            "occurred_at": DATE_OF[record] if is_short else draw(st.sampled_from([DATE_OF[record], *DATES])),
            "amount": draw(st.sampled_from(AMOUNTS)),
            "currency": draw(st.sampled_from(CURRENCIES)),
            "status": draw(st.sampled_from(STATUSES)),
            "account": draw(st.sampled_from([*["w1"] * 24, *["w2"] * 6, ""])),
            "attrs": present({"direction": draw(st.sampled_from(directions))}),
        }
        | dict.fromkeys(absent)
    )


@st.composite
def readings(draw: st.DrawFn, rule: Rule, new_id: str) -> Event:
    return present(
        {
            "org": draw(st.sampled_from(["acme"] * 15 + ["globex"])),
            "source": "circle",
            "type": "balance.read",
            "id": new_id,
            "sequence": draw(st.sampled_from([None, None, 1, 2])),
            "occurred_at": draw(st.sampled_from(DATES)),
            "amount": draw(st.sampled_from(COUNTS if rule["measure"] == "count" else BALANCES)),
            "currency": draw(st.sampled_from(CURRENCIES)),
            "account": draw(st.sampled_from([*["w1"] * 24, *["w2"] * 6, ""])),
            "attrs": draw(st.sampled_from([{}, {"accounts": "3"}])),
        }
    )


@st.composite
def adjustments(draw: st.DrawFn, new_id: str) -> Event:
    return present(
        {
            "org": "acme",
            "source": "ledger",
            "type": "adjustment.plug",
            "id": new_id,
            "record": draw(st.sampled_from(["adj1", "adj1", "adj2"])),
            "sequence": draw(st.sampled_from([None, 1])),
            "supersedes": draw(st.sampled_from([None] * 12 + ["adj1"])),
            "occurred_at": draw(st.sampled_from(DATES)),
            "amount": draw(st.sampled_from(["10.00", "10.00", "-10.00", "-10.00", "5.00", "0.01"])),
            "currency": draw(st.sampled_from(["EUR", "EUR", "EUR", "USD"])),
            "status": draw(st.sampled_from([None] * 5 + ["voided"])),
            "account": draw(st.sampled_from([*["w1"] * 8, "w2", ""])),
            "refs": {"discrepancy": DISCREPANCY},
            "attrs": {"direction": draw(st.sampled_from([*["credit"] * 6, *["debit"] * 6, "sideways"]))},
        }
    )


def offsets(rule: Rule) -> list[int]:
    """Milliseconds after START at which something may run out for a leg at START, each with its two neighbours."""
    settle = duration(rule["settle"])
    edges = [0, settle // 2, settle, 2 * settle, 10 * 60_000, 30 * 60_000]  # the last: `keep` of the newest dates
    return sorted({max(0, point + step) for point in edges for step in (0, 1, 1000)})


# ---- the Law


@st.composite
def movements_rearranged(draw: st.DrawFn, stream: Stream) -> Stream:
    """Movements and adjustments in another order of arrival among their own slots; every reading stays in its place."""
    places = [place for place, event in enumerate(stream.events) if event["source"] == "ledger"]
    events = list(stream.events)
    for place, event in zip(places, draw(st.permutations([stream.events[one] for one in places])), strict=True):
        events[place] = event | {"received_at": stream.events[place]["received_at"]}
    return replace(stream, events=events)

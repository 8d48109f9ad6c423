"""Small adversarial streams for the `invariant` rule kind.

Two accounts, few values, times around the ends of days and months in three zones and around the change to summer
time: so counters fall, stand still, start again and are closed, thresholds are met exactly, and snapshots come
late, twice, without a field or with text in it.
"""

from typing import Any

from hypothesis import strategies as st

from tests.model.match_model import Event, Rule
from tests.model.strategies import present
from tests.model.stream import Stream

RECEIVED = "2026-04-02T{:02}:00:00Z"
UNTIL = "2026-04-03T00:00:00Z"
TIMES = [
    "2026-03-28T22:59:59.999999Z",
    "2026-03-28T23:00:00Z",  # midnight in Berlin
    "2026-03-29T01:00:00Z",  # summer time begins there
    "2026-03-30T10:00:00Z",
    "2026-03-31T21:59:59Z",
    "2026-03-31T22:00:00Z",  # midnight in Berlin again, an hour earlier
    "2026-03-31T23:30:00Z",
    "2026-04-01T00:00:00Z",
    "2026-04-01T03:59:59Z",
    "2026-04-01T04:00:00Z",  # midnight in New York
    "2026-04-01T08:00:00Z",
]
COUNTS = ["0", "0", "2", "9.9", "9.95", "10", "10.00", "10.05", "12"]
SHARES = ["0", "0.4", "0.45", "0.5", "0.50", "0.549", "0.55", "0.6", "1", "1.0001", "-0.1"]
WRONG = ["NaN", "Infinity", "n/a"]
CHECKS: list[Rule] = [
    {"code": "drift", "field": "attrs.share", "minus": "attrs.target", "warn": "0.05", "critical": "0.10"},
    {"code": "unequal", "field": "attrs.share", "minus": "attrs.target"},
    {"code": "out_of_range", "field": "attrs.share", "min": "0", "max": "1"},
    {"code": "not_positive", "field": "attrs.share", "above": "0.4"},
    {"code": "plug_grew", "field": "amount", "warn": "2", "critical": "10"},
    {"code": "decreased", "field": "attrs.fees", "never_decreases": True},
    {"code": "decreased_much", "field": "attrs.fees", "never_decreases": True, "warn": "0.05", "critical": "5"},
    {"code": "today", "field": "attrs.fees", "never_decreases": True, "reset": "daily"},
    {"code": "odometer", "field": "amount", "never_decreases": True, "reset": "monthly"},
    {"code": "month", "field": "attrs.fees", "never_decreases": True, "reset": "monthly", "warn": "0.1"},
    {"code": "no_fees", "field": "attrs.turnover", "grows_without": "attrs.fees"},
    {"code": "few_fees", "field": "attrs.turnover", "grows_without": "attrs.fees", "warn": "3", "critical": "10"},
]
SEVERITY: Rule = {"unequal": {"above": {"default": {"0.05": "high"}}}, "decreased": "critical"}
CURRENCY = {"bot1": "EUR", "bot2": "USDC"}


@st.composite
def scenarios(draw: st.DrawFn) -> Stream:
    """Anything: snapshots may be stale, ids may be reused, events may be refused."""
    return Stream(draw(rules()), draw(streams(law=False)), UNTIL)


@st.composite
def lawful_scenarios(draw: st.DrawFn) -> Stream:
    """One id is one event, and nothing is refused."""
    return Stream(draw(rules()), draw(streams(law=True)), UNTIL)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    checks = draw(st.lists(st.sampled_from(CHECKS), min_size=1, max_size=4, unique_by=lambda check: check["code"]))
    codes = [check["code"] for check in checks]
    first = codes[0]
    lower = {"warn": "0.01", "critical": "0.02"}
    overrides = [{}, {}, {"enabled": False}, {first: {"enabled": False}}, {first: lower}]
    return {
        "name": "bots.state",
        "kind": "invariant",
        "snapshots": {"source": "bot", "type": ["snapshot.*"]},
        "key": "account",
        "zone": draw(st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"])),
        "checks": checks,
        "overrides": {"bot2": draw(st.sampled_from(overrides))},
        "severity": {"default": "low"} | {name: SEVERITY[name] for name in SEVERITY if name in codes},
    }


@st.composite
def streams(draw: st.DrawFn, *, law: bool) -> list[Event]:
    """One to twelve events, most of them in the order of their times."""
    times = sorted(draw(st.lists(st.sampled_from(TIMES), min_size=1, max_size=12)))
    late = draw(st.sets(st.integers(1, 11), max_size=2))
    for place in sorted(late):
        if place < len(times):
            times[place - 1], times[place] = times[place], times[place - 1]
    events: list[Event] = []
    for number, occurred_at in enumerate(times):
        kinds = ["snapshot"] * 14 + ["closing"] * 2 + ["again"] + ([] if law else ["reused", "refused", "lost"])
        kind = draw(st.sampled_from(kinds))
        event = draw(one_event(kind, f"{draw(st.sampled_from('abz'))}{number}", occurred_at, events))
        events.append(event | {"received_at": RECEIVED.format(number)})
    return events


@st.composite
def one_event(draw: st.DrawFn, kind: str, new_id: str, occurred_at: str, before: list[Event]) -> Event:
    if kind == "again" and before:
        return draw(st.sampled_from(before))
    if kind == "reused" and before:
        return before[-1] | {"attrs": {"share": "0.7", "fees": "1"}, "occurred_at": occurred_at}
    event = draw(snapshots(new_id, occurred_at))
    if kind == "refused":
        return event | {"occurred_at": "2099-01-01T00:00:00Z"}
    if kind == "lost":
        return event | {"account": ""}
    if kind == "closing":
        words = ["2026-03", "2026-03", "2026-02", "2026-03-31", "2026-04-01"]
        fees = draw(st.sampled_from(COUNTS))
        return event | {"attrs": {"closing": draw(st.sampled_from(words)), "fees": fees}}
    return event


@st.composite
def snapshots(draw: st.DrawFn, new_id: str, occurred_at: str) -> Event:
    account = draw(st.sampled_from(["bot1", "bot1", "bot1", "bot2"]))
    attrs: dict[str, Any] = {
        "share": draw(st.sampled_from(SHARES)),
        "target": "0.50",
        "fees": draw(st.sampled_from(COUNTS)),
        "turnover": draw(st.sampled_from(COUNTS)),
    }
    attrs |= draw(st.sampled_from([{}] * 10 + [{name: None} for name in attrs]))
    attrs |= {
        name: draw(st.sampled_from(WRONG))
        for name in draw(st.sampled_from([()] * 10 + [("fees",), ("share",), ("fees", "share")]))
        if "target" in present(attrs)
    }
    return present(
        {
            "org": draw(st.sampled_from(["acme"] * 7 + ["globex"])),
            "source": "bot",
            "type": "snapshot.state",
            "id": new_id,
            "account": account,
            "sequence": draw(st.sampled_from([None, None, 0, 1, 2])),
            "occurred_at": occurred_at,
            "amount": draw(st.sampled_from([*COUNTS, None])),
            "currency": CURRENCY[account],
            "attrs": present(attrs),
        }
    )

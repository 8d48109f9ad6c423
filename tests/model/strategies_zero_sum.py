"""Small adversarial streams for the `zero_sum` rule kind, and the transformations of the Law.

Two transactions, three records, a handful of times: so entries are corrected, voided, superseded, redelivered and
adjusted again and again, numbers of entries contradict each other, and legs fall exactly on a deadline.
"""

from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from tests.model import zero_sum_model
from tests.model.match_model import Event, Rule, duration, milliseconds
from tests.model.outcome import Outcome
from tests.model.strategies import LONG, SIGN_BY, at, present
from tests.model.stream import Stream

OCCURRED = ["2026-03-06T09:00:00Z", "2026-03-06T09:00:00.000001Z", "2026-03-06T09:30:00Z"]
AMOUNTS = [*["100.00"] * 5, "60.00", "40.00", "99.99", "0.00", "-100.00"]
CURRENCIES = [*["EUR"] * 15, "USD", "JPY", "USDC"]
STATUSES = [*[None] * 10, "posted", "pending", "voided"]
DISCREPANCY = "6f1c2a34-0000-5000-8000-000000000001"


@st.composite
def scenarios(draw: st.DrawFn) -> Stream:
    """Anything: groups may be forgotten and expire, ids may be reused, events may be refused."""
    rule = draw(rules())
    events = draw(streams(rule, law=False))
    pool = offsets(rule)
    return Stream(rule, events, max(events[-1]["received_at"], at(draw(st.sampled_from([*pool, 2 * pool[-1]])))))


@st.composite
def lawful_scenarios(draw: st.DrawFn, *, whole: bool = True) -> Stream:
    """To which the Law applies: nothing is forgotten and one id is one event.

    With `whole` every deadline is over at the end in any order of arrival; without, the log ends anywhere, and
    `over_at_end` is the condition.
    """
    rule = draw(rules()) | {"keep": LONG, "expire": LONG}
    events = draw(streams(rule, law=True))
    pool = offsets(rule)
    end = at(3 * pool[-1]) if whole else at(draw(st.sampled_from(pool)))
    return Stream(rule, events, max(events[-1]["received_at"], end))


def over_at_end(stream: Stream, told: Outcome) -> list[Any]:
    """Of every transaction: whether its deadline is over when the log ends."""
    end = milliseconds(stream.until)
    rows = [(org, key, limit is not None and end > limit) for org, key, limit in told.deadlines]
    return sorted(rows, key=repr)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    entries: Rule = {"source": "ledger", "type": ["entry.*"], "sign": draw(st.sampled_from([SIGN_BY, SIGN_BY, 1, -1]))}
    if draw(st.sampled_from([False] * 5 + [True])):
        entries["live"] = ["posted"]
    return {
        "name": "stack.ledger_consistency",
        "kind": "zero_sum",
        "entries": entries,
        "key": draw(st.sampled_from(["refs.transaction", "refs.transaction", ["refs.transaction", "account"]])),
        "complete": draw(st.sampled_from([{"count": "attrs.entries"}] * 4 + [{}])),
        "deadline": draw(st.sampled_from(["1m", "1h", "1bd"])),
        "keep": draw(st.sampled_from(["4d", LONG])),
        "expire": draw(st.sampled_from(["5d", LONG])),
        "severity": {
            "default": "low",
            "LedgerImbalance": {"above": {"EUR": {"50.00": "high"}, "default": {"1": "critical"}}},
        },
    }


@st.composite
def streams(draw: st.DrawFn, rule: Rule, *, law: bool) -> list[Event]:
    """One to ten events of one rule, each at a slot of the rule's own boundary times, more of them early."""
    pool = offsets(rule)
    slot = st.sampled_from(pool[:3]) | st.sampled_from(pool)
    slots = sorted(draw(st.lists(slot, min_size=1, max_size=10) | st.lists(slot, min_size=4, max_size=10)))
    events: list[Event] = []
    for number, offset in enumerate(slots):
        kinds = (
            ["entry"] * 14 + ["heal"] * 5 + ["again"] * 2 + ["adjustment"] * 3 + ([] if law else ["reused", "refused"])
        )
        kind = draw(st.sampled_from(kinds))
        new_id = f"{draw(st.sampled_from('abz'))}{number}"
        open_now = raised(rule, events, at(offset)) if kind == "heal" else []
        event = draw(healing(rule, new_id, open_now) if open_now else one_event(kind, new_id, events))
        events.append(event | {"received_at": at(offset)})
    return events


@st.composite
def one_event(draw: st.DrawFn, kind: str, new_id: str, before: list[Event]) -> Event:
    if kind == "again" and before:
        return draw(st.sampled_from(before))
    if kind == "reused" and before:
        other = [{"amount": "77.00", "currency": "EUR"}, {"status": "voided"}, {"record": "r4"}]
        return draw(st.sampled_from(before)) | draw(st.sampled_from(other))
    if kind == "refused":
        return draw(entries(new_id)) | {"occurred_at": "2099-01-01T00:00:00Z"}
    return draw(adjustments(new_id) if kind == "adjustment" else entries(new_id))


def raised(rule: Rule, events: list[Event], until: str) -> list[dict[str, Any]]:
    """What is open by then, but for entries that name no transaction."""
    told = zero_sum_model.run(rule, events, until).discrepancies
    return [one for one in told if one["state"] == "raised" and not str(one["key"]).startswith("record:")]


@st.composite
def healing(draw: st.DrawFn, rule: Rule, new_id: str, open_now: list[dict[str, Any]]) -> Event:
    """An entry or adjustment that brings an open sum to zero."""
    wrong = draw(st.sampled_from(open_now))
    sign, lacking = rule["entries"]["sign"], -Decimal(wrong["difference"])
    direction = "credit" if lacking > 0 else "debit"
    amount = abs(lacking) if isinstance(sign, dict) else lacking * sign
    key = wrong["key"][0] if isinstance(wrong["key"], list) else wrong["key"]
    event = draw(st.sampled_from([{"type": "entry.posted", "record": "r5"}, {"type": "adjustment.entry"}]))
    names = {"discrepancy": DISCREPANCY} if event["type"] == "adjustment.entry" else {}
    return {
        "org": wrong["org"],
        "source": "ledger",
        "id": new_id,
        "record": "adj1",
        "occurred_at": OCCURRED[2],
        "amount": f"{amount:f}",
        "currency": wrong["currency"],
        "status": "posted",
        "account": "cash",
        "refs": {"transaction": key} | names,
        "attrs": {"direction": direction},
    } | event


@st.composite
def entries(draw: st.DrawFn, new_id: str) -> Event:
    record = draw(st.sampled_from(["r1", "r2", "r2", "r3"]))
    key = draw(st.sampled_from([*["t1"] * 20, *["t2"] * 4, ""]))
    attrs: dict[str, Any] = {
        "direction": draw(st.sampled_from([*["credit"] * 8, *["debit"] * 8, "sideways", None])),
        "entries": draw(st.sampled_from([*["2"] * 6, *[None] * 4, "3", "1", "0", "two"])),
    }
    absent = draw(st.sampled_from([()] * 20 + [("amount",), ("currency",)]))
    return present(
        {
            "org": draw(st.sampled_from(["acme"] * 15 + ["globex"])),
            "source": "ledger",
            "type": "entry.posted",
            "id": new_id,
            "record": record,
            "sequence": draw(st.sampled_from([None, None, 0, 1, 2])),
            "supersedes": draw(st.sampled_from([None] * 15 + [one for one in ("r1", "r2", "r3") if one != record])),
            "occurred_at": draw(st.sampled_from(OCCURRED)),
            "amount": draw(st.sampled_from(AMOUNTS)),
            "currency": draw(st.sampled_from(CURRENCIES)),
            "status": draw(st.sampled_from(STATUSES)),
            "account": "cash",
            "refs": {"transaction": key} if key else {},
            "attrs": present(attrs),
        }
        | dict.fromkeys(absent)
    )


@st.composite
def adjustments(draw: st.DrawFn, new_id: str) -> Event:
    return present(
        {
            "org": "acme",
            "source": "ledger",
            "type": "adjustment.entry",
            "id": new_id,
            "record": draw(st.sampled_from(["adj1", "adj1", "adj2"])),
            "sequence": draw(st.sampled_from([None, 1])),
            "supersedes": draw(st.sampled_from([None] * 12 + ["adj1"])),
            "occurred_at": draw(st.sampled_from(OCCURRED)),
            "amount": draw(st.sampled_from(["100.00", "-100.00", "40.00", "0.01"])),
            "currency": draw(st.sampled_from(["EUR", "EUR", "EUR", "USD"])),
            "status": draw(st.sampled_from([None] * 5 + ["voided"])),
            "account": "cash",
            "refs": {"transaction": draw(st.sampled_from([*["t1"] * 8, "t2", ""])), "discrepancy": DISCREPANCY},
            "attrs": {"direction": draw(st.sampled_from([*["credit"] * 6, *["debit"] * 6, "sideways"]))},
        }
    )


def offsets(rule: Rule) -> list[int]:
    """Milliseconds after START at which something may run out for a leg at START, each with its two neighbours."""
    wait = duration(rule["deadline"].replace("1bd", "3d"))
    ends = [duration(rule[name]) for name in ("keep", "expire") if rule[name] != LONG]
    turning = [0, wait // 2, wait, *ends, *(wait + end for end in ends)]
    return sorted({max(0, point + step) for point in turning for step in (0, 1, 1000)})

"""A rule whose events are derived anew: what it had closes, and in the end what is open is what the events say.

The legs of a derivation come in the order of their receipt, long after it: as from a topic of events.
"""

from collections import Counter
from typing import Any

import msgspec
import pytest

from services.matcher.domain.changes import Changes
from services.matcher.domain.core import Core
from shared.contracts.discrepancy import Discrepancy
from shared.contracts.leg import Leg, RuleRecord, Withdraw
from shared.rules.compiled import rule_record
from tests.support.cases import KINDS, has_placeholder, load_kind_cases, load_match_cases
from tests.support.laws import drive, whole_state
from tests.support.offline import PACK, LogEntry, log_of, rules_of

Rule = dict[str, Any]
FORGOTTEN = {
    "match: A settled group is judged again until keep has passed since its last change, then it is forgotten",
    (
        "zero_sum: An imbalance that nobody touched for expire leaves as expired and stays open; "
        "a later entry opens the transaction anew."
    ),
}
"""Live, something was forgotten between two events; a derivation forgets nothing before its end and sees both."""
KINDS_DERIVED = [kind for kind in KINDS if kind != "balance"]
"""`rules apply --rederive` refuses balance: movements are too late for it by then."""
CASES: list[tuple[str, Rule, list[dict[str, Any]], str]] = [
    (f"match: {case.name}", case.rules[0], case.events, case.until)
    for case in load_match_cases()
    if len(case.rules) == 1
    and {event["org"] for event in case.events} == {"acme"}
    and not any(has_placeholder(event) for event in case.events)
] + [
    (f"{kind}: {case.name}", case.rule, case.events, case.until)
    for kind in KINDS_DERIVED
    for case in load_kind_cases(kind)
]


def record(rule: Rule, version: int, *, deriving: bool) -> RuleRecord:
    (model,) = rules_of([rule | {"shadow": True} if deriving else rule])
    return rule_record("acme", PACK, model, version, 1, deriving=deriving)


def open_of(revisions: list[Discrepancy]) -> Counter[Any]:
    last: dict[str, Discrepancy] = {}
    for one in revisions:
        last[one.id] = one
    return Counter(
        (one.rule, str(one.key), one.type, one.side, one.duplicate, one.expected, one.actual, one.currency, one.shadow)
        for one in last.values()
        if one.state == "raised" and not one.expired
    )


def derivation(rule: Rule, events: list[dict[str, Any]], until: str) -> list[LogEntry]:
    """What ingest writes: the rule as a shadow, its legs, the rule as it is."""
    legs = [entry for entry in log_of([rule | {"shadow": True}], events, until) if isinstance(entry[1], Leg | Withdraw)]
    return [(b"", record(rule, 1, deriving=True)), *legs, (b"", record(rule, 2, deriving=False))]


cases = pytest.mark.parametrize(
    ("rule", "events", "until"),
    [c[1:] for c in CASES if c[0] not in FORGOTTEN],
    ids=[c[0] for c in CASES if c[0] not in FORGOTTEN],
)


@cases
def test_what_is_open_afterwards_is_what_the_events_say(rule: Rule, events: list[dict[str, Any]], until: str) -> None:
    core = Core(0)
    log = log_of([rule], events, until)
    live = drive(core, log)
    derived = drive(core, derivation(rule, events, until), len(log))
    assert open_of(live.discrepancies + derived.discrepancies) == open_of(live.discrepancies)


@cases
def test_nobody_is_alerted_before_all_legs_are_there(rule: Rule, events: list[dict[str, Any]], until: str) -> None:
    """What was open closes with rule_changed; then everything is a shadow's until the end, restarts or not."""
    core, again = Core(0), Core(0)
    log = log_of([rule], events, until)
    drive(core, log)
    *during, end = derivation(rule, events, until)
    changes = drive(core, during, len(log))
    closed = [one for one in changes.discrepancies if not one.shadow]
    assert {(one.state, one.resolution) for one in closed} <= {("resolved", "rule_changed")}
    again.restore(whole_state(core))
    ends = [drive(one, [end], len(log) + len(during)) for one in (core, again)]
    assert msgspec.msgpack.encode(ends[0].discrepancies) == msgspec.msgpack.encode(ends[1].discrepancies)
    assert whole_state(core) == whole_state(again)


def test_what_falls_due_meanwhile_waits_for_the_end() -> None:
    """A deadline and `keep` pass while legs are derived: nothing is raised, nothing forgotten; then both are done."""
    case = load_match_cases()[0]
    rule, core = case.rules[0], Core(0)
    drive(core, log_of([rule], [], "2026-03-02T00:00:00Z"))
    core.apply(b"", record(rule, 1, deriving=True), 100)
    late = log_of(
        [rule | {"shadow": True}], [{**case.events[0], "refs": {"payment_id": "alone"}}], "2026-06-01T00:00:00Z"
    )
    before: Changes = drive(core, [entry for entry in late if not isinstance(entry[1], RuleRecord)], 101)
    assert before.discrepancies == []
    assert core.open_items == 1
    after = drive(core, [(b"", record(rule, 2, deriving=False))], 200)
    assert [(one.state, one.shadow, one.type[:7]) for one in after.discrepancies][-1][:2] == ("raised", False)

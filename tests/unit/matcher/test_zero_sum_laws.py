"""The Law for `zero_sum`: order, repetition, batching and restarts decide nothing; rules change in place."""

from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.matcher.domain.changes import Changes
from services.matcher.domain.core import Core
from shared.contracts.leg import Leg, RuleRecord, Tick, Withdraw
from tests.model.strategies import at
from tests.model.strategies_zero_sum import lawful_scenarios, offsets, scenarios
from tests.model.stream import Stream, rearranged, repeated
from tests.support.laws import (
    a_restart_changes_nothing,
    batches_decide_nothing,
    counters,
    disturbed,
    drive,
    rule_change,
    the_same_log_gives_the_same_bytes,
)
from tests.support.offline import LogEntry, log_of, run_offline, time_of
from tests.support.verdicts import checks

MODERATE = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
YEARS_MS = 30 * 365 * 86_400_000
"""Longer than every deadline, `keep` and `expire` of the generated rules together."""
CHANGES: list[dict[str, Any]] = [
    {"deadline": "30m"},
    {"deadline": "5d"},
    {"complete": {}},
    {"keep": "2h", "expire": "3h"},
    {"severity": {"default": "critical"}},
    {"entries": {"source": "ledger", "type": ["entry.*"], "live": ["posted"]}},
    {"entries": {"source": "ledger", "type": ["entry.*"], "live": ["posted", "pending", "voided"]}},
    {"key": "account"},
]


@st.composite
def hostile_logs(draw: st.DrawFn) -> list[LogEntry]:
    stream = draw(scenarios())
    moments = [time_of(at(offset)) for offset in offsets(stream.rule)]
    return draw(disturbed(stream.rule, stream.events, stream.until, moments, CHANGES))


def open_at_end(stream: Stream) -> list[tuple[Any, ...]]:
    engine, _ = run_offline([stream.rule], stream.events, stream.until)
    standing = [one for one in engine.last_revisions() if one.state == "raised"]
    return sorted((one.org, str(one.key), one.currency or "", one.reason, one.expected, one.actual) for one in standing)


@MODERATE
@given(lawful_scenarios().flatmap(lambda one: st.tuples(st.just(one), rearranged(one))))
def test_any_order_of_arrival_leaves_the_same_open(pair: tuple[Stream, Stream]) -> None:
    assert open_at_end(pair[0]) == open_at_end(pair[1])


@MODERATE
@given(lawful_scenarios().flatmap(lambda one: st.tuples(st.just(one), repeated(one))))
def test_redelivery_changes_no_revision_and_no_verdict(pair: tuple[Stream, Stream]) -> None:
    """Not what is open and not what was said on the way; only the place in the log differs."""
    said = []
    for one in pair:
        engine, _ = run_offline([one.rule], one.events, one.until)
        revisions = [msgspec.to_builtins(revision) | {"log": None} for revision in engine.last_revisions()]
        said.append((revisions, [row | {"log": None} for row in checks(engine.checks)]))
    assert said[0] == said[1]


@MODERATE
@given(hostile_logs())
def test_batches_decide_nothing(log: list[LogEntry]) -> None:
    batches_decide_nothing(log)


@MODERATE
@given(hostile_logs(), st.data())
def test_a_restart_anywhere_changes_nothing(log: list[LogEntry], data: st.DataObject) -> None:
    a_restart_changes_nothing(log, data.draw(st.integers(0, len(log)), label="restart after"))


@MODERATE
@given(hostile_logs())
def test_the_same_log_gives_the_same_bytes(log: list[LogEntry]) -> None:
    the_same_log_gives_the_same_bytes(log)


@MODERATE
@given(hostile_logs())
def test_nothing_stays_for_ever(log: list[LogEntry]) -> None:
    """Once `keep` and `expire` have passed."""
    core = Core(0)
    drive(core, log)
    for inbox in range(5):
        core.apply(b"", Tick(inbox, 5, time_of(at(0)) + YEARS_MS), len(log))
    assert counters(core) == (0, 0, 0)


# ---- rules that change while transactions are open

RULE: dict[str, Any] = {
    "name": "stack.ledger_consistency",
    "kind": "zero_sum",
    "entries": {"source": "ledger", "type": ["entry.*"]},
    "key": "refs.transaction",
    "complete": {"count": "attrs.entries"},
    "deadline": "1h",
}


def entry(id_: str, amount: str, **fields: Any) -> dict[str, Any]:
    return {
        "org": "acme", "source": "ledger", "type": "entry.posted", "id": id_, "amount": amount, "currency": "EUR",
        "occurred_at": at(0), "received_at": at(0), "refs": {"transaction": "t1"}, "attrs": {"entries": "2"},
    } | fields  # fmt: skip


def started(*events: dict[str, Any], until: int = 0) -> Core:
    core = Core(0)
    drive(core, log_of([RULE], list(events), at(until)))
    return core


def after(core: Core, record: RuleRecord) -> Changes:
    core.apply(b"", record, 100)
    return core.take()


def told(changes: Changes) -> list[tuple[str, str | None, str | None]]:
    return [(one.state, one.reason, one.resolution) for one in changes.discrepancies]


def test_a_shorter_deadline_counts_from_the_first_live_entry() -> None:
    core = started(entry("e1", "-100.00"), until=1_800_000)

    changes = after(core, rule_change(RULE, 1, {"deadline": "10m"}))
    assert told(changes) == [("raised", "incomplete", None)]
    assert [check.result for _, check in changes.checks] == ["failed"]


def test_a_longer_deadline_lets_an_incomplete_transaction_wait_again() -> None:
    core = started(entry("e1", "-100.00"), until=3_600_001)

    assert told(after(core, rule_change(RULE, 1, {"deadline": "2h"}))) == [("resolved", "incomplete", "rule_changed")]


def test_entries_that_count_no_more_leave_the_sum() -> None:
    """The same entries under statuses that count are judged again, in place."""
    core = started(entry("e1", "-100.00", status="posted"), entry("e2", "100.00", status="posted"), entry("e3", "5.00"))
    live = {"source": "ledger", "type": ["entry.*"], "live": ["posted"]}

    changes = after(core, rule_change(RULE, 1, {"entries": live}))
    assert told(changes) == [("resolved", "unbalanced", "rule_changed")]
    assert [(check.result, check.entries) for _, check in changes.checks] == [("passed", 2)]


def test_a_withdrawn_rule_resolves_its_transactions_and_forgets_them() -> None:
    core = started(entry("e1", "-100.00"), until=3_600_001)

    assert told(after(core, rule_change(RULE, 1, None))) == [("resolved", "incomplete", "rule_withdrawn")]
    assert counters(core) == (0, 0, 0)


def test_another_kind_under_the_same_name_closes_the_transactions() -> None:
    core = started(entry("e1", "-100.00"), until=3_600_001)
    match = {
        "kind": "match",
        "sides": {"one": {"source": "ledger", "type": ["entry.*"]}, "other": {"source": "bank", "type": ["entry.*"]}},
    }
    changed = {name: value for name, value in RULE.items() if name not in {"entries", "complete"}}

    assert told(after(core, rule_change(changed, 1, match))) == [("resolved", "incomplete", "rule_changed")]
    assert counters(core) == (0, 0, 0)


# ---- what is said


def explained(*events: dict[str, Any], until: int = 0) -> list[str]:
    return [one.explanation for one in drive(Core(0), log_of([RULE], list(events), at(until))).discrepancies]


def test_an_imbalance_is_explained_with_its_likely_cause() -> None:
    (said,) = explained(entry("e1", "-123.45"), entry("e2", "132.45"))

    assert said.startswith("Transaction t1 does not balance: its 2 entries in EUR add up to 9.00 EUR instead of 0.00; ")
    assert "transposed" in said


def test_an_incomplete_transaction_says_how_many_entries_there_are() -> None:
    assert explained(entry("e1", "-100.00"), until=3_600_001) == [
        "Transaction t1 has 1 of 2 entries after 1 hour; those in EUR add up to -100.00 EUR."
    ]


def test_the_evidence_is_the_live_entries_of_the_currency() -> None:
    events = [entry("e1", "-100.00"), entry("e2", "90.00"), entry("e3", "7.00", currency="USD")]
    last = drive(Core(0), log_of([RULE], events, at(0))).discrepancies
    (euro,) = [one for one in last if one.currency == "EUR"]
    shown = euro.sides["entries"]

    assert shown is not None
    assert (shown.amount, shown.count) == ("-10.00", 2)
    assert shown.records is not None
    assert [record.id for record in shown.records] == ["e1", "e2"]


def test_an_entry_leaves_the_place_it_had_alone_without_anybody_telling_the_matcher() -> None:
    """Its newer event goes to both places, so that no other service has to notice; a plain entry goes to one."""
    alone = entry("e1", "-100.00", refs={})
    known = entry("e2", "-100.00", record="e1", occurred_at=at(1), received_at=at(3_700_000))
    log = [(key, one) for key, one in log_of([RULE], [alone, known], at(3_700_001)) if not isinstance(one, Withdraw)]
    changes = drive(Core(0), log)

    assert told(changes) == [("raised", "incomplete", None), ("resolved", "incomplete", "superseded")]
    assert sum(isinstance(one, Leg) for _, one in log) == 3
    plain = log_of([RULE], [entry("e3", "1.00")], at(0))
    assert sum(isinstance(one, Leg) for _, one in plain) == 1

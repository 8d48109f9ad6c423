"""The Law on the product: order, repetition, batching, restarts and ticks decide nothing about what is open at the end."""

from collections import Counter
from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.matcher.domain.changes import Changes
from services.matcher.domain.core import Core
from services.matcher.domain.group import unpack
from services.matcher.domain.kept_legs import is_kept, is_one, unpack_kept
from services.matcher.domain.state import OPEN_BYTES, SETTLED_OVERHEAD_BYTES, WAITING_BYTES
from shared.contracts.discrepancy import Discrepancy
from shared.contracts.item import Item, totals_of
from shared.contracts.leg import Cut, Leg, Tick, Withdraw
from shared.contracts.matched_pair import read_item
from tests.model.match_model import EXACT, Facts, run
from tests.model.strategies import (
    Scenario,
    at,
    lawful_scenarios,
    offsets,
    open_at_end,
    rearranged,
    repeated,
    scenarios,
)
from tests.support.laws import (
    a_restart_changes_nothing,
    batches_decide_nothing,
    disturbances,
    drive,
    the_same_log_gives_the_same_bytes,
    whole_state,
)
from tests.support.offline import LogEntry, log_of, run_offline, ticks, time_of

MODERATE = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
WHOLE = lawful_scenarios()
YEARS_MS = 30 * 365 * 86_400_000
"""Longer than every deadline, `keep` and `expire` of the generated rules together."""


PLAIN_RULES: list[dict[str, Any]] = [
    {
        "name": "billing.payments",
        "kind": "match",
        "sides": {
            "internal": {"source": "ledger", "type": ["payment.*"]},
            "provider": {"source": "stripe", "type": ["payment.*"]},
        },
        "key": key,
        "compare": {"amount": {}, "currency": {}, **status},
    }
    for key in ("refs.payment_id", ["refs.payment_id", "refs.invoice"])
    for status in ({}, {"status": {}})
]


def open_offline(scenario: Scenario) -> list[tuple[Any, ...]]:
    engine, _ = run_offline(scenario.rules, scenario.events, scenario.until)
    return open_at_end(msgspec.to_builtins(engine.last_revisions()))


def open_in(results: Changes) -> list[tuple[Any, ...]]:
    last: dict[str, Discrepancy] = {one.id: one for one in results.discrepancies}
    return open_at_end(msgspec.to_builtins(list(last.values())))


def read_items(changes: Changes) -> list[Item]:
    """The items of plain matches come encoded already."""
    encoded = [one if isinstance(one, bytes) else msgspec.json.encode(one) for _, one in changes.items]
    return [read_item(one) for one in encoded]


@st.composite
def hostile_logs(draw: st.DrawFn) -> list[LogEntry]:
    """Logs with everything that can stand in them: late and repeated legs, lagging partitions, rule changes, cuts."""
    scenario = draw(scenarios())
    partitions = draw(st.integers(1, 3))
    log = log_of(scenario.rules, scenario.events, scenario.until, partitions)
    rule = scenario.rules[0]
    moments = st.sampled_from(offsets(rule)).map(lambda offset: time_of(at(offset)))
    return draw(disturbances(log, partitions, rule, moments, changes_of(rule)))


@st.composite
def plain_matches(draw: st.DrawFn) -> list[LogEntry]:
    """Two sides that agree, in names with every character that JSON has its own way with."""
    text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8)
    words = text.filter(lambda one: not one.isspace())
    rule = draw(st.sampled_from(PLAIN_RULES))
    amount = draw(st.sampled_from(["100.00", "100", "0.00", "7.125", "12.50"]))
    refs = {"payment_id": draw(words), "invoice": draw(words)}
    sources = draw(st.permutations(["ledger", "stripe"]))
    events = [
        {
            "org": "acme", "source": source, "type": "payment.updated", "id": draw(text), "record": draw(text),
            "occurred_at": draw(st.sampled_from(["2026-03-06T09:00:00Z", "2026-03-06T09:00:00.000001Z"])),
            "amount": amount, "currency": draw(st.sampled_from(["EUR", "EUR", "EUR", "JPY"])),
            "refs": refs, "received_at": at(offset),
            **draw(st.sampled_from([{}, {"status": "paid"}, {"status": 's"\\é'}])),
        }
        for offset, source in zip((0, 1000), sources, strict=True)
    ]  # fmt: skip
    return log_of([rule], events, at(5000))


def changes_of(rule: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"compare": {"amount": {"tolerance": "2.00"}, "currency": {}}},
        {"deadline": "30m"},
        {"deadline": "5d"},
        {"severity": {"default": "critical"}},
        {"keep": "2h", "expire": "3h"},
        {"settle": "20m"},
        {"sides": dict(reversed(rule["sides"].items()))},
        {"sides": {**rule["sides"], "extra": {"source": "extra", "type": ["payment.*"]}}, "deadline": "1h"},
        {"key": ["refs.payment_id", "account"]},
    ]


# ---- the Law


@MODERATE
@given(WHOLE.flatmap(lambda one: st.tuples(st.just(one), rearranged(one))))
def test_any_order_of_arrival_leaves_the_same_open(pair: tuple[Scenario, Scenario]) -> None:
    """After every deadline and settling time."""
    assert open_offline(pair[0]) == open_offline(pair[1])


@MODERATE
@given(WHOLE.flatmap(lambda one: st.tuples(st.just(one), repeated(one))))
def test_redelivery_changes_no_revision(pair: tuple[Scenario, Scenario]) -> None:
    """Not what is open and not what was said on the way; only the place in the log differs."""
    said = [
        [msgspec.structs.replace(one, log=None, explanation="") for one in engine.last_revisions()]  # type: ignore[arg-type]
        for engine, _ in (run_offline(one.rules, one.events, one.until) for one in pair)
    ]
    assert said[0] == said[1]


@MODERATE
@given(hostile_logs())
def test_batches_decide_nothing(log: list[LogEntry]) -> None:
    batches_decide_nothing(log)


@MODERATE
@given(hostile_logs(), st.data())
def test_a_restart_anywhere_changes_nothing(log: list[LogEntry], data: st.DataObject) -> None:
    a_restart_changes_nothing(log, data.draw(st.integers(0, len(log)), label="restart after"))


class Judging(Core):
    """Never takes the short way of plain matches."""

    def _apply_pair(self, key: bytes, leg: Leg, pairs: object, offset: int) -> bool:
        return False


@MODERATE
@given(hostile_logs() | plain_matches())
def test_the_short_way_of_plain_matches_gives_what_a_verdict_gives(log: list[LogEntry]) -> None:
    """The same bytes of every item, the same state, the same counters."""
    short, judging = Core(0), Judging(0)
    made, judged = drive(short, log), drive(judging, log)

    items = [
        [(key, bytes(one) if isinstance(one, bytes) else msgspec.json.encode(one)) for key, one in changes.items]
        for changes in (made, judged)
    ]
    assert items[0] == items[1]
    assert (made.discrepancies, made.dead_letters) == (judged.discrepancies, judged.dead_letters)
    assert whole_state(short) == whole_state(judging)
    counters = (short.open_items, short.settled_items, short.state_bytes)
    assert counters == (judging.open_items, judging.settled_items, judging.state_bytes)


@MODERATE
@given(hostile_logs())
def test_the_same_log_gives_the_same_bytes(log: list[LogEntry]) -> None:
    the_same_log_gives_the_same_bytes(log)


@MODERATE
@given(hostile_logs())
def test_log_time_never_falls_and_revisions_count_up(log: list[LogEntry]) -> None:
    """Whatever partitions say, and however often a group is raised, resolved and raised again."""
    core = Core(0)
    revisions: Counter[tuple[str, str]] = Counter()
    before = core.log_time
    for offset, (group, record) in enumerate(log):
        core.apply(group, record, offset)
        assert core.log_time >= before
        before = core.log_time
        for one in core.take().discrepancies:
            assert one.revision in (revisions[one.org, one.id] + 1, 1)
            revisions[one.org, one.id] = one.revision


@MODERATE
@given(WHOLE, st.data())
def test_ticks_and_lagging_partitions_decide_nothing(scenario: Scenario, data: st.DataObject) -> None:
    """Extra ticks in between, several inbox partitions and late ones: the same is open at the end."""
    partitions = data.draw(st.integers(1, 3), label="inbox partitions")
    log = log_of(scenario.rules, scenario.events, scenario.until, partitions)
    end = len(log) - partitions
    places = data.draw(st.lists(st.integers(0, end - 1), max_size=10, unique=True), label="ticks left out")
    lagging = [one for place, one in enumerate(log) if place not in places or not isinstance(one[1], Tick)]
    for place in data.draw(st.lists(st.integers(0, len(lagging) - partitions), max_size=5), label="ticks in between"):
        known = [one[1].time for one in lagging[:place] if isinstance(one[1], Tick) and one[1].inbox_partition == 0]
        coming = [one[1].time for one in lagging[place:] if isinstance(one[1], Tick) and one[1].inbox_partition == 0]
        between = (max(known, default=min(coming)) + min(coming)) // 2
        lagging.insert(place, (b"", Tick(0, partitions, between)))

    assert open_in(drive(Core(0), lagging)) == open_in(drive(Core(0), log)) == open_offline(scenario)


@MODERATE
@given(WHOLE)
def test_a_stalled_inbox_partition_raises_no_missing_record(scenario: Scenario) -> None:
    """Log time is the least of all partitions, so a partition that says nothing more holds every deadline back."""
    log = log_of(scenario.rules, scenario.events, scenario.until, 2)
    stalled = [one for one in log if not (isinstance(one[1], Tick) and one[1].inbox_partition == 1)]
    stalled = [
        (group, msgspec.structs.replace(leg, inbox_partition=0) if isinstance(leg, Leg | Withdraw) else leg)
        for group, leg in stalled
    ]
    start = time_of(at(0))

    told = drive(Core(0), [(b"", Tick(1, 2, start)), *stalled]).discrepancies
    assert not [one for one in told if one.type.startswith("Missing") and one.state == "raised"]


# ---- what is counted


@MODERATE
@given(hostile_logs())
def test_counters_are_what_a_recount_gives_and_nothing_stays_for_ever(log: list[LogEntry]) -> None:
    """After every record, and all zero once `keep` and `expire` have passed."""
    core = Core(0)
    for offset, (group, record) in enumerate(log):
        core.apply(group, record, offset)
        assert (core.open_items, core.settled_items, core.state_bytes) == recount(core)
    for inbox in range(5):
        core.apply(b"", Tick(inbox, 5, time_of(at(0)) + YEARS_MS), len(log))
    assert (core.open_items, core.settled_items, core.state_bytes) == (0, 0, 0)


def recount(core: Core) -> tuple[int, int, int]:
    is_open, settled, size = 0, 0, 0
    for key, value in core.snapshot():
        if not key.startswith(b"["):
            continue
        if is_one(value):
            is_open += 1
            size += WAITING_BYTES
            continue
        group = unpack_kept(value) if is_kept(value) else unpack(value)
        if not group.waits and not any(raised.open for raised in group.raised or ()):
            settled += 1
            size += len(key) + len(value) + SETTLED_OVERHEAD_BYTES
        else:
            is_open += 1
            size += OPEN_BYTES
    return is_open, settled, size


@MODERATE
@given(lawful_scenarios(whole=False))
def test_every_live_record_stands_in_exactly_one_item_after_a_cut(scenario: Scenario) -> None:
    """And the item's totals are the sums of the records' winning events, per side and currency."""
    log = log_of(scenario.rules, scenario.events, scenario.until)
    for org in ("acme", "globex"):
        log.append((b"", Cut(org, "c1", 0, time_of(scenario.until))))
    items = {item.id: item for item in read_items(drive(Core(0), log))}
    outcome = run(scenario.rules, scenario.events, scenario.until)

    held = {}
    for group in outcome.groups:
        facts = Facts(group.key, group.legs)
        if facts.any_live():
            held[group.key.org, group.key.value] = {side: totals(facts, side) for side in group.rule["sides"]}
    shown = {
        (item.org, item.key): {
            side: {currency: (total.count, Decimal(total.amount)) for currency, total in totals_of(one).items()}
            if one
            else {}
            for side, one in item.sides.items()
        }
        for item in items.values()
        if item.live
    }
    assert shown == held


def totals(facts: Facts, side: str) -> dict[str, tuple[int, Decimal]]:
    found: dict[str, tuple[int, Decimal]] = {}
    known = {record.currency for record in facts.records if record.currency is not None}
    unnamed = known.pop() if len(known) == 1 else "XXX"
    for record in facts.live_on(side):
        if record.amount is not None:
            currency = record.currency or unnamed
            count, amount = found.get(currency, (0, Decimal(0)))
            found[currency] = (count + 1, EXACT.add(amount, record.amount))
    return found


def test_a_log_of_ticks_alone_is_nothing_to_report() -> None:
    """The clock is state, but no result."""
    changes = drive(Core(0), ticks(1000, 3) + ticks(2000, 3))

    assert (changes.discrepancies, changes.items, changes.dead_letters) == ([], [], [])

"""The laws of the match core that hold for every kind of rule, and the logs that try to break them."""

from typing import Any

import msgspec
from hypothesis import strategies as st

from services.matcher.domain.changes import Changes
from services.matcher.domain.core import Core
from shared.contracts.leg import Cut, Leg, RuleRecord, Tick, Withdraw
from shared.rules.compiled import rule_record
from tests.support.offline import PACK, LogEntry, log_of, rules_of

Rule = dict[str, Any]


def joined(parts: list[Changes]) -> Changes:
    return Changes(
        discrepancies=[one for part in parts for one in part.discrepancies],
        items=[one for part in parts for one in part.items],
        checks=[one for part in parts for one in part.checks],
        dead_letters=[one for part in parts for one in part.dead_letters],
        state=[one for part in parts for one in part.state],
    )


def drive(core: Core, log: list[LogEntry], first_offset: int = 0, *, each: bool = False) -> Changes:
    parts = []
    for offset, (group, record) in enumerate(log, start=first_offset):
        core.apply(group, record, offset)
        if each:
            parts.append(core.take())
    return joined([*parts, core.take()])


def results(changes: Changes) -> bytes:
    return msgspec.msgpack.encode((changes.discrepancies, changes.items, changes.checks, changes.dead_letters))


def whole_state(core: Core) -> list[tuple[bytes, bytes]]:
    return sorted(core.snapshot())


def counters(core: Core) -> tuple[int, int, int]:
    return core.open_items, core.settled_items, core.state_bytes


# ---- logs


@st.composite
def disturbed(
    draw: st.DrawFn, rule: Rule, events: list[dict[str, Any]], until: str, moments: list[int], changes: list[Rule]
) -> list[LogEntry]:
    """A log with everything that can stand in one: late and repeated legs, lagging partitions, rule changes, cuts.

    `moments` are times (milliseconds) that matter to the rule; `changes` what may be laid over it.
    """
    partitions = draw(st.integers(1, 3))
    log = log_of([rule], events, until, partitions)
    return draw(disturbances(log, partitions, rule, st.sampled_from(moments), changes))


@st.composite
def disturbances(
    draw: st.DrawFn,
    log: list[LogEntry],
    partitions: int,
    rule: Rule,
    moments: st.SearchStrategy[int],
    changes: list[Rule],
) -> list[LogEntry]:
    """The log with up to six disturbances."""
    legs = [entry for entry in log if isinstance(entry[1], Leg)]
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(min(2, len(log)), len(log)))
        what = draw(
            st.sampled_from(["lag", "lag", "late", "late", "cut", "withdraw", "rule", "rule withdrawn", "partitions"])
        )
        if what == "lag":
            stalled = draw(st.integers(0, partitions - 1))
            start = draw(st.integers(min(2, len(log)), len(log)))
            kept = [
                one for one in log[start:place] if not (isinstance(one[1], Tick) and one[1].inbox_partition == stalled)
            ]
            log[start:place] = kept
        elif what == "late" and legs:
            group, leg = draw(st.sampled_from(legs))
            assert isinstance(leg, Leg)
            log.insert(place, (group, msgspec.structs.replace(leg, received_at=draw(moments))))
        elif what == "withdraw" and legs:
            group, leg = draw(st.sampled_from(legs))
            assert isinstance(leg, Leg)
            log.insert(place, (group, Withdraw(leg.source, leg.record, 0, draw(moments))))
        elif what == "cut":
            log.insert(place, (b"", Cut("acme", "c1", draw(st.integers(0, partitions - 1)), draw(moments))))
        elif what.startswith("rule"):
            version = draw(st.integers(0, 4))
            change = draw(st.sampled_from(changes)) if what == "rule" else None
            log.insert(place, (b"", rule_change(rule, version, change)))
        elif what == "partitions":
            log.insert(place, (b"", Tick(0, draw(st.integers(1, 4)), draw(moments))))
    return log


def rule_change(rule: Rule, version: int, change: Rule | None) -> RuleRecord:
    """The control record of the rule with `change` laid over it; None withdraws it."""
    if change is None:
        return RuleRecord("acme", rule["name"], "", version, "")
    (model,) = rules_of([rule | change])
    return rule_record("acme", PACK, model, version)


# ---- laws


def batches_decide_nothing(log: list[LogEntry]) -> None:
    """Taking after every record gives what taking once at the end gives, and the state deltas add up to the state."""
    at_once, one_by_one = Core(0), Core(0)
    whole, parts = drive(at_once, log), drive(one_by_one, log, each=True)

    assert results(whole) == results(parts)
    assert whole_state(at_once) == whole_state(one_by_one)
    for changes, core in ((whole, at_once), (parts, one_by_one)):
        assert sorted((key, value) for key, value in dict(changes.state).items() if value) == whole_state(core)


def a_restart_changes_nothing(log: list[LogEntry], stop: int) -> None:
    """Restored from a snapshot or from deltas after `stop` records, the rest of the log gives the same results and state."""
    undisturbed = Core(0)
    before = drive(undisturbed, log[:stop], each=True)
    entries = [list(undisturbed.snapshot()), before.state]
    after = drive(undisturbed, log[stop:], stop)
    for saved in entries:
        restored = Core(0)
        restored.restore(saved)
        assert results(drive(restored, log[stop:], stop)) == results(after)
        assert whole_state(restored) == whole_state(undisturbed)
        assert restored.log_time == undisturbed.log_time
        assert counters(restored) == counters(undisturbed)


def the_same_log_gives_the_same_bytes(log: list[LogEntry]) -> None:
    """Results, deltas and state."""
    first, second = Core(3), Core(3)
    changes = [drive(core, log, each=True) for core in (first, second)]

    assert results(changes[0]) == results(changes[1])
    assert changes[0].state == changes[1].state
    assert whole_state(first) == whole_state(second)

"""Settled pairs that are frozen: nobody can tell it from what is published or stored, only from the memory they take."""

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.matcher.domain.core import Core
from services.matcher.domain.frozen import Freezing, is_frozen
from services.matcher.domain.kept_legs import is_one
from services.matcher.domain.state import _bytes_of
from shared.contracts.leg import Cut, Leg, RuleRecord, Tick, Withdraw, encode_leg_record, group_key
from shared.rules.compiled import rule_record
from tests.support.laws import drive, results, whole_state
from tests.support.offline import PACK, LogEntry, rules_of

MODERATE = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
START = 1_780_000_000_000
HOUR_MS = 3_600_000
RULE: dict[str, Any] = {
    "name": "billing.payments",
    "kind": "match",
    "sides": {
        "internal": {"source": "ledger", "type": ["payment.*"]},
        "provider": {"source": "stripe", "type": ["payment.*"]},
    },
    "key": "refs.payment_id",
    "compare": {"amount": {}, "currency": {}},
}
NEVER_FROZEN = Freezing(recent_pairs=1 << 40, waiting_pairs_max=1 << 40, restored_pairs_max=1 << 40)
SMALL = st.builds(
    Freezing,
    recent_pairs=st.integers(0, 2),
    waiting_pairs_max=st.integers(0, 4),
    restored_pairs_max=st.integers(0, 4),
    block_pairs=st.integers(1, 3),
    blocks_at_once=st.integers(1, 2),
)


def rule_of(version: int, **changes: Any) -> RuleRecord:
    (model,) = rules_of([RULE | changes])
    return rule_record("acme", PACK, model, version)


def key_of(payment: int) -> bytes:
    return group_key("acme", "billing.payments", (f"p{payment}",))


def leg(rule: RuleRecord, side: int, at_ms: int, event: str = "", amount: str = "100.00") -> Leg:
    source = ("ledger", "stripe")[side]
    return Leg(
        generation=rule.generation, side=side, source=source, record=source, id=f"{source}{event}",
        occurred_at=(START + at_ms) * 1000, inbox_partition=0, inbox_offset=0, received_at=START + at_ms,
        amount=amount, currency="EUR",
    )  # fmt: skip


def pairs(rule: RuleRecord, count: int, first: int = 0, at_ms: int = 0) -> list[LogEntry]:
    return [(key_of(first + one), leg(rule, side, at_ms + one)) for one in range(count) for side in (0, 1)]


def begun(rule: RuleRecord) -> list[LogEntry]:
    return [(b"", rule), (b"", Tick(0, 1, START))]


@st.composite
def logs(draw: st.DrawFn) -> list[LogEntry]:
    """Many pairs, most of which agree, that come again, are corrected, taken out, judged anew and forgotten."""
    keep, deadline = draw(st.sampled_from(["1h", "24h", "48h"])), draw(st.sampled_from(["1h", "24h"]))
    rule = rule_of(1, keep=keep, deadline=deadline)
    log, legs, now_ms = begun(rule), list[tuple[bytes, Leg]](), 0
    for number in range(draw(st.integers(3, 25))):
        now_ms += draw(st.sampled_from([0, 0, 1, 1, 1000, HOUR_MS // 2, HOUR_MS, 24 * HOUR_MS]))
        what = draw(
            st.sampled_from(["pair"] * 6 + ["leg", "again", "again", "corrected", "tick", "withdraw", "cut", "rule"])
        )
        if what == "pair":
            made = pairs(rule, 1, number, now_ms)
        elif what == "leg":
            made = [(key_of(number), leg(rule, draw(st.integers(0, 1)), now_ms))]
        elif what == "tick":
            made = [(b"", Tick(0, 1, START + now_ms))]
        elif what == "cut":
            made = [(b"", Cut("acme", f"c{number}", 0, START + now_ms))]
        elif what == "rule":
            rule = rule_of(number + 2, keep=keep, deadline=draw(st.sampled_from(["1h", "24h"])))
            made = [(b"", rule)]
        elif not legs:
            continue
        else:
            key, known = draw(st.sampled_from(legs))
            if what == "again":
                made = [(key, msgspec.structs.replace(known, received_at=START + now_ms))]
            elif what == "corrected":
                amount = draw(st.sampled_from(["100.00", "99.00"]))
                made = [(key, leg(rule, known.side, now_ms, f"-{number}", amount))]
            else:
                made = [(key, Withdraw(known.source, known.record, 0, START + now_ms))]
        log += made
        legs += [(key, one) for key, one in made if isinstance(one, Leg)]
    return log


def apply(core: Core, entry: LogEntry, offset: int) -> None:
    key, record = entry
    core.apply(key, record, offset, encode_leg_record(record) if isinstance(record, Leg) else None)


def frozen_in(core: Core) -> int:
    return sum(type(held) is bytes and is_frozen(held) for held in core._state.cells.values())


def settled_bytes(core: Core) -> int:
    cells = core._state.cells.items()
    return sum(_bytes_of(key, held) for key, held in cells if type(held) is bytes and not is_one(held))


@MODERATE
@given(logs(), SMALL, st.data())
def test_nobody_can_tell_that_pairs_are_frozen(log: list[LogEntry], freezing: Freezing, data: st.DataObject) -> None:
    """Every record gives the same results and the same changes of state, also after restarts in between."""
    restarts = data.draw(st.sets(st.integers(0, len(log)), max_size=2), label="restarts before")
    plain, frozen = Core(0, freezing=NEVER_FROZEN), Core(0, freezing=freezing)
    for offset, entry in enumerate(log):
        if offset in restarts:
            assert whole_state(frozen) == whole_state(plain)
            again = Core(0, freezing=freezing)
            again.restore(list(frozen.snapshot()))
            frozen = again
        apply(plain, entry, offset)
        apply(frozen, entry, offset)
        expected, actual = plain.take(), frozen.take()
        assert results(expected) == results(actual)
        assert sorted(expected.state) == sorted(actual.state)
        frozen.freeze()
        assert (frozen.open_items, frozen.settled_items) == (plain.open_items, plain.settled_items)
        assert frozen._state.settled_bytes == settled_bytes(frozen)
    assert whole_state(frozen) == whole_state(plain)


@MODERATE
@given(logs(), SMALL, st.data())
def test_a_snapshot_in_slices_goes_through_frozen_pairs(
    log: list[LogEntry], freezing: Freezing, data: st.DataObject
) -> None:
    """While records are applied and pairs are frozen and put back, slices and the changes between add up to the state."""
    core, restored = Core(0, freezing=freezing), Core(0, freezing=freezing)
    begin = data.draw(st.integers(0, len(log)), label="snapshot after")
    for offset, entry in enumerate(log[:begin]):
        apply(core, entry, offset)
        core.take()
        core.freeze()
    snapshot = core.snapshot()
    for offset, entry in enumerate(log[begin:], start=begin):
        apply(core, entry, offset)
        restored.restore(core.take().state)
        for _ in range(data.draw(st.integers(0, 3), label="entries")):
            restored.restore([one for one in [next(snapshot, None)] if one is not None])
            core.freeze()
    restored.restore(snapshot)

    assert whole_state(restored) == whole_state(core)
    assert len(restored._state.cells) == len(core._state.cells)


def settled(count: int, freezing: Freezing, **changes: Any) -> tuple[Core, RuleRecord]:
    rule = rule_of(1, **changes)
    core = Core(0, freezing=freezing)
    drive(core, begun(rule) + pairs(rule, count))
    while core.freeze():
        pass
    return core, rule


def test_old_pairs_are_frozen_and_recent_ones_are_not() -> None:
    """Also the memory that is told falls."""
    core, _ = settled(1_000, Freezing(recent_pairs=100, block_pairs=50))
    unfrozen, _ = settled(1_000, NEVER_FROZEN)

    assert frozen_in(core) == 900
    assert core.settled_items == unfrozen.settled_items == 1_000
    assert core.state_bytes < 0.5 * unfrozen.state_bytes
    assert not any(type(held) is bytes and is_frozen(held) for held in [core._state.cells[key_of(999)]])


@pytest.mark.parametrize(("amount", "told"), [("100.00", []), ("99.00", ["AmountMismatch"])])
def test_a_correction_finds_a_frozen_pair_and_leaves_the_others_frozen(amount: str, told: list[str]) -> None:
    core, rule = settled(12, Freezing(recent_pairs=0, block_pairs=4), keep="48h")
    changes = drive(core, [(key_of(5), leg(rule, 1, HOUR_MS, "-2", amount))], 100)

    assert [one.type for one in changes.discrepancies] == told
    assert frozen_in(core) == 11


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 3, 0, 1)])
def test_frozen_pairs_are_forgotten_when_they_are_due_each_at_its_time(order: tuple[int, ...]) -> None:
    """In whatever order they settled while one inbox partition lagged; also one that was asked for."""
    rule, core = rule_of(1, keep="48h", deadline="1h"), Core(0, freezing=Freezing(recent_pairs=0, block_pairs=4))
    lagging = [(b"", rule), (b"", Tick(0, 2, START)), (b"", Tick(1, 2, START))]
    drive(core, lagging + [entry for number in order for entry in pairs(rule, 1, number, number)])
    core.freeze()
    assert frozen_in(core) == 4
    drive(core, [(key_of(2), leg(rule, 0, HOUR_MS))], 100)  # comes again, and changes nothing
    assert frozen_in(core) == 3
    gone = []
    for at_ms in range(5):
        due = [(b"", Tick(inbox, 2, START + 48 * HOUR_MS + at_ms)) for inbox in (0, 1)]
        gone.append([key for key, value in drive(core, due, 101 + at_ms).state if value == b""])

    assert gone == [[], [key_of(0)], [key_of(1)], [key_of(2)], [key_of(3)]]
    assert (core.settled_items, core.state_bytes) == (0, 0)


def test_a_pair_that_is_corrected_just_before_it_is_due_is_not_forgotten_with_its_block() -> None:
    """Its block had begun to be forgotten."""
    core, rule = settled(4, Freezing(recent_pairs=0, block_pairs=4), keep="48h")
    due_ms = 48 * HOUR_MS
    changes = drive(
        core, [(b"", Tick(0, 1, START + due_ms + 1)), (key_of(3), leg(rule, 1, due_ms + 1, "-2", "99.00"))], 100
    )
    assert [key for key, value in changes.state if value == b""] == [key_of(0)]
    drive(core, [(b"", Tick(0, 1, START + due_ms + 100))], 102)

    assert list(core._state.cells) == [key_of(3)]
    assert (core.open_items, core.settled_items) == (1, 0)


def test_a_restore_freezes_what_is_too_much() -> None:
    """What fitted into memory before a restart fits after it."""
    core, _ = settled(300, NEVER_FROZEN)
    restored = Core(0, freezing=Freezing(restored_pairs_max=100, block_pairs=50))
    restored.restore(core.snapshot())

    assert frozen_in(restored) == 200
    assert whole_state(restored) == whole_state(core)


def test_without_a_quiet_moment_pairs_are_frozen_all_the_same_when_they_are_too_many() -> None:
    rule, core = rule_of(1), Core(0, freezing=Freezing(waiting_pairs_max=100, block_pairs=50))
    drive(core, begun(rule) + pairs(rule, 300))

    assert frozen_in(core) == 200

"""Months of one account: what is older than `keep` is folded into sums, and no verdict differs from one that knows it all."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.matcher.domain import pages
from services.matcher.domain.core import Core
from tests.model.stream import Stream
from tests.support.laws import a_restart_changes_nothing, drive
from tests.support.offline import log_of, run_offline
from tests.support.verdicts import unlike

MODERATE = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
START = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
RULE: dict[str, Any] = {
    "name": "stack.circle_balance",
    "kind": "balance",
    "movements": {"source": "ledger", "type": ["movement.*"]},
    "snapshots": {"source": "circle", "type": ["balance.*"]},
    "key": "account",
    "settle": "5m",
    "keep": "2d",
    "expire": "6d",
}
Event = dict[str, Any]


@pytest.fixture(autouse=True, scope="module")
def _small_pages() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "PAGE_ENTRIES", 3)
        yield


def event(id_: str, at: datetime, received: datetime, **fields: Any) -> Event:
    return {
        "org": "acme", "source": "ledger", "type": "movement.posted", "id": id_, "record": id_, "account": "w1",
        "currency": "EUR", "amount": "10.00", "occurred_at": at.isoformat(), "received_at": received.isoformat(),
    } | fields  # fmt: skip


@st.composite
def months(draw: st.DrawFn) -> Stream:
    """Everything comes within `keep` of its date; readings, corrections and repetitions between the movements."""
    now, events, recent = START, list[Event](), list[tuple[datetime, Event]]()
    opening = draw(st.sampled_from(["snapshot", "0.00", {"w1": {"EUR": "5.00"}}]))
    for number in range(draw(st.integers(5, 40))):
        now += timedelta(minutes=draw(st.sampled_from([0, 1, 7, 600, 1800, 3000, 9000])))
        recent = [(date, one) for date, one in recent if now - date < 2 * DAY]
        kind = draw(st.sampled_from(["movement"] * 6 + ["reading"] * 3 + ["again", "correction", "void", "adjustment"]))
        if kind == "reading":
            amount = draw(st.sampled_from(["0.00", "10.00", "25.00", "60.00"]))
            currency = draw(st.sampled_from(["EUR", "EUR", "USD"]))
            made = event(f"s{number}", now, now, source="circle", type="balance.read", amount=amount, currency=currency)
        elif kind == "adjustment":
            refs = {"discrepancy": "any"}
            made = event(f"a{number}", now - 9 * DAY, now, type="adjustment.plug", amount="-10.00", refs=refs)
        elif kind == "movement" or not recent:
            date = now - timedelta(minutes=draw(st.sampled_from([0, 0, 5, 600, 2000])))
            fields = draw(st.sampled_from([{}, {}, {"amount": "-5.00"}, {"currency": "USD"}, {"status": "pending"}]))
            record = draw(st.sampled_from([f"m{number}", f"r{number}"]))
            made = event(f"m{number}", date, now, record=record, **fields)
            recent.append((date, made))
        else:
            date, before = draw(st.sampled_from(recent))
            changes: Event = {"again": {}, "void": {"status": "voided"}}.get(kind, {"amount": "11.00"})
            changed = {"id": f"c{number}", "sequence": number} if changes else {}
            made = before | changes | changed | {"received_at": now.isoformat()}
        events.append(made)
    rule = RULE | {"opening": opening}
    return Stream(rule, events, (now + draw(st.sampled_from([timedelta(), DAY, 30 * DAY]))).isoformat())


@MODERATE
@given(months())
def test_folding_changes_no_verdict(stream: Stream) -> None:
    """The model keeps everything for ever."""
    assert unlike(stream) == []


@MODERATE
@given(months(), st.data())
def test_a_restart_anywhere_in_it_changes_nothing(stream: Stream, data: st.DataObject) -> None:
    log = log_of([stream.rule], stream.events, stream.until)
    a_restart_changes_nothing(log, data.draw(st.integers(0, len(log)), label="restart after"))


def pages_of(core: Core) -> list[bytes]:
    return [key for key, _ in core.snapshot() if b"#" in key]


def movements(count: int, every: timedelta) -> list[Event]:
    return [event(f"m{number}", START + number * every, START + number * every) for number in range(count)]


def reading(id_: str, at: datetime, amount: str, **fields: Any) -> Event:
    return event(id_, at, at, source="circle", type="balance.read", amount=amount, **fields)


def core_after(events: list[Event], until: datetime, **changes: Any) -> Core:
    core = Core(0)
    drive(core, log_of([RULE | changes], events, until.isoformat()))
    return core


def test_what_no_reading_has_judged_is_held_until_expire() -> None:
    """A reading that comes late finds it; after `expire` only a sum is left of it, and no name after another one."""
    events = movements(30, timedelta(minutes=1))

    assert len(pages_of(core_after(events, START + 3 * DAY))) == 10
    assert len(pages_of(core_after(events, START + 7 * DAY))) == 10  # the names of ten folded pages
    assert pages_of(core_after(events, START + 20 * DAY)) == []


def test_what_was_judged_is_folded_after_keep() -> None:
    events = [*movements(30, timedelta(minutes=1)), reading("s1", START + timedelta(hours=1), "300.00")]
    core = core_after(events, START + 4 * DAY, opening="0")

    held = {key: len(value) for key, value in core.snapshot() if b"#" in key}
    assert len(held) == 11  # ten pages, and the one with the reading
    assert max(held.values()) < 70  # names, no entries


@pytest.mark.parametrize("gap", [timedelta(days=2, hours=3), timedelta(days=5)], ids=["still held", "folded"])
def test_a_change_of_a_movement_that_counts_for_good_is_too_late(gap: timedelta) -> None:
    """Whether its page has been folded makes no difference: it counts once, as it was."""
    at = START + timedelta(minutes=30) + gap
    paid, voided = {"record": "m3", "id": "m3b", "status": "settled"}, {"record": "m4", "id": "m4b", "status": "voided"}
    late = [event("x", at, at, **fields) for fields in (paid, voided, {"id": "m5b", "supersedes": "m5"})]
    first = [*movements(30, timedelta(minutes=1)), reading("s1", START + timedelta(hours=1), "300.00")]
    engine, _ = run_offline(
        [RULE | {"opening": "0"}],
        [*first, *late, reading("s2", at + timedelta(hours=1), "300.00")],
        (at + DAY).isoformat(),
    )

    assert [(one.event, one.reason) for one in engine.dead_letters] == [
        ("m3b", "too late"),
        ("m4b", "too late"),
        ("m5b", "too late"),
    ]
    assert [check.result for check in engine.checks] == ["passed", "passed"]


def test_a_pending_movement_counts_when_it_is_posted_long_after() -> None:
    """It never counted, so nothing counts twice."""
    at = START + 5 * DAY
    events = [
        event("m1", START, START, status="pending"),
        event("m1b", at, at, record="m1", status="posted"),
        reading("s1", at + timedelta(hours=1), "10.00"),
    ]
    engine, _ = run_offline([RULE | {"opening": "0"}], events, (at + DAY).isoformat())

    assert engine.dead_letters == []
    assert [check.result for check in engine.checks] == ["passed"]


def test_a_first_reading_of_a_time_of_which_nothing_is_held_is_an_error() -> None:
    """It cannot be told which of the folded movements came before it."""
    now = START + 10 * DAY
    events = [event("m1", START, START), reading("s1", START + DAY, "10.00", received_at=now.isoformat())]
    engine, _ = run_offline([RULE], events, (now + DAY).isoformat())

    assert [(check.result, check.reason) for check in engine.checks] == [("error", "too late")]
    assert [(one.event, one.reason) for one in engine.dead_letters] == [("s1", "too late")]


def test_a_superseded_adjustment_is_ignored_however_late_it_comes() -> None:
    """Adjustments have no date by which they are too late, so what took their place is not forgotten either."""
    later = START + 30 * DAY
    plug = {"type": "adjustment.plug", "refs": {"discrepancy": "any"}}
    events = [
        event("a2", START, START, supersedes="a1", **plug),
        event("a1", later, later, **plug),
        reading("s1", later + timedelta(hours=1), "10.00"),
    ]
    engine, _ = run_offline([RULE | {"opening": "0"}], events, (later + DAY).isoformat())

    assert engine.dead_letters == []
    assert [check.result for check in engine.checks] == ["passed"]


@pytest.mark.parametrize("changed", [{"id": "m1b", "record": "m1"}, {"id": "m2b", "record": "m2", "supersedes": "m1"}])
def test_a_superseded_movement_is_ignored_after_its_page_was_folded(changed: Event) -> None:
    """What took its place may still change, and says again what it took the place of."""
    at, later = START + DAY, START + timedelta(days=2, hours=12)
    filler = [event(f"f{number}", START, START, amount="0.00") for number in range(3)]
    events = [
        event("m1", START, START),
        *filler,
        event("m2", at, at, supersedes="m1"),
        reading("s0", at + timedelta(hours=1), "10.00"),
        event("x", at, later, sequence=1, **changed),
        reading("s1", later + timedelta(hours=1), "10.00"),
    ]
    engine, _ = run_offline([RULE | {"opening": "0"}], events, (later + DAY).isoformat())

    assert engine.dead_letters == []
    assert [check.result for check in engine.checks] == ["passed", "passed"]

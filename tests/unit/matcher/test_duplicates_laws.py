"""The laws of `duplicates`: order, repetition, batching and restarts decide nothing; and an oracle of three lines."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.matcher.domain.core import Core
from services.matcher.domain.suspicions import RECORDS_MAX
from shared.contracts.leg import Leg, Tick, Withdraw
from tests.model.strategies import START, at
from tests.model.stream import Stream, rearranged, repeated
from tests.support.laws import (
    a_restart_changes_nothing,
    batches_decide_nothing,
    counters,
    disturbed,
    drive,
    the_same_log_gives_the_same_bytes,
)
from tests.support.offline import LogEntry, log_of, run_offline, time_of

MODERATE = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MINUTE, DAY = 60_000, 86_400_000
RULE: dict[str, Any] = {
    "name": "billing.twice",
    "kind": "duplicates",
    "sides": {
        "internal": {"source": "ledger", "type": ["payment.*"]},
        "provider": {"source": "stripe", "type": ["payment.*"]},
    },
    "same": ["account", "amount", "currency"],
    "within": "10m",
    "apart": "refs.payment_id",
    "keep": "1d",
    "expire": "20d",
}
OFFSETS = [0, 1, 9 * MINUTE, 10 * MINUTE, 10 * MINUTE + 1, 20 * MINUTE, DAY, DAY + 1, 3 * DAY]
CHANGES: list[dict[str, Any]] = [
    {"within": "1h"},
    {"same": ["account", "currency"]},
    {"keep": "1h", "expire": "2h"},
    {"sides": {**RULE["sides"], "provider": {"source": "stripe", "type": ["payment.*"], "live": ["paid"]}}},
    {"same": ["account"]},
]


@st.composite
def streams(draw: st.DrawFn, *, lawful: bool = False) -> Stream:
    offsets = sorted(draw(st.lists(st.sampled_from(OFFSETS[:6] if lawful else OFFSETS), min_size=1, max_size=8)))
    events = []
    for place, offset in enumerate(offsets):
        made = {
            "org": "acme",
            "source": draw(st.sampled_from(["stripe", "stripe", "ledger"])),
            "type": "payment.updated",
            "id": f"e{place}" if lawful else f"e{draw(st.sampled_from([place, place, place, 0]))}",
            "record": f"r{place}" if lawful else f"r{draw(st.integers(1, 4))}",
            "received_at": at(30 * MINUTE + place if lawful else offset),
            "occurred_at": (START + timedelta(milliseconds=offset)).isoformat(),
            "amount": draw(st.sampled_from(["100.00", "100.00", "100.0", "70.00"])),
            "currency": draw(st.sampled_from(["EUR", "EUR", "EUR", "USD"])),
            "account": draw(st.sampled_from(["a", "a", "a", "b", None])),
            "status": draw(st.sampled_from([None, None, None, "paid", "voided"])),
            "refs": draw(st.sampled_from([{}, {"payment_id": "p1"}, {"payment_id": "p2"}])),
            "supersedes": None if lawful else draw(st.sampled_from([None, None, None, "r1"])),
        }
        events.append({name: value for name, value in made.items() if value is not None})
    return Stream(RULE, events, at(DAY - 1 if lawful else max(offsets[-1], draw(st.sampled_from(OFFSETS)))))


@st.composite
def hostile_logs(draw: st.DrawFn) -> list[LogEntry]:
    stream = draw(streams())
    return draw(disturbed(RULE, stream.events, stream.until, [time_of(at(one)) for one in OFFSETS], CHANGES))


def suspected(stream: Stream) -> set[tuple[str | None, str | None]]:
    engine, _ = run_offline([RULE], stream.events, stream.until)
    return {(one.side, one.duplicate) for one in engine.last_revisions() if one.state == "raised"}


@MODERATE
@given(hostile_logs(), st.data())
def test_the_laws_hold(log: list[LogEntry], data: st.DataObject) -> None:
    batches_decide_nothing(log)
    the_same_log_gives_the_same_bytes(log)
    a_restart_changes_nothing(log, data.draw(st.integers(0, len(log)), label="restart after"))


def test_a_record_that_is_withdrawn_before_it_comes_never_counts() -> None:
    """Also across a restart between the two: the state tells of it."""
    payment = {"org": "acme", "source": "stripe", "type": "payment.updated", "occurred_at": at(0), "received_at": at(0)}
    payment |= {"amount": "100.00", "currency": "EUR", "account": "a"}
    log = log_of([RULE], [payment | {"id": f"e{number}", "record": f"r{number}"} for number in (1, 2)], at(MINUTE))
    places = [place for place, (_, record) in enumerate(log) if isinstance(record, Leg)]
    group, _ = log[places[0]]
    log.insert(places[0] + 1, (group, Withdraw("stripe", "r2", 0, time_of(at(0)))))

    assert drive(Core(0), log).discrepancies == []
    batches_decide_nothing(log)
    for stop in range(len(log)):
        a_restart_changes_nothing(log, stop)


@MODERATE
@given(hostile_logs())
def test_nothing_stays_for_ever(log: list[LogEntry]) -> None:
    core = Core(0)
    drive(core, log)
    for inbox in range(5):
        core.apply(b"", Tick(inbox, 5, time_of(at(0)) + 3650 * DAY), len(log))
    assert counters(core) == (0, 0, 0)


@MODERATE
@given(streams(lawful=True).flatmap(lambda one: st.tuples(st.just(one), rearranged(one), repeated(one))))
def test_order_and_repetition_decide_nothing(same: tuple[Stream, Stream, Stream]) -> None:
    assert suspected(same[0]) == suspected(same[1]) == suspected(same[2])


@MODERATE
@given(streams(lawful=True))
def test_who_is_suspected_is_who_follows_one_that_agrees(stream: Stream) -> None:
    live = [one for one in stream.events if one.get("status") != "voided" and one.get("account")]

    def agree(one: dict[str, Any], other: dict[str, Any]) -> bool:
        apart = datetime.fromisoformat(other["occurred_at"]) - datetime.fromisoformat(one["occurred_at"])
        same = all(one[field] == other[field] for field in ("source", "account", "currency"))
        order = (one["occurred_at"], one["record"]) < (other["occurred_at"], other["record"])
        keys = one["refs"].get("payment_id"), other["refs"].get("payment_id")
        return (
            same
            and order
            and Decimal(one["amount"]) == Decimal(other["amount"])
            and apart <= timedelta(minutes=10)
            and (keys[0] is None or keys[0] != keys[1])
        )

    side = {"ledger": "internal", "stripe": "provider"}
    wanted = {(side[b["source"]], b["record"]) for b in live if any(agree(a, b) for a in live)}
    assert suspected(stream) == wanted


def test_a_payer_with_very_many_records_is_held_in_bounds() -> None:
    """Work per record must not grow with what one payer does."""
    events = [
        {
            "org": "acme", "source": "stripe", "type": "payment.updated", "id": f"e{n}", "record": f"r{n}", "account": "a",
            "amount": f"{n}.00", "currency": "EUR", "received_at": at(n), "occurred_at": at(n),
        }
        for n in range(RECORDS_MAX + 50)
    ]  # fmt: skip
    engine, _ = run_offline([RULE], events, at(1000))

    (key,) = (key for key in engine._core._state.cells if key.startswith(b"["))
    assert len(engine._core._state.get(key).records) == RECORDS_MAX

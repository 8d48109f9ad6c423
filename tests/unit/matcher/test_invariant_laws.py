"""The Law for `invariant`: repetition, batching and restarts decide nothing; accounts stand alone; rules change in place."""

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.matcher.domain.changes import Changes
from services.matcher.domain.core import Core
from services.matcher.domain.state import State
from services.matcher.domain.watched import CLOSINGS_MAX, WATCHED, Watched
from shared.contracts.leg import RuleRecord, Tick
from tests.model.strategies_invariant import RECEIVED, UNTIL, lawful_scenarios, scenarios
from tests.model.stream import Stream, interleaved, repeated
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
from tests.support.verdicts import checks, discrepancies, usage

MODERATE = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
YEARS_MS = 30 * 365 * 86_400_000
"""Longer than `keep` and `expire` together."""
DAY_MS = 86_400_000
MOMENTS = [time_of(RECEIVED.format(hour)) for hour in range(0, 24, 3)] + [time_of(UNTIL) + 91 * DAY_MS]
CHANGES: list[dict[str, Any]] = [
    {"checks": [{"code": "drift", "field": "attrs.share", "minus": "attrs.target", "warn": "0.01"}], "overrides": {}},
    {"checks": [{"code": "decreased", "field": "attrs.fees", "never_decreases": True, "warn": "2"}], "overrides": {}},
    {"checks": [{"code": "decreased", "field": "attrs.turnover", "never_decreases": True}], "overrides": {}},
    {"checks": [{"code": "no_fees", "field": "attrs.turnover", "grows_without": "attrs.fees"}], "overrides": {}},
    {"overrides": {"bot1": {"enabled": False}}},
    {"overrides": {"bot1": {"enabled": True}}},
    {"zone": "Asia/Tokyo"},
    {"keep": "2h", "expire": "1h"},
    {"key": ["account", "currency"], "overrides": {}},
]


@st.composite
def hostile_logs(draw: st.DrawFn) -> list[LogEntry]:
    stream = draw(scenarios())
    stream.rule["severity"] = {"default": "low"}  # codes come and go with the changes
    return draw(disturbed(stream.rule, stream.events, stream.until, MOMENTS, CHANGES))


def told(stream: Stream) -> tuple[Any, ...]:
    """What is known at the end, but for places in the log, in no order."""
    engine, _ = run_offline([stream.rule], stream.events, stream.until)
    rows = (
        discrepancies(engine),
        [one for one in checks(engine.checks) if one["result"] != "stale"],
        usage(engine.checks),
    )
    return tuple(sorted(str(row | {"log": None, "raised_at": None}) for row in table) for table in rows)


@MODERATE
@given(lawful_scenarios().flatmap(lambda one: st.tuples(st.just(one), interleaved(one))))
def test_accounts_do_not_touch_each_other(pair: tuple[Stream, Stream]) -> None:
    """What stands open and what was read, however the events of two accounts come between each other."""
    first, second = (
        [row | {"log": None, "raised_at": None, "resolved_at": None} for row in discrepancies(engine)]
        for engine, _ in (run_offline([one.rule], one.events, one.until) for one in pair)
    )
    assert sorted(map(str, first)) == sorted(map(str, second))


@MODERATE
@given(lawful_scenarios().flatmap(lambda one: st.tuples(st.just(one), repeated(one))))
def test_redelivery_changes_nothing_but_stale_verdicts(pair: tuple[Stream, Stream]) -> None:
    assert told(pair[0]) == told(pair[1])


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
        core.apply(b"", Tick(inbox, 5, time_of(UNTIL) + YEARS_MS), len(log))
    assert counters(core) == (0, 0, 0)


# ---- rules that change while findings are open

DRIFT = {"code": "drift", "field": "attrs.share", "minus": "attrs.target", "warn": "0.05", "critical": "0.10"}
FEES = {"code": "decreased", "field": "attrs.fees", "never_decreases": True}
GROWTH = {"code": "no_fees", "field": "attrs.turnover", "grows_without": "attrs.fees", "warn": "100"}
RULE: dict[str, Any] = {
    "name": "bots.state",
    "kind": "invariant",
    "snapshots": {"source": "bot", "type": ["snapshot.*"]},
    "key": "account",
    "checks": [DRIFT, FEES, GROWTH],
}
TEN = "2026-03-06T10:00:00Z"


def snapshot(number: int, at: str | None = None, **attrs: str) -> dict[str, Any]:
    time = at or f"2026-03-06T10:00:{number:02}Z"
    return {
        "org": "acme", "source": "bot", "type": "snapshot.state", "id": f"s{number}", "account": "bot1",
        "occurred_at": time, "received_at": time, "attrs": attrs,
    }  # fmt: skip


def started(*events: dict[str, Any], rule: dict[str, Any] | None = None) -> Core:
    core = Core(0)
    drive(core, log_of([rule or RULE], list(events), events[-1]["received_at"]))
    return core


def after(core: Core, record: RuleRecord) -> Changes:
    core.apply(b"", record, 100)
    return core.take()


def said(changes: Changes) -> list[tuple[str, str, str, str | None]]:
    return [(one.type, one.state, one.severity, one.resolution) for one in changes.discrepancies]


def test_a_wider_threshold_resolves_what_it_allows_and_a_tighter_one_raises() -> None:
    """The last snapshot is judged again; its new verdict replaces the old one."""
    core = started(snapshot(1, share="0.56", target="0.5", fees="1"))

    changes = after(core, rule_change(RULE, 1, {"checks": [DRIFT | {"warn": "0.08"}, FEES]}))
    assert said(changes) == [("drift", "resolved", "medium", "rule_changed")]
    assert [(check.code, check.result) for _, check in changes.checks] == [("drift", "passed")]

    changes = after(core, rule_change(RULE, 2, {"checks": [DRIFT | {"warn": "0.01", "critical": "0.02"}, FEES]}))
    assert said(changes) == [("drift", "raised", "critical", None)]
    assert changes.discrepancies[0].revision == 3


def test_a_fall_is_judged_again_by_its_own_figures() -> None:
    """Though the counter has gone on since."""
    core = started(*(snapshot(number, fees=fees) for number, fees in enumerate(["10", "2", "3"])))

    changes = after(core, rule_change(RULE, 1, {"checks": [FEES | {"warn": "5", "critical": "8"}]}))
    assert said(changes) == [("decreased", "raised", "critical", None)]
    assert (changes.discrepancies[0].expected, changes.discrepancies[0].actual) == ("10", "2")
    changes = after(core, rule_change(RULE, 2, {"checks": [FEES | {"warn": "9"}]}))
    assert said(changes) == [("decreased", "resolved", "critical", "rule_changed")]


def test_a_fall_that_was_too_small_is_raised_by_a_tighter_threshold() -> None:
    rule = RULE | {"checks": [FEES | {"warn": "1"}]}
    core = started(snapshot(1, fees="10"), snapshot(2, fees="9.5"), rule=rule)

    assert said(after(core, rule_change(rule, 1, {"checks": [FEES | {"warn": "0.5"}]}))) == [
        ("decreased", "raised", "medium", None)
    ]


def test_growth_is_judged_again_from_where_the_other_field_last_grew() -> None:
    core = started(snapshot(1, turnover="1000", fees="1"), snapshot(2, turnover="1060", fees="1"))

    changes = after(core, rule_change(RULE, 1, {"checks": [GROWTH | {"warn": "50"}]}))
    assert said(changes) == [("no_fees", "raised", "medium", None)]
    assert changes.discrepancies[0].expected == "1000"


def test_a_check_that_is_taken_out_resolves_its_finding_and_forgets_its_counter() -> None:
    core = started(snapshot(1, fees="10"), snapshot(2, fees="2"))

    assert said(after(core, rule_change(RULE, 1, {"checks": [DRIFT]}))) == [
        ("decreased", "resolved", "medium", "rule_changed")
    ]
    after(core, rule_change(RULE, 2, {}))
    assert said(drive(core, log_of([RULE], [snapshot(3, fees="1")], TEN)[1:])) == []


def test_an_account_that_is_no_longer_looked_at_resolves_what_it_has_open() -> None:
    core = started(snapshot(1, fees="10"), snapshot(2, fees="2"))

    assert said(after(core, rule_change(RULE, 1, {"overrides": {"bot1": {"enabled": False}}}))) == [
        ("decreased", "resolved", "medium", "rule_changed")
    ]
    changes = drive(core, log_of([RULE], [snapshot(3, fees="1")], TEN)[1:])
    assert (changes.discrepancies, changes.checks) == ([], [])


def test_a_withdrawn_rule_resolves_its_findings_and_forgets_its_accounts() -> None:
    core = started(snapshot(1, fees="10"), snapshot(2, fees="2"))

    assert said(after(core, rule_change(RULE, 1, None))) == [("decreased", "resolved", "medium", "rule_withdrawn")]
    assert counters(core) == (0, 0, 0)


# ---- time


def test_a_finding_of_a_silent_account_expires_and_stays_open_for_people() -> None:
    """An account that comes back begins anew, with ids of its own."""
    core = started(snapshot(1, fees="10"), snapshot(2, fees="2"))
    core.apply(b"", Tick(0, 1, time_of(TEN) + 91 * DAY_MS), 100)
    (expired,) = core.take().discrepancies

    assert (expired.state, expired.expired, expired.revision) == ("raised", True, 2)
    assert "no longer watched" in expired.explanation
    again = [snapshot(8, "2026-06-08T10:00:00Z", fees="5"), snapshot(9, "2026-06-08T10:01:00Z", fees="4")]
    (raised,) = drive(core, log_of([RULE], again, "2026-06-08T10:02:00Z")[1:]).discrepancies
    assert raised.id != expired.id


def test_a_counter_is_remembered_over_months_without_a_reading() -> None:
    core = started(snapshot(1, fees="10"))
    late = [snapshot(2, "2027-03-01T10:00:00Z", fees="9")]

    assert said(drive(core, log_of([RULE], late, late[0]["received_at"])[1:])) == [
        ("decreased", "raised", "medium", None)
    ]


def test_the_day_that_summer_time_begins_has_23_hours() -> None:
    """Midnight is the zone's own: 23:00 UTC before, 22:00 UTC at its end."""
    rule = RULE | {"checks": [FEES | {"reset": "daily"}], "zone": "Europe/Berlin"}
    times = ["2026-03-28T22:59:59Z", "2026-03-28T23:00:00Z", "2026-03-29T21:59:59Z", "2026-03-29T22:00:00Z"]
    events = [snapshot(number, time, fees=str(9 - number)) for number, time in enumerate(times)]
    changes = drive(Core(0), log_of([rule], events, times[-1]))

    assert [check.period for _, check in changes.checks] == ["2026-03-28", "2026-03-29", "2026-03-29", "2026-03-30"]
    assert [(one.expected, one.actual) for one in changes.discrepancies] == [("8", "7")]


def test_a_leap_day_is_a_day_of_february() -> None:
    rule = RULE | {"checks": [FEES | {"reset": "monthly"}]}
    times = ["2028-02-29T23:59:59Z", "2028-03-01T00:00:00Z"]
    events = [snapshot(number, time, fees="1") for number, time in enumerate(times)]

    told_of = drive(Core(0), log_of([rule], events, times[-1])).checks
    assert [(check.period, check.usage, check.partial) for _, check in told_of] == [
        ("2028-02", "1", True),
        ("2028-03", "1", True),
    ]


# ---- what is said and kept


def test_explanations_name_the_field_what_it_says_and_what_was_to_hold() -> None:
    rule = RULE | {
        "checks": [
            DRIFT,
            FEES | {"reset": "monthly"},
            GROWTH,
            {"code": "share", "field": "attrs.share", "max": "0.5"},
            {"code": "equity", "field": "attrs.equity", "above": "0"},
            {"code": "plug", "field": "amount", "warn": "1.00"},
        ]
    }
    events = [
        snapshot(1, fees="10", turnover="1000"),
        snapshot(2, fees="2", turnover="1200", share="0.61", target="0.50", equity="0")
        | {"amount": "5.3", "currency": "USD"},
    ]
    assert [one.explanation for one in drive(Core(0), log_of([rule], events, TEN)).discrepancies] == [
        "bot1: share is 0.61, target is 0.5: 0.11 more, which reaches the critical threshold of 0.10.",
        "bot1: fees fell from 10 to 2, though it never decreases within a month.",
        "bot1: turnover grew from 1000 to 1200 since fees last grew, which reaches the warning threshold of 100.",
        "bot1: share is 0.61, but it must be at most 0.5.",
        "bot1: equity is 0, but it must be more than 0.",
        "bot1: amount is 5.30 USD, which reaches the warning threshold of 1.00.",
    ]


def test_amounts_in_another_currency_are_another_counter() -> None:
    """Numbers of two currencies are never compared."""
    rule = RULE | {"checks": [{"code": "odometer", "field": "amount", "never_decreases": True}]}
    events = [
        snapshot(number) | {"amount": amount, "currency": currency}
        for number, (amount, currency) in enumerate([("10", "USD"), ("5", "EUR"), ("6", "EUR"), ("4", "EUR")])
    ]
    (fell,) = drive(Core(0), log_of([rule], events, TEN)).discrepancies
    assert (fell.expected, fell.actual, fell.currency) == ("6.00", "4.00", "EUR")


def test_the_evidence_is_the_snapshot_and_the_account_is_named() -> None:
    (fell,) = drive(Core(0), log_of([RULE], [snapshot(1, fees="2"), snapshot(2, fees="1")], TEN)).discrepancies
    shown = fell.sides["snapshots"]

    assert shown is not None
    assert (fell.account, fell.side, shown.id, shown.source) == ("bot1", None, "s2", "bot")


def test_closing_readings_are_bounded_and_the_earliest_periods_go_first() -> None:
    """The cell of an account stays small, however many historic periods are closed."""
    rule = RULE | {"checks": [FEES | {"reset": "monthly"}]}
    months = [f"{year}-{month:02}" for year in range(2010, 2020) for month in range(1, 13)]
    events = [
        snapshot(1, f"2026-03-06T11:{number // 60:02}:{number % 60:02}Z", fees="1", closing=month)
        | {"id": f"c{number}"}
        for number, month in enumerate(months)
    ]
    core = started(*events, rule=rule)
    (packed,) = [value for key, value in core.snapshot() if key.startswith(b"[")]
    watched = State(0, (WATCHED,)).unpack(packed)

    assert isinstance(watched, Watched)
    assert [one.period for one in watched.closings] == months[-CLOSINGS_MAX:]


def test_an_account_with_four_checks_packs_into_a_few_hundred_bytes() -> None:
    core = started(snapshot(1, fees="10", turnover="1000.25", share="0.50", target="0.50"))
    (packed,) = [value for key, value in core.snapshot() if key.startswith(b"[")]

    assert len(packed) < 400

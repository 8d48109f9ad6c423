"""Rules of kind `balance` that change under one name, and what people are told of a mismatch."""

from typing import Any

import pytest

from services.matcher.domain.changes import Changes
from services.matcher.domain.core import Core
from shared.contracts.leg import RuleRecord, Tick
from tests.support.laws import counters, drive, rule_change
from tests.support.offline import log_of, time_of

RULE: dict[str, Any] = {
    "name": "stack.circle_balance",
    "kind": "balance",
    "movements": {"source": "ledger", "type": ["movement.*"]},
    "snapshots": {"source": "circle", "type": ["balance.*"]},
    "key": "account",
    "opening": "0.00",
    "tolerance": "0.01",
}
Event = dict[str, Any]


def at(clock: str) -> str:
    return f"2026-11-20T{clock}:00Z"


def moved(id_: str, clock: str, amount: str, **fields: Any) -> Event:
    return {
        "org": "acme", "source": "ledger", "type": "movement.posted", "id": id_, "account": "w1", "currency": "EUR",
        "amount": amount, "occurred_at": at(clock), "received_at": at(clock),
    } | fields  # fmt: skip


def read(id_: str, clock: str, amount: str, **fields: Any) -> Event:
    return moved(id_, clock, amount, source="circle", type="balance.read", **fields)


def started(*events: Event, until: str = "12:00", **rule: Any) -> Core:
    core = Core(0)
    drive(core, log_of([RULE | rule], list(events), at(until)))
    return core


def after(core: Core, record: RuleRecord) -> Changes:
    core.apply(b"", record, 100)
    return core.take()


def told(changes: Changes) -> list[tuple[str, str | None]]:
    return [(one.state, one.resolution) for one in changes.discrepancies]


def verdicts(changes: Changes) -> list[tuple[str, str | None]]:
    return [(check.result, check.expected) for _, check in changes.checks]


DRIFTED = (moved("m1", "10:00", "10.00"), read("s1", "11:00", "9.50"))


def test_a_wider_tolerance_lets_the_latest_judged_reading_pass() -> None:
    changes = after(started(*DRIFTED), rule_change(RULE, 1, {"tolerance": "0.50"}))

    assert told(changes) == [("resolved", "rule_changed")]
    assert verdicts(changes) == [("passed", "10.00")]


def test_a_change_that_says_nothing_new_publishes_nothing() -> None:
    changes = after(started(*DRIFTED), rule_change(RULE, 1, {"tolerance": "0.02", "keep": "8d"}))

    assert (told(changes), verdicts(changes)) == ([], [])


def test_another_severity_is_a_revision_and_no_other_verdict() -> None:
    changes = after(started(*DRIFTED), rule_change(RULE, 1, {"overrides": {"w1": {"severity": "critical"}}}))

    assert [(one.severity, one.revision) for one in changes.discrepancies] == [("critical", 2)]
    assert verdicts(changes) == []


def test_statuses_that_count_change_in_place() -> None:
    pending = moved("m2", "10:30", "-0.50", status="pending")
    live = {"movements": {"source": "ledger", "type": ["movement.*"], "live": ["posted", "pending"]}}
    core = started(moved("m1", "10:00", "10.00", status="posted"), pending, read("s1", "11:00", "9.50"))

    assert told(after(core, rule_change(RULE, 1, live))) == [("resolved", "rule_changed")]


def test_an_account_that_is_switched_off_resolves_what_it_had_open_and_is_silent() -> None:
    off = {"overrides": {"w1": {"enabled": False}}}
    core = started(*DRIFTED)
    assert told(after(core, rule_change(RULE, 1, off))) == [("resolved", "rule_changed")]

    late = moved("m1", "09:00", "7.00", id="m0", record="m1")  # another event of a record, which is an old one
    changes = drive(core, log_of([RULE | off], [late, read("s2", "13:00", "7.00")], at("14:00"))[1:], 200)
    assert (changes.discrepancies, changes.checks, changes.dead_letters) == ([], [], [])


def test_an_account_that_is_switched_on_again_is_judged_by_what_came_meanwhile() -> None:
    off = {"overrides": {"w1": {"enabled": False}}}
    core = started(*DRIFTED, moved("m2", "11:10", "1.00"), read("s2", "11:30", "7.00"), **off)

    changes = after(core, rule_change(RULE, 1, {}))
    assert told(changes) == [("raised", None)]
    assert verdicts(changes) == [("failed", "11.00")]


def test_a_given_opening_judges_the_reading_that_was_the_opening() -> None:
    core = started(*DRIFTED, opening="snapshot")
    changes = after(core, rule_change(RULE, 1, {"opening": "5.00"}))

    assert told(changes) == [("raised", None)]
    assert verdicts(changes) == [("failed", "15.00")]


def test_an_opening_by_reading_starts_from_the_latest_judged_one() -> None:
    core = started(*DRIFTED)
    changes = after(core, rule_change(RULE, 1, {"opening": "snapshot"}))
    assert told(changes) == [("resolved", "rule_changed")]
    assert verdicts(changes) == [("opening", None)]

    later = [moved("m2", "13:00", "1.00"), read("s2", "13:00", "10.50")]
    log = log_of([RULE | {"opening": "snapshot"}], later, at("14:00"))
    assert verdicts(drive(core, log, 200)) == [("passed", "10.50")]


def test_a_reading_that_waits_settles_by_the_new_rule() -> None:
    core = started(*DRIFTED, until="11:01", settle="1h")
    changes = after(core, rule_change(RULE, 1, {"settle": "2m"}))
    assert told(changes) == []

    core.apply(b"", Tick(0, 1, time_of(at("11:03"))), 101)
    changes = core.take()
    assert [(one.state, one.raised_at.isoformat()) for one in changes.discrepancies] == [
        ("raised", "2026-11-20T11:02:00.001000+00:00")
    ]


def test_a_withdrawn_rule_resolves_its_mismatches_and_forgets_its_accounts() -> None:
    """Pages too."""
    core = started(*DRIFTED)

    assert told(after(core, rule_change(RULE, 1, None))) == [("resolved", "rule_withdrawn")]
    assert counters(core) == (0, 0, 0)


def test_another_measure_closes_the_accounts() -> None:
    """What was counted so far was counted in another measure."""
    core = started(*DRIFTED)

    assert told(after(core, rule_change(RULE, 1, {"measure": "count", "opening": "0"}))) == [
        ("resolved", "rule_changed")
    ]
    assert counters(core) == (0, 0, 0)


# ---- what people are told


def only(*events: Event, **rule: Any) -> Any:
    (found,) = drive(Core(0), log_of([RULE | rule], list(events), at("12:00"))).discrepancies
    return found


@pytest.mark.parametrize(
    ("later", "said"),
    [
        ("-0.20", "; 0.20 of it is explained by movements dated later, 0.30 is not."),
        ("-9.00", "; all of it is explained by movements dated later."),
        ("9.00", "."),
    ],
)
def test_the_explanation_says_how_much_is_explained(later: str, said: str) -> None:
    found = only(*DRIFTED, moved("m2", "11:01", later), settle="5m")

    assert found.explanation == (
        "Account w1 holds 9.50 EUR by circle at 2026-11-20 11:00 UTC, ledger says 10.00: 0.50 EUR less than expected"
        + said
    )


def test_a_count_is_explained_without_currency_and_an_adjustment_is_named() -> None:
    plug = moved("a1", "09:00", "1", type="adjustment.plug", refs={"discrepancy": "any"})
    found = only(plug, moved("m1", "10:00", "5"), read("s1", "11:00", "4"), measure="count", opening="0")

    assert found.explanation == (
        "Account w1 holds 4 by circle at 2026-11-20 11:00 UTC, ledger says 2, adjustments included: 2 more than expected."
    )
    assert (found.currency, found.key, found.account) == (None, "w1", "w1")
    assert [line.id for line in found.sides["movements"].adjustments] == ["a1"]


def test_what_has_a_balance_is_called_by_its_key() -> None:
    events = [one | {"refs": {"wallet_id": "w7"}} for one in DRIFTED]

    assert only(*events, key="refs.wallet_id").explanation.startswith("Wallet w7 holds 9.50 EUR by circle")


def test_a_movement_that_is_too_late_is_told_with_the_time_and_what_to_do() -> None:
    """The detail names the account and how long its movements are open to change."""
    changes = drive(
        Core(0), log_of([RULE], [moved("m1", "10:00", "1.00", received_at="2026-11-28T10:00:00Z")], at("12:00"))
    )
    (letter,) = changes.dead_letters

    assert (letter.reason, letter.rule, letter.event) == ("too late", "stack.circle_balance", "m1")
    assert letter.detail == (
        "ledger event m1 is dated further back than the 7 days for which movements of account w1 are taken and changed"
    )
    assert "adjustment" in letter.hint


def test_the_evidence_is_the_reading_and_the_newest_movements() -> None:
    """All that count are in the sum; twenty are shown, newest first; those dated later are not among them."""
    events = [moved(f"m{number}", f"09:{number:02}", "1.00") for number in range(30)]
    found = only(*events, moved("x", "10:30", "1.00", status="voided"), read("s1", "11:00", "9.00"), settle="5m")
    movements = found.sides["movements"]

    assert (movements.count, movements.amount, movements.source) == (30, "30.00", "ledger")
    assert [one.id for one in movements.records] == [f"m{number}" for number in range(29, 9, -1)]
    assert (found.sides["snapshots"].id, found.sides["snapshots"].amount) == ("s1", "9.00")


def test_verdicts_are_keyed_by_account_and_currency() -> None:
    """The topic keeps the last of each key, so each currency needs one."""
    dollars = read("s2", "11:00", "0.00", currency="USD")
    changes = drive(Core(0), log_of([RULE], [*DRIFTED, dollars], at("12:00")))

    assert [key for key, _ in changes.checks] == [
        b'["acme","stack.circle_balance","w1","EUR"]',
        b'["acme","stack.circle_balance","w1","USD"]',
    ]


def test_a_shadow_rule_says_so_in_verdicts_and_mismatches() -> None:
    changes = drive(Core(0), log_of([RULE | {"shadow": True}], list(DRIFTED), at("12:00")))

    assert [one.shadow for one in changes.discrepancies] == [True]
    assert [check.shadow for _, check in changes.checks] == [True]


def test_a_change_writes_one_page_and_at_most_the_head_however_many_movements_there_are() -> None:
    """A new movement, a correction of an old one, and a late one that judges again."""
    log = log_of([RULE], [moved(f"m{number:05}", "09:00", "1.00") for number in range(2000)], at("09:01"))
    core = Core(0)
    drive(core, log)
    drive(core, log_of([RULE], [read("s1", "10:00", "2000.00")], at("10:01"))[1:], 5000)
    changes = [
        (moved("new", "10:30", "1.00"), 1),
        (moved("m00100b", "09:00", "2.00", record="m00100", sequence=1), 3),
        (moved("late", "09:30", "1.00"), 2),
    ]
    for one, cells in changes:
        written = drive(core, log_of([RULE], [one], at("11:00"))[1:], 6000).state
        of_account = [(key, value) for key, value in written if key.startswith(b"[")]
        assert len(of_account) <= cells
        assert sum(len(value) for _, value in of_account) < 12_000

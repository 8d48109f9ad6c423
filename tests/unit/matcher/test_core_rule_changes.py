"""Rules that change while groups are open: judged again in place, closed where they no longer fit, never stuck."""

from typing import Any

import pytest

from services.matcher.domain.changes import Changes
from services.matcher.domain.core import Core, UnknownGeneration
from shared.contracts.leg import Cut, Leg, RuleRecord, Tick, Withdraw, group_key
from shared.rules.compiled import rule_record
from tests.support.offline import PACK, rules_of

HOUR_MS = 3_600_000
START = 1_780_000_000_000
RULE: dict[str, Any] = {
    "name": "billing.payments",
    "kind": "match",
    "sides": {
        "internal": {"source": "ledger", "type": ["payment.*"]},
        "provider": {"source": "stripe", "type": ["payment.*"]},
    },
    "key": "refs.payment_id",
    "compare": {"amount": {}, "currency": {}},
    "deadline": "24h",
    "keep": "48h",
}
THREE = {**RULE["sides"], "bank": {"source": "bank", "type": ["payment.*"]}}
KEY = group_key("acme", "billing.payments", ("p1",))


def record_for(version: int, **changes: Any) -> RuleRecord:
    (model,) = rules_of([RULE | changes])
    return rule_record("acme", PACK, model, version)


def withdrawn(version: int) -> RuleRecord:
    return RuleRecord("acme", "billing.payments", "", version, "")


def leg(rule: RuleRecord, side: int, after_ms: int = 0, amount: str = "100.00", **fields: Any) -> Leg:
    source = ("ledger", "stripe", "bank")[side]
    values = {
        "generation": rule.generation, "side": side, "source": source, "record": source, "id": f"{source}-{after_ms}",
        "occurred_at": (START + after_ms) * 1000, "inbox_partition": 0, "inbox_offset": after_ms,
        "received_at": START + after_ms, "amount": amount, "currency": "EUR",
    }  # fmt: skip
    return Leg(**(values | fields))


def started(*legs: Leg, **changes: Any) -> tuple[Core, RuleRecord]:
    """A core with the rule in force, log time at the start and these legs applied; nothing left to take."""
    core, rule = Core(0), record_for(1, **changes)
    core.apply(b"", rule, 0)
    core.apply(b"", Tick(0, 1, START), 1)
    for one in legs:
        core.apply(KEY, one, 2)
    core.take()
    return core, rule


def after(core: Core, record: Any, group: bytes = b"") -> Changes:
    core.apply(group, record, 10)
    return core.take()


def told(changes: Changes) -> list[tuple[str, str, str | None]]:
    return [(one.type, one.state, one.resolution) for one in changes.discrepancies]


def test_a_wider_tolerance_resolves_what_it_allows() -> None:
    """Same id, next revision, and the group is a match."""
    rule = record_for(1)
    core, _ = started(leg(rule, 0), leg(rule, 1, 1, "99.50"))
    changes = after(core, record_for(2, compare={"amount": {"tolerance": "1"}, "currency": {}}))

    assert told(changes) == [("AmountMismatch", "resolved", "rule_changed")]
    assert changes.discrepancies[0].revision == 2
    assert [item.status for _, item in changes.items] == ["matched"]


def test_a_tighter_tolerance_raises_in_settled_groups_that_are_still_held() -> None:
    """Until `keep` has passed a match is no more than what the rule in force says."""
    wide = {"compare": {"amount": {"tolerance": "1"}, "currency": {}}}
    rule = record_for(1, **wide)
    core, _ = started(leg(rule, 0), leg(rule, 1, 1, "99.50"), **wide)
    assert core.settled_items == 1

    assert told(after(core, record_for(2))) == [("AmountMismatch", "raised", None)]
    assert (core.open_items, core.settled_items) == (1, 0)


def test_a_shorter_deadline_counts_from_the_arming_leg() -> None:
    """What is overdue under the new deadline is missing at once, the rest when it is due."""
    rule = record_for(1)
    core, _ = started(leg(rule, 0))
    core.apply(b"", Tick(0, 1, START + 2 * HOUR_MS), 5)
    assert told(core.take()) == []

    assert told(after(core, record_for(2, deadline="1h"))) == [("MissingProviderRecord", "raised", None)]


def test_a_longer_deadline_takes_back_what_is_not_overdue_any_more_only_by_its_record() -> None:
    """A raised discrepancy that is still true stays; the new deadline holds for what is raised from now on."""
    rule = record_for(1)
    core, _ = started(leg(rule, 0))
    core.apply(b"", Tick(0, 1, START + 25 * HOUR_MS), 5)
    assert told(core.take()) == [("MissingProviderRecord", "raised", None)]

    changed = record_for(2, deadline="48h")
    assert told(after(core, changed)) == []
    assert told(after(core, leg(changed, 1, 26 * HOUR_MS), KEY)) == [
        ("MissingProviderRecord", "resolved", "late_arrival")
    ]


def test_another_severity_is_a_revision() -> None:
    """Raised before, raised after, and what people see of it changed."""
    rule = record_for(1)
    core, _ = started(leg(rule, 0), leg(rule, 1, 1, "99.50"))
    changes = after(core, record_for(2, severity={"default": "critical"}))

    assert [(one.state, one.severity, one.revision) for one in changes.discrepancies] == [("raised", "critical", 2)]


def test_a_withdrawn_rule_resolves_and_forgets_everything() -> None:
    """And legs that a lagging normaliser still makes under it are ignored."""
    rule = record_for(1)
    core, _ = started(leg(rule, 0), leg(rule, 1, 1, "99.50"))

    assert told(after(core, withdrawn(2))) == [("AmountMismatch", "resolved", "rule_withdrawn")]
    assert (core.open_items, core.settled_items, core.state_bytes) == (0, 0, 0)
    assert told(after(core, leg(rule, 1, 2, "1.00"), KEY)) == []
    assert core.open_items == 0


def test_a_rule_that_comes_back_after_it_was_withdrawn_is_in_force_again() -> None:
    """Also under the generation it had before."""
    rule = record_for(1)
    core, _ = started()
    after(core, withdrawn(2))
    after(core, record_for(3))
    after(core, leg(rule, 0), KEY)

    assert core.open_items == 1


def test_an_older_version_after_a_newer_one_is_ignored_but_its_legs_are_known() -> None:
    """Normalisers change over one after the other."""
    newer, older = record_for(5, compare={"amount": {"tolerance": "1"}, "currency": {}}), record_for(3)
    core = Core(0)
    for record in (newer, older, Tick(0, 1, START)):
        core.apply(b"", record, 0)
    core.apply(KEY, leg(older, 0), 1)
    core.apply(KEY, leg(newer, 1, 1, "99.50"), 2)
    changes = core.take()

    assert told(changes) == []
    assert [item.status for _, item in changes.items] == ["matched"]


@pytest.mark.parametrize(
    "change",
    [{"sides": dict(reversed(RULE["sides"].items()))}, {"sides": THREE}, {"key": "account"}],
    ids=["sides swapped", "side added", "key"],
)
def test_a_rule_with_other_sides_or_another_key_closes_the_groups_that_do_not_fit(change: dict[str, Any]) -> None:
    """What they hold would stand on the wrong side or wait for a key that nobody uses; late legs of it are ignored."""
    rule = record_for(1)
    core, _ = started(leg(rule, 0), leg(rule, 1, 1, "99.50"))

    assert told(after(core, record_for(2, **change))) == [("AmountMismatch", "resolved", "rule_changed")]
    assert (core.open_items, core.settled_items) == (0, 0)
    assert told(after(core, leg(rule, 1, 2, "98.00"), KEY)) == []
    assert core.open_items == 0


def test_a_side_that_is_taken_away_does_not_stop_the_partition() -> None:
    """Its legs have no place in the new rule."""
    rule = record_for(1, sides=THREE)
    core, _ = started(leg(rule, 0), leg(rule, 2, 1, "99.50"), sides=THREE)
    changed = record_for(2)
    after(core, changed)
    after(core, leg(rule, 2, 2), KEY)
    after(core, leg(changed, 0, 3), KEY)

    assert core.open_items == 1


def test_a_newer_version_of_the_same_rule_is_remembered() -> None:
    """After a restart too, a version between the two is old."""
    core, rule = started()
    entries = after(core, record_for(5)).state
    restored = Core(0)
    restored.restore([*entries, (b"clock", dict(core.snapshot())[b"clock"])])
    restored.apply(b"", record_for(3, deadline="1h"), 3)
    restored.apply(KEY, leg(rule, 0), 4)
    restored.apply(b"", Tick(0, 1, START + 2 * HOUR_MS), 5)

    assert told(restored.take()) == []


def test_a_leg_of_a_generation_that_the_log_never_named_stops_with_its_offset() -> None:
    """Such a log is not one that ingest wrote; guessing would lose money."""
    core, _ = started()

    with pytest.raises(UnknownGeneration, match="offset 77"):
        core.apply(KEY, leg(record_for(1), 0, generation="feedfeedfeedfeed"), 77)


def test_a_cut_publishes_what_waits_once() -> None:
    """Groups of other organisations stay silent."""
    rule = record_for(1)
    core, _ = started(leg(rule, 0))
    assert after(core, Cut("globex", "c0", 0, START)).items == []

    assert [item.status for _, item in after(core, Cut("acme", "c1", 0, START)).items] == ["pending"]
    assert after(core, Cut("acme", "c2", 0, START)).items == []


def test_a_withdrawn_record_resolves_what_it_raised() -> None:
    """It was seen under a key of its own."""
    rule = record_for(1)
    core, _ = started(leg(rule, 0))
    core.apply(b"", Tick(0, 1, START + 25 * HOUR_MS), 5)
    core.take()
    changes = after(core, Withdraw("ledger", "ledger", 0, START + 26 * HOUR_MS), KEY)

    assert told(changes) == [("MissingProviderRecord", "resolved", "superseded")]
    assert told(after(core, Withdraw("ledger", "ledger", 0, START + 26 * HOUR_MS), KEY)) == []


def test_a_group_that_returns_after_keep_has_new_ids() -> None:
    """Its opener is another event, so nobody takes the new discrepancy for the old one."""
    rule = record_for(1)
    core, _ = started(leg(rule, 0), leg(rule, 1, 1))
    core.apply(b"", Tick(0, 1, START + 49 * HOUR_MS), 5)
    core.take()
    assert core.settled_items == 0

    ids = set()
    for start in (50 * HOUR_MS, 200 * HOUR_MS):
        after(core, leg(rule, 0, start), KEY)
        ids |= {one.id for one in after(core, leg(rule, 1, start + 1, "1.00"), KEY).discrepancies}
        after(core, leg(rule, 1, start + 2), KEY)
        core.apply(b"", Tick(0, 1, START + start + 60 * HOUR_MS), 6)
        core.take()
    assert len(ids) == 2


def test_a_late_redelivery_with_an_old_receipt_changes_nothing_and_fires_nothing() -> None:
    """Its receipt lies before log time; the group has moved on."""
    rule = record_for(1)
    core, _ = started(leg(rule, 0), leg(rule, 1, 1))
    core.apply(b"", Tick(0, 1, START + 5 * HOUR_MS), 5)
    core.take()
    changes = after(core, leg(rule, 0), KEY)

    assert (changes.discrepancies, changes.items, changes.dead_letters) == ([], [], [])


def test_a_leg_that_comes_long_after_its_receipt_is_judged_by_its_receipt() -> None:
    """A normaliser that lagged for two days: the other side is overdue at once."""
    core, rule = started()
    core.apply(b"", Tick(0, 1, START + 48 * HOUR_MS), 5)

    assert told(after(core, leg(rule, 0), KEY)) == [("MissingProviderRecord", "raised", None)]

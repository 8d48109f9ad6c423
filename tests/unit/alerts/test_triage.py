"""Triage: every pair of status and action, and what revisions make of what people decided."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.alerts.domain.triage import (
    REASONS,
    STATUSES,
    Absorbed,
    Acknowledge,
    Action,
    Adjust,
    Assign,
    LogRow,
    Note,
    Resolve,
    Standing,
    Status,
    TransitionRefused,
    absorb,
    act,
    facts_of,
)
from shared.contracts.discrepancy import Discrepancy
from tests.support.results import START, found, log_at, resolved

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def standing(status: Status = "open", **changes: Any) -> Standing:
    """A stored first revision with this status; resolved: by a person."""
    discrepancy = found()
    values: dict[str, Any] = {
        "status": status,
        "state": "raised",
        "revision": 1,
        "log_offset": 10,
        "facts": facts_of(discrepancy),
        "resolution": None,
        "status_at": START,
    }
    if status == "resolved":
        values |= {"reason": "accepted", "accepted": facts_of(discrepancy)}
    return Standing(**values | changes)


ACTIONS: list[Action] = [
    Acknowledge(),
    Assign("ann"),
    Resolve("timing", "next day"),
    Note("asked"),
    Adjust("rounding"),
]
AFTER: dict[tuple[Status, type[Action]], Status | None] = {
    ("open", Acknowledge): "acknowledged",
    ("open", Assign): "open",
    ("open", Resolve): "resolved",
    ("open", Note): "open",
    ("open", Adjust): "open",
    ("acknowledged", Acknowledge): None,
    ("acknowledged", Assign): "acknowledged",
    ("acknowledged", Resolve): "resolved",
    ("acknowledged", Note): "acknowledged",
    ("acknowledged", Adjust): "acknowledged",
    ("resolved", Acknowledge): None,
    ("resolved", Assign): None,
    ("resolved", Resolve): None,
    ("resolved", Note): "resolved",
    ("resolved", Adjust): "resolved",
}


@pytest.mark.parametrize("action", ACTIONS, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("status", STATUSES)
def test_every_pair_of_status_and_action(status: Status, action: Action):
    """The table above is the whole workflow; what is not in it is refused with the status."""
    expected = AFTER[status, type(action)]
    if expected is None:
        with pytest.raises(TransitionRefused) as refused:
            act(standing(status), action, "ann", NOW)
        assert refused.value.status == status
        return
    after, row = act(standing(status), action, "ann", NOW)
    assert (after.status, row.from_status, row.to_status) == (expected, status, expected)
    assert (row.actor, row.at, row.revision) == ("ann", NOW, 1)


def test_a_resolve_keeps_why_and_what_was_so():
    """The reason and the facts that a later revision is compared with."""
    after, row = act(standing(), Resolve("written_off", "small"), "ann", NOW)
    assert (after.reason, after.accepted, after.status_at) == ("written_off", facts_of(found()), NOW)
    assert (row.reason, row.notes) == ("written_off", "small")


def test_an_action_changes_nothing_that_belongs_to_the_matcher():
    """State, revision and log place stay."""
    for action in ACTIONS:
        after, _ = act(standing(), action, "ann", NOW)
        assert (after.state, after.revision, after.log_offset) == ("raised", 1, 10)


def absorbed(before: Standing | None, discrepancy: Discrepancy, *, repeats: bool = False) -> Absorbed:
    result = absorb(before, discrepancy, repeats_settled=repeats)
    assert result is not None
    return result


def test_a_first_raise_is_open_and_told():
    """With no line in the log: nobody acted."""
    result = absorbed(None, found())
    assert (result.standing.status, result.log, result.alerts, result.previous) == ("open", [], True, None)


@pytest.mark.parametrize("status", ["open", "acknowledged"])
def test_the_engine_resolves_what_people_left_open(status: Status):
    """Actor engine, reason the resolution."""
    result = absorbed(standing(status), resolved())
    assert result.standing.status == "resolved"
    assert [(r.actor, r.action, r.from_status, r.reason) for r in result.log] == [
        ("engine", "engine_resolve", status, "corrected")
    ]


def test_the_engine_does_not_overwrite_a_persons_resolve():
    """Status and reason stay a person's; state follows the matcher."""
    result = absorbed(standing("resolved"), resolved())
    after = result.standing
    assert (after.status, after.reason, after.state, result.log) == ("resolved", "accepted", "resolved", [])


@pytest.mark.parametrize(
    ("change", "reopens"),
    [
        ({"severity": "critical"}, False),
        ({"expired": True}, False),
        ({"explanation": "in other words"}, False),
        ({"type": "CurrencyMismatch"}, True),
        ({"expected": "101.00"}, True),
        ({"actual": "91.00"}, True),
        ({"currency": "USD"}, True),
    ],
)
def test_only_a_change_of_facts_reopens_what_a_person_resolved(change: dict[str, Any], reopens: bool):
    """Type, expected, actual, currency; nothing else."""
    result = absorbed(standing("resolved"), found(revision=2, offset=11, **change))
    assert (result.standing.status == "open") == reopens
    assert [row.action for row in result.log] == (["reopen"] if reopens else [])
    assert result.alerts == reopens


def test_what_is_raised_again_as_it_was_accepted_stays_resolved():
    """The engine resolved it meanwhile; the person's word about exactly these facts still holds."""
    between = absorbed(standing("resolved"), resolved()).standing
    result = absorbed(between, found(revision=3, offset=12))
    assert (result.standing.status, result.standing.reason) == ("resolved", "accepted")


def test_a_new_life_of_the_key_reopens_even_what_was_accepted():
    """Forgotten and found anew is a new discrepancy, though its id and facts are the same."""
    result = absorbed(standing("resolved", revision=3), found(revision=1, offset=500))
    assert (result.standing.status, result.standing.reopened) == ("open", 1)


def test_assignee_and_acknowledgement_survive_new_revisions():
    """People's columns are not the matcher's."""
    before, _ = act(standing("acknowledged"), Assign("ann"), "bob", NOW)
    after = absorbed(before, found(revision=2, offset=11, actual="80.00")).standing
    assert (after.status, after.assignee) == ("acknowledged", "ann")


@pytest.mark.parametrize(("revision", "offset"), [(1, 10), (1, 9), (9, 9)])
def test_what_is_not_newer_changes_nothing(revision: int, offset: int):
    """By place in the log first, then by revision."""
    assert absorb(standing(), found(revision=revision, offset=offset), repeats_settled=False) is None


def test_a_repeat_of_settled_records_is_resolved_and_silent():
    """And stays so through its own resolve; a raise that is no repeat opens it."""
    first = absorbed(None, found(), repeats=True)
    assert (first.found.state, first.found.resolution, first.standing.status) == (
        "resolved",
        "already_settled",
        "resolved",
    )
    assert first.alerts is False
    second = absorbed(first.standing, resolved())
    assert (second.found.resolution, second.alerts) == ("already_settled", False)
    third = absorbed(second.standing, found(revision=3, offset=12))
    assert (third.standing.status, third.alerts) == ("open", True)


def test_a_living_group_is_never_taken_for_a_repeat():
    """The next revision of what is open is stored as it is."""
    result = absorbed(standing(), found(revision=2, offset=11, actual="80.00"), repeats=True)
    assert result.found.state == "raised"


revisions = st.builds(
    lambda raised, actual, severity: {"raised": raised, "actual": actual, "severity": severity},
    st.booleans(),
    st.sampled_from(["90.00", "80.00"]),
    st.sampled_from(["low", "high"]),
)
steps = st.lists(st.one_of(revisions, st.sampled_from(ACTIONS)), max_size=12)


def walk(history: list[Any]) -> tuple[Standing | None, list[LogRow]]:
    """Apply revisions and actions in turn, as the sink and the API do."""
    now: Standing | None = None
    log: list[LogRow] = []
    for number, step in enumerate(history, start=1):
        if isinstance(step, dict):
            values = {"actual": step["actual"], "severity": step["severity"], "log": log_at(10 + number)}
            make = found if step["raised"] else resolved
            result = absorb(now, make(revision=number, **values), repeats_settled=False)
            assert result is not None
            now = result.standing
            log += result.log
        elif now is not None:
            try:
                now, row = act(now, step, "ann", NOW)
            except TransitionRefused:
                continue
            log.append(row)
    return now, log


@given(steps)
def test_the_log_tells_the_whole_way_of_the_status(history: list[Any]):
    """Each line begins where the one before ended; the last ends at the present status."""
    now, log = walk(history)
    status = "open"
    for row in log:
        assert row.from_status == status
        status = row.to_status
    if now is not None:
        assert now.status == status


@given(steps)
def test_what_is_raised_and_resolved_was_resolved_by_a_person_who_saw_these_facts(history: list[Any]):
    """Nothing true is ever closed silently."""
    now, _ = walk(history)
    if now is not None and now.state == "raised" and now.status == "resolved":
        assert now.reason in REASONS
        assert now.accepted == now.facts


@given(steps)
def test_redelivery_of_the_last_revision_changes_nothing(history: list[Any]):
    """At least once from Kafka is exactly once here."""
    now, _ = walk(history)
    if now is not None:
        again = found(revision=now.revision, log=log_at(now.log_offset))
        assert absorb(now, again, repeats_settled=False) is None
        assert msgspec.structs.replace(now) == now


@pytest.mark.parametrize("state", ["raised", "resolved"])
def test_what_a_shadow_finds_alerts_nobody(state: str) -> None:
    """Neither its raise nor its end, whatever came before it."""
    first = absorb(None, found(shadow=True), repeats_settled=False)
    assert first is not None
    assert (first.alerts, first.standing.shadow, first.standing.status) == (False, True, "open")
    second = found(revision=2, offset=11, shadow=True, actual="80.00") if state == "raised" else resolved(shadow=True)
    then = absorb(first.standing, second, repeats_settled=False)
    assert then is not None
    assert not then.alerts


def test_a_shadow_that_is_none_any_more_is_raised_to_endpoints() -> None:
    """The revision that leaves the shadow is the first that a receiver hears of: no `previous`."""
    stored = standing(shadow=True)
    absorbed = absorb(stored, found(revision=2, offset=11), repeats_settled=False)
    assert absorbed is not None
    assert (absorbed.alerts, absorbed.previous, absorbed.standing.shadow) == (True, None, False)


def test_a_shadow_that_resolves_as_it_leaves_the_shadow_was_never_told() -> None:
    """Nobody hears of the end of what they never heard of."""
    absorbed = absorb(standing(shadow=True), resolved(), repeats_settled=False)
    assert absorbed is not None
    assert not absorbed.alerts


def test_what_a_person_resolved_in_the_shadow_stays_resolved_and_silent() -> None:
    """The same facts outside the shadow are still accepted."""
    absorbed = absorb(standing("resolved", shadow=True), found(revision=2, offset=11), repeats_settled=False)
    assert absorbed is not None
    assert (absorbed.alerts, absorbed.standing.status) == (False, "resolved")


def test_a_rule_that_becomes_a_shadow_tells_once_more() -> None:
    """Receivers hear that what they know is a shadow's now; the next revision is silent."""
    absorbed = absorb(standing(), found(revision=2, offset=11, shadow=True), repeats_settled=False)
    assert absorbed is not None
    assert (absorbed.alerts, absorbed.previous) == (True, "raised")
    after = absorb(absorbed.standing, resolved(revision=3, offset=12, shadow=True), repeats_settled=False)
    assert after is not None
    assert not after.alerts

"""A rule that becomes a shadow, or is none any more, says again what it has raised; nothing else changes by it."""

from typing import Any

import pytest

from services.matcher.domain.changes import Changes
from services.matcher.domain.core import Core
from shared.contracts.discrepancy import Discrepancy
from tests.support.cases import KINDS, has_placeholder, load_kind_cases, load_match_cases
from tests.support.laws import drive, rule_change, whole_state
from tests.support.offline import log_of

Rule = dict[str, Any]
CASES: list[tuple[str, Rule, list[dict[str, Any]], str]] = [
    (f"match: {case.name}", case.rules[0], case.events, case.until)
    for case in load_match_cases()
    if len(case.rules) == 1
    and {event["org"] for event in case.events} == {"acme"}
    and not any(has_placeholder(event) for event in case.events)
] + [(f"{kind}: {case.name}", case.rule, case.events, case.until) for kind in KINDS for case in load_kind_cases(kind)]
cases = pytest.mark.parametrize(("rule", "events", "until"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])


def after(core: Core, change: Any, offset: int) -> Changes:
    core.apply(b"", change, offset)
    return core.take()


def open_of(changes: Changes) -> dict[str, Discrepancy]:
    last = {one.id: one for one in changes.discrepancies}
    return {id_: one for id_, one in last.items() if one.state == "raised" and not one.expired}


@cases
def test_into_the_shadow_and_back_says_each_open_one_again_and_no_more(
    rule: Rule, events: list[dict[str, Any]], until: str
) -> None:
    """Same ids, next revisions, nothing raised and nothing resolved; the log in between says so at once."""
    core = Core(0)
    log = log_of([rule], events, until)
    before = open_of(drive(core, log))
    live = whole_state(core)
    for version, shadow in enumerate((True, False), start=1):
        changes = after(core, rule_change(rule, version, {"shadow": shadow}), len(log) + version)
        told = {one.id: one for one in changes.discrepancies}
        assert len(changes.discrepancies) == len(told)
        # What was closed by the rule's memory alone (`expire`) cannot be said again.
        assert {id_: one.revision for id_, one in told.items()} == {
            id_: one.revision + version for id_, one in before.items()
        }
        assert {(one.state, one.shadow) for one in told.values()} <= {("raised", shadow)}
    assert {key for key, _ in whole_state(core)} == {key for key, _ in live}


@cases
def test_a_shadow_finds_what_the_rule_would_find(rule: Rule, events: list[dict[str, Any]], until: str) -> None:
    """The same log under the shadow: the same discrepancies with the same revisions, all marked."""
    live = drive(Core(0), log_of([rule], events, until))
    shadow = drive(Core(0), log_of([rule | {"shadow": True}], events, until))
    told = [(one.id, one.revision, one.state, one.expected, one.actual) for one in live.discrepancies]
    assert [(one.id, one.revision, one.state, one.expected, one.actual) for one in shadow.discrepancies] == told
    assert {one.shadow for one in shadow.discrepancies} <= {True}
    assert {check.shadow for _, check in shadow.checks} <= {True}

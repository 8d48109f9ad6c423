"""A check passes only when its rule was looked at and held."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from services.alerts.domain.checks import CheckFigures, Verdicts, check_of, check_type_of, merged
from shared.packs.stack import rules_of_checks

RULE = "stack.circle_balance"


def check(kind: str | None = "balance", verdicts: Verdicts | None = None, **given) -> CheckFigures:
    values = {"items": 0, "discrepant": 0, "differences": {}, "still_open": 0, "fault": None} | given
    return check_of(RULE, kind, verdicts, **values)


def test_a_check_is_named_by_the_second_word_of_its_rules() -> None:
    assert (check_type_of(RULE), check_type_of("bots.fees.counter"), check_type_of("alone")) == (
        "circle_balance",
        "fees",
        "alone",
    )


@pytest.mark.parametrize("rule", [rule for rules in rules_of_checks().values() for rule in rules])
def test_the_stack_packs_own_list_says_the_same(rule: str) -> None:
    assert rule in rules_of_checks()[check_type_of(rule)]


def test_a_check_of_several_rules_passes_when_all_of_them_do_and_counts_the_same_money_once() -> None:
    total = check(verdicts=Verdicts(RULE, passed=1))
    users = check_of(
        f"{RULE}.users", "balance", Verdicts(f"{RULE}.users", passed=3, failed=2, differences={"USDC": Decimal(9)}),
        items=0, discrepant=0, differences={}, still_open=0, fault=None,
    )  # fmt: skip

    [one] = merged([total, users])

    assert (one.check_type, one.outcome, one.readings, one.failed) == ("circle_balance", "failed", 6, 2)
    assert one.rules == [RULE, f"{RULE}.users"]
    drift = check(verdicts=Verdicts(RULE, failed=1, differences={"USDC": Decimal(10)}))
    assert merged([drift, users])[0].discrepancy == {"USDC": "10.000000"}
    blind = check(verdicts=Verdicts(RULE, errors=1, why="empty read"))
    assert merged([blind, users])[0].error == f"{RULE}: 1 reading could not be judged: empty read"


def test_a_further_rule_that_nobody_ever_fed_does_not_fail_its_check() -> None:
    """What users hold, or what the ledger states itself, may not be posted; once it was, it has to be."""
    never = {"items": 0, "discrepant": 0, "differences": {}, "still_open": 0, "fault": None}
    before = datetime(2026, 11, 20, tzinfo=UTC)

    assert check_of(f"{RULE}.users", "balance", None, **never).outcome == "passed"
    stopped = check_of(f"{RULE}.users", "balance", Verdicts(f"{RULE}.users", last_before=before), **never)
    assert stopped.outcome == "error"


def test_verdicts_that_passed_pass_and_one_that_failed_fails_with_its_amount() -> None:
    assert check(verdicts=Verdicts(RULE, passed=2)).outcome == "passed"

    failed = check(verdicts=Verdicts(RULE, passed=2, failed=1, differences={"USDC": Decimal("-12.5").copy_abs()}))

    assert (failed.outcome, failed.passed, failed.readings, failed.failed) == ("failed", False, 3, 1)
    assert failed.discrepancy == {"USDC": "12.500000"}


def test_a_reading_that_could_not_be_judged_is_an_error_also_beside_others_that_passed() -> None:
    one = check(verdicts=Verdicts(RULE, passed=5, errors=1, why="empty read"))

    assert (one.outcome, one.passed, one.error) == ("error", False, "1 reading could not be judged: empty read")


@pytest.mark.parametrize("kind", ["balance", "invariant"])
def test_no_reading_is_no_pass_and_yesterdays_does_not_count(kind: str) -> None:
    before = datetime(2026, 11, 20, 23, 59, tzinfo=UTC)

    assert check(kind).error == "there is no reading yet"
    stale = check(kind, Verdicts(RULE, last_before=before))
    assert (stale.outcome, stale.passed) == ("error", False)
    assert stale.error == "there is no reading in the period; the last one is of 2026-11-20T23:59:00+00:00"


@pytest.mark.parametrize("kind", ["match", "zero_sum", None])
def test_where_nothing_moved_nothing_can_disagree(kind: str | None) -> None:
    assert check(kind).outcome == "passed"


def test_discrepant_items_fail_a_rule_that_publishes_no_verdicts() -> None:
    one = check("match", items=7, discrepant=2, differences={"USD": Decimal("3.50"), "EUR": Decimal(0)})

    assert (one.outcome, one.items, one.discrepant, one.discrepancy) == ("failed", 7, 2, {"USD": "3.50"})


def test_a_fault_is_an_error_whatever_else_is_known() -> None:
    one = check(verdicts=Verdicts(RULE, passed=1), fault="item 7 cannot be read")

    assert (one.outcome, one.error) == ("error", "item 7 cannot be read")


def test_a_rule_that_says_only_what_is_wrong_fails_while_something_is_open() -> None:
    """A silent feed has neither verdicts nor items; an old break of a matching rule is no failure of a later hour."""
    assert (check("feed", still_open=1).outcome, check("feed").outcome) == ("failed", "passed")
    assert check("match", still_open=1).outcome == "passed"

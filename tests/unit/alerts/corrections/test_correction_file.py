"""The operator's file: what may be tried, and each mistake in it told with its place."""

from decimal import Decimal
from pathlib import Path

import pytest

from services.alerts.adapters.correction_file import read_policies
from services.alerts.domain.correction import Allowed
from shared.errors import UsageError

LEDGER = "{url: 'https://ledger.example/adjustments'}"


def test_without_a_file_the_packs_word_holds_and_nobody_is_asked_to_book() -> None:
    policies = read_policies(None, allow_http=False)
    policy = policies.of("anybody")
    assert policy.allowed["stack.circle_balance"] == Allowed("circle", True)
    assert "stack.conversion_jobs" not in policy.allowed
    assert (policy.ledger_source, dict(policies.addresses)) == (None, {})


def test_the_file_adds_a_ledger_and_changes_rules(tmp_path: Path) -> None:
    file = tmp_path / "corrections.yaml"
    file.write_text(
        f"acme:\n  ledger: {LEDGER}\n  adjust_up_to: {{USDC: '1.00'}}\n  after_s: 5\n"
        "  rules: {stack.deposits: {adjust: false}, own.rule: {refetch: bank}}\n"
    )
    policies = read_policies(file, allow_http=False, environment={"TIEOUT_LEDGER_KEY__ACME": "s3cr3t"})
    policy = policies.of("acme")
    assert policy.ceilings == {"USDC": Decimal("1.00")}
    assert (policy.allowed["stack.deposits"], policy.allowed["own.rule"]) == (Allowed(), Allowed("bank"))
    assert "own.rule" in policies.watched
    assert policies.shortest.total_seconds() == 5
    address = policies.addresses["acme"]
    assert address.key is not None
    assert "s3cr3t" not in repr(address)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"acme: {{ledger: {LEDGER}}}", "adjust_up_to: names no currency"),
        ("acme: {adjust_up_to: {EUR: '1.00'}}", "ledger: is missing"),
        (f"acme: {{ledger: {LEDGER}, adjust_up_to: {{EURO: '1.00'}}}}", "'EURO' is no currency"),
        (f"acme: {{ledger: {LEDGER}, adjust_up_to: {{EUR: '1e2'}}}}", "is not a decimal amount"),
        (f"acme: {{ledger: {LEDGER}, adjust_up_to: {{EUR: '-1'}}}}", "must be above zero"),
        ("acme: {ledger: {url: 'http://ledger.example/'}, adjust_up_to: {EUR: '1'}}", "must be https"),
        ("acme: {ledger: {url: 'https://a:b@ledger.example/'}, adjust_up_to: {EUR: '1'}}", "holds a user or password"),
        ("acme: {leger: {}}", "leger: Extra inputs"),
        ("[acme]", "write {org:"),
        ("acme: {after_s: -1}", "after_s"),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "corrections.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=said.replace("{", r"\{")) as told:
        read_policies(file, allow_http=False, environment={})
    assert str(file) in str(told.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="TIEOUT_CORRECTIONS_FILE: cannot read"):
        read_policies(tmp_path / "none.yaml", allow_http=False)

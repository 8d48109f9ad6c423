"""How far an account may drift, from the rules in force."""

from pathlib import Path
from typing import Any

from services.alerts.adapters.watched_rules import TopicLimits
from services.alerts.domain.baseline import Limits
from shared.rules.load import load_rules, validate_rules

PACKS = Path(__file__).parents[4] / "shared/packs"


class InForce:
    def __init__(self, models: Any) -> None:
        self._models = models

    async def models(self) -> Any:
        return {("acme", "stack"): self._models}


async def test_tolerance_and_critical_threshold_of_the_stack_pack() -> None:
    """Only rules of kind balance have a drift; a rule without a critical band foretells its tolerance alone."""
    limits = await TopicLimits(InForce(load_rules(PACKS / "stack/rules.yaml").rules)).limits()  # type: ignore[arg-type]
    assert sorted(rule for _, rule in limits) == [
        "stack.alpaca_balance", "stack.alpaca_balance.users", "stack.circle_balance", "stack.circle_balance.users",
        "stack.ledger_consistency.accounts",
    ]  # fmt: skip
    assert limits["acme", "stack.alpaca_balance"]("alpaca_exposure", "USD") == Limits(0.01, 10_000.0)
    assert limits["acme", "stack.circle_balance.users"]("circle:w1", "USDC") == Limits(0.0, None)


async def test_an_accounts_own_limits_and_a_currencys_count_and_shadow_rules_do_not() -> None:
    rule = {
        "name": "own.cash", "kind": "balance", "movements": {"source": "ledger", "type": ["movement.*"]},
        "snapshots": {"source": "bank", "type": ["balance.*"]}, "key": "account", "tolerance": "5.00",
        "overrides": {"petty": {"tolerance": "0.50"}},
        "severity": {"default": "low", "BalanceMismatch": {"above": {"JPY": {"5000": "critical"}, "default": {"50": "critical"}}}},
    }  # fmt: skip
    models = validate_rules(
        {"version": 1, "pack": "own", "rules": [rule, rule | {"name": "own.watching", "shadow": True}]}
    ).rules
    limits = await TopicLimits(InForce(models)).limits()  # type: ignore[arg-type]
    assert list(limits) == [("acme", "own.cash")]
    of = limits["acme", "own.cash"]
    assert (of("petty", "EUR"), of("main", "JPY")) == (Limits(0.5, 50.0), Limits(5.0, 5000.0))

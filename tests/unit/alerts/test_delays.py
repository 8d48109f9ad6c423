"""Deadlines learned from the delays that were seen."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.alerts.domain.delays import ARRIVALS_MIN, Arrival, at_quantile, learn, written
from shared.rules.duration import parse_duration
from shared.rules.load import parse_rules
from shared.rules.match_rule import MatchRuleModel
from tieout.cli.rules_learn import deadlines_of, show

MINUTE = 60_000
DEADLINES = {"internal": ("24h", 86_400_000), "provider": ("10m", 10 * MINUTE)}


def test_quantiles_and_what_the_proposal_changes() -> None:
    """A thousand arrivals of the provider's side, one a second apart: the longest one is left out at 0.999."""
    arrivals = [Arrival("provider", number * 1000) for number in range(1, 1001)]
    internal, provider = learn(arrivals, DEADLINES, Decimal("0.999"))
    assert provider.quantiles == (500_000, 900_000, 990_000, 999_000)
    assert (provider.longest_ms, provider.arrivals) == (1_000_000, 1000)
    # 999 s are written as 17 minutes, which leaves nothing late.
    assert (provider.proposed, provider.late_now, provider.late_then) == ("17m", 400, 0)
    assert (internal.proposed, internal.arrivals, internal.quantiles) == (None, 0, ())


def test_a_shorter_deadline_says_how_many_more_it_would_call_missing() -> None:
    arrivals = [Arrival("internal", 5_000)] * 990 + [Arrival("internal", 3 * MINUTE)] * 10
    internal, _ = learn(arrivals, DEADLINES, Decimal("0.99"))
    assert (internal.proposed, internal.late_now, internal.late_then) == ("5s", 0, 10)


def test_too_few_are_nothing_to_learn_from() -> None:
    _, provider = learn([Arrival("provider", 1)] * (ARRIVALS_MIN - 1), DEADLINES, Decimal("0.9"))
    assert provider.proposed is None


@given(st.lists(st.integers(0, 10**9), min_size=1), st.decimals("0.5", 1, places=3))
def test_a_quantile_is_the_least_delay_that_enough_do_not_pass(delays: list[int], quantile: Decimal) -> None:
    delays.sort()
    found = at_quantile(delays, quantile)
    assert sum(delay <= found for delay in delays) >= quantile * len(delays)
    assert sum(delay < found for delay in delays) < quantile * len(delays)


@given(st.integers(0, 10**10))
def test_what_is_proposed_is_a_duration_that_is_not_shorter(delay_ms: int) -> None:
    ms, text = written(delay_ms)
    assert parse_duration(text).milliseconds == ms >= max(delay_ms, 1)
    assert ms <= max(delay_ms * 2, 5_000)


RULES = """
version: 1
pack: billing
rules:
  - name: billing.payments
    kind: match
    key: refs.payment_id
    sides:
      internal: {source: ledger, type: "payment.*"}
      provider: {source: stripe, type: "payment.*"}
    deadline: DEADLINE
"""


@pytest.mark.parametrize("deadline", ["10m", "{internal: 1bd, provider: 10m}"])
def test_what_is_printed_can_be_pasted_into_the_rule(deadline: str) -> None:
    model = parse_rules(RULES.replace("DEADLINE", deadline)).rules[0]
    assert isinstance(model, MatchRuleModel)
    arrivals = [Arrival("provider", number * 1000) for number in range(1, 1001)]
    lines = show(model, learn(arrivals, deadlines_of(model), Decimal("0.999")), Decimal("0.999"), 30)
    assert "provider: 17m instead of 10m: 400 fewer called missing that came later." in lines
    pasted = parse_rules(RULES.replace("deadline: DEADLINE", lines[-1])).rules[0]
    assert isinstance(pasted, MatchRuleModel)
    assert isinstance(pasted.deadline, dict)
    assert pasted.deadline["provider"] == "17m"

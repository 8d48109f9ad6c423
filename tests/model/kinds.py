"""One call for the oracles of all rule kinds but `match`: `run(rule, events, until) -> Outcome`."""

from collections.abc import Callable

from tests.model import balance_model, invariant_model, zero_sum_model
from tests.model.match_model import Event, Rule
from tests.model.outcome import Outcome

MODELS: dict[str, Callable[[Rule, list[Event], str], Outcome]] = {
    "balance": balance_model.run,
    "zero_sum": zero_sum_model.run,
    "invariant": invariant_model.run,
}


def run(rule: Rule, events: list[Event], until: str) -> Outcome:
    """What one rule, in the words of a rules file, knows of these raw events when log time has reached `until`."""
    return MODELS[rule["kind"]](rule, events, until)

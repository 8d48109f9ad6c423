"""The product and the independent model of `balance` say the same of any stream, to the last field."""

from hypothesis import HealthCheck, given, settings

from tests.model.strategies_balance import lawful_scenarios, scenarios
from tests.model.stream import Stream
from tests.support.verdicts import unlike

THOROUGH = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@THOROUGH
@given(scenarios() | lawful_scenarios())
def test_any_stream_is_told_alike(stream: Stream) -> None:
    assert unlike(stream) == []

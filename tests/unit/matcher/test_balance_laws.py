"""The Law for `balance`: order of movements, repetition, batching and restarts decide nothing; folding changes no verdict."""

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.matcher.domain import pages
from tests.model.strategies import at
from tests.model.strategies_balance import lawful_scenarios, movements_rearranged, offsets, scenarios
from tests.model.stream import Stream, repeated
from tests.support.laws import (
    a_restart_changes_nothing,
    batches_decide_nothing,
    disturbed,
    the_same_log_gives_the_same_bytes,
)
from tests.support.offline import LogEntry, run_offline, time_of
from tests.support.verdicts import checks

MODERATE = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
CHANGES: list[dict[str, Any]] = [
    {"settle": "0s"},
    {"settle": "30m"},
    {"tolerance": "7.00"},
    {"keep": "31m", "expire": "40m"},
    {"opening": "5"},
    {"opening": "snapshot"},
    {"overrides": {"w1": {"enabled": False}}},
    {"severity": {"default": "critical"}},
    {"movements": {"source": "ledger", "type": ["movement.*"], "live": ["posted", "pending"]}},
    {"key": ["account", "currency"], "measure": "count", "opening": "snapshot"},
]


@pytest.fixture(autouse=True, scope="module")
def _small_pages() -> Any:
    """Two entries a page, so that short streams fill, leave and fold pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "PAGE_ENTRIES", 2)
        yield


@st.composite
def hostile_logs(draw: st.DrawFn) -> list[LogEntry]:
    stream = draw(scenarios())
    if draw(st.booleans()):
        stream.rule.update({"keep": "31m", "expire": draw(st.sampled_from(["31m", "45m"]))})
    moments = [time_of(at(offset)) for offset in offsets(stream.rule)]
    moments += [moment + hours * 3_600_000 for moment in moments[:3] for hours in (1, 2, 24)]
    return draw(disturbed(stream.rule, stream.events, stream.until, moments, CHANGES))


def open_at_end(stream: Stream) -> list[tuple[Any, ...]]:
    engine, _ = run_offline([stream.rule], stream.events, stream.until)
    standing = [one for one in engine.last_revisions() if one.state == "raised"]
    return sorted((one.org, str(one.key), one.currency or "", one.expected, one.actual) for one in standing)


@MODERATE
@given(lawful_scenarios().flatmap(lambda one: st.tuples(st.just(one), movements_rearranged(one))))
def test_any_order_of_movements_leaves_the_same_open(pair: tuple[Stream, Stream]) -> None:
    """Readings keep their places: an older one that comes later is lost."""
    assert open_at_end(pair[0]) == open_at_end(pair[1])


@MODERATE
@given(lawful_scenarios().flatmap(lambda one: st.tuples(st.just(one), repeated(one))))
def test_redelivery_changes_no_revision_and_no_verdict(pair: tuple[Stream, Stream]) -> None:
    """Not what is open and not what was said on the way; only the place in the log differs."""
    said = []
    for one in pair:
        engine, _ = run_offline([one.rule], one.events, one.until)
        revisions = [msgspec.to_builtins(revision) | {"log": None} for revision in engine.last_revisions()]
        said.append((revisions, [row | {"log": None} for row in checks(engine.checks)]))
    assert said[0] == said[1]


@MODERATE
@given(hostile_logs())
def test_batches_decide_nothing(log: list[LogEntry]) -> None:
    batches_decide_nothing(log)


@MODERATE
@given(hostile_logs(), st.data())
def test_a_restart_anywhere_changes_nothing(log: list[LogEntry], data: st.DataObject) -> None:
    a_restart_changes_nothing(log, data.draw(st.integers(0, len(log)), label="restart after"))


@MODERATE
@given(hostile_logs())
def test_the_same_log_gives_the_same_bytes(log: list[LogEntry]) -> None:
    the_same_log_gives_the_same_bytes(log)

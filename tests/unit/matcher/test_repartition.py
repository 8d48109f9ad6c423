"""The state of three partitions laid out over two: what comes after is judged as if it had always been so."""

from collections import Counter
from typing import Any

import msgspec
import pytest

from services.matcher.domain.core import Core
from services.matcher.domain.repartition import StillDeriving, repartition
from services.matcher.use_cases.partition import Partition, Policy
from shared.contracts.discrepancy import Discrepancy
from shared.contracts.leg import Leg, Tick, Withdraw
from shared.kafka.partitioner import partition_of
from shared.rules.compiled import rule_record
from tests.support.cases import KINDS, has_placeholder, load_kind_cases, load_match_cases
from tests.support.laws import rule_change
from tests.support.offline import PACK, LogEntry, log_of, rules_of

Rule = dict[str, Any]
BASE = 1_000
CASES: list[tuple[str, list[Rule], list[dict[str, Any]], str]] = [
    (f"match: {case.name}", case.rules, case.events, case.until)
    for case in load_match_cases()
    if not any(has_placeholder(event) for event in case.events)
] + [(f"{kind}: {case.name}", [case.rule], case.events, case.until) for kind in KINDS for case in load_kind_cases(kind)]


def run(cores: list[Core], log: list[LogEntry], first_offset: int) -> list[Discrepancy]:
    found = []
    for offset, (group, record) in enumerate(log, start=first_offset):
        to = [cores[partition_of(group, len(cores))]] if isinstance(record, Leg | Withdraw) else cores
        for core in to:
            core.apply(group, record, offset)
            found += core.take().discrepancies
    return found


def told(found: list[Discrepancy]) -> Counter[Any]:
    return Counter(
        (one.id, one.revision, one.state, one.resolution, one.expected, one.actual, one.raised_at, one.resolved_at)
        for one in found
    )


@pytest.mark.parametrize("part", [0.3, 0.6, 1.0])
@pytest.mark.parametrize(("rules", "events", "until"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_revisions_are_those_of_partitions_that_were_always_so(
    rules: list[Rule], events: list[dict[str, Any]], until: str, part: float
) -> None:
    """Every revision, with its times; places in the log go on behind the old ones."""
    log = log_of(rules, events, until)
    cut = round(len(log) * part)
    always = run([Core(number) for number in range(2)], log, 0)
    old = [Core(number) for number in range(3)]
    before = run(old, log[:cut], 0)
    new = [Core(number) for number in range(2)]
    for core, entries in zip(
        new, repartition([dict(core.snapshot()) for core in old], 2, BASE, partition_of), strict=True
    ):
        core.restore(entries.items())
    after = run(new, log[cut:], 0)
    assert told(before + after) == told(always)
    assert all(one.log.offset >= BASE for one in after)
    assert sum(core.open_items + core.settled_items for core in new) == len(
        {key for core in new for key, _ in core.snapshot() if key.startswith(b"[")}
    )


def test_rules_come_in_force_again_whatever_their_place_in_the_new_topic() -> None:
    """Versions are places in the topic `rules`, which begins anew: a small one is newer than what was laid out."""
    case = load_match_cases()[0]
    core = Core(0)
    core.apply(b"", rule_change(case.rules[0], 500, {}), 0)
    (entries,) = repartition([dict(core.snapshot())], 1, BASE, partition_of)
    again = Core(0)
    again.restore(entries.items())
    again.apply(b"", rule_change(case.rules[0], 3, {"deadline": "5m"}), 0)
    state = dict(again.snapshot())
    assert [b'"5m"' in value for key, value in state.items() if key.startswith(b"rule ")] == [True]


def test_a_derivation_under_way_is_waited_for() -> None:
    """Its legs would go on in the old partitions."""
    (model,) = rules_of([load_match_cases()[0].rules[0] | {"shadow": True}])
    core = Core(0)
    core.apply(b"", msgspec.structs.replace(rule_record("acme", PACK, model, 1, 1, deriving=True)), 0)
    with pytest.raises(StillDeriving, match="derived anew"):
        repartition([dict(core.snapshot())], 2, 0, partition_of)


def test_a_partition_that_was_laid_out_tells_its_progress_before_its_first_leg() -> None:
    """It stands at offset 0 and knows log time: what is due must be done, not waited for in a busy loop."""
    case = load_match_cases()[0]
    old = Core(0)
    run([old], log_of(case.rules, case.events, case.until), 0)
    core = Core(0)
    core.restore(repartition([dict(old.snapshot())], 1, BASE, partition_of)[0].items())
    partition = Partition(0, core, Policy(1_000_000, 1_000_000, 1.0), 0)
    batch = partition.collect(0.0)
    assert batch is not None
    assert batch.progress is not None
    assert (batch.next_offset, batch.base, batch.progress.log.offset) == (0, BASE, BASE - 1)
    assert not partition.progress_waits


def test_log_time_goes_on_where_the_old_partitions_had_heard_of_different_ones() -> None:
    """One was behind on this inbox partition, one on that: together they know more than log time says."""
    old = [Core(0), Core(1)]
    for core, first, second in ((old[0], 10_000, 5_000), (old[1], 4_000, 9_000)):
        core.apply(b"", Tick(0, 2, first), 0)
        core.apply(b"", Tick(1, 2, second), 1)
    made = repartition([dict(core.snapshot()) for core in old], 1, 2, partition_of)
    core = Core(0)
    core.restore(made[0].items())
    assert core.log_time == 5_000

    core.apply(b"", Tick(0, 2, 11_000), 0)
    core.apply(b"", Tick(1, 2, 12_000), 1)

    assert core.log_time == 11_000

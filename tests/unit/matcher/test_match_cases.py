"""Every case of tests/cases/match.yaml and extra_match.yaml through the product's extraction and core."""

from datetime import UTC, datetime

import msgspec
import pytest

from shared.contracts.event import EventRefused, accept, convert_posted, milliseconds
from shared.rules.load import validate_rules
from tests.support.cases import EXTRA_MATCH_CASES, Case, differences, load_match_cases, substitute
from tieout.offline.engine import OfflineEngine

CASES = load_match_cases() + load_match_cases(EXTRA_MATCH_CASES)


def run(case: Case) -> tuple[OfflineEngine, int]:
    engine = OfflineEngine({"billing": validate_rules({"version": 1, "pack": "billing", "rules": case.rules}).rules})
    refused = 0
    for raw in case.events:
        engine.advance(milliseconds(datetime.fromisoformat(raw["received_at"])))
        event = substitute(raw, lambda kind: next(d.id for d in engine.revisions if d.type == kind))
        try:
            posted = convert_posted(event)
            received_at = posted.received_at.astimezone(UTC)
            engine.feed(accept(posted, org=posted.org, received_at=received_at))
        except EventRefused:
            refused += 1
    engine.advance(milliseconds(datetime.fromisoformat(case.until)))
    return engine, refused


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(case: Case) -> None:
    engine, refused = run(case)
    actual = msgspec.to_builtins(engine.last_revisions())
    assert differences(case.expect, actual) == []
    assert sorted(letter.reason for letter in engine.dead_letters) == sorted(case.dead_letters)
    assert refused == case.refused
    if case.matches is not None:
        assert sum(item.status == "matched" for item in engine.items.values()) == case.matches

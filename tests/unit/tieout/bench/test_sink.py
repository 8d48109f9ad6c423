"""`tieout bench sink` measures what a matcher publishes."""

from shared.contracts.matched_pair import read_item
from tieout.bench.sink import published

ROWS = 600
DISCREPANT_PERCENT = 10


def test_both_forms_are_the_same_results_of_the_matcher() -> None:
    """Plain matches are two legs or JSON, whoever reads them; every discrepancy stands beside its item."""
    pairs, written = (published(ROWS, DISCREPANT_PERCENT, matches_as_json=as_json) for as_json in (False, True))
    items = [read_item(value) for _, _, value, _ in pairs.matches]
    assert [read_item(value) for _, _, value, _ in written.matches] == items
    assert written.discrepancies == pairs.discrepancies
    assert {value[:1] for _, _, value, _ in written.matches} == {b"{"}
    assert [value[:1] == b"{" for _, _, value, _ in pairs.matches] == [item.status == "discrepant" for item in items]
    assert {one.id for item in items for one in item.discrepancies} == {
        (key or b"").decode() for _, key, _, _ in pairs.discrepancies
    }
    assert 0 < len(pairs.discrepancies) < len(items) / 5
    assert ROWS <= len(pairs.matches) + len(pairs.discrepancies) <= ROWS + 1

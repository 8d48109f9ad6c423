"""Results as Kafka records."""

from datetime import UTC, datetime

import msgspec

from services.matcher.adapters.results import Routes, cloud_event_headers, in_json, item_results
from services.matcher.domain.changes import Changes
from services.matcher.ports import Batch
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.discrepancy import Discrepancy, LogPosition, Progress
from shared.contracts.item import Item
from shared.contracts.leg import Leg, encode_leg_record, group_key
from shared.contracts.matched_pair import PairWords, encode_pair, encode_words, read_item
from shared.kafka.topics import Topics

AT = datetime(2026, 3, 2, 10, 0, 0, 1000, tzinfo=UTC)
PLACE = LogPosition(partition=9, offset=5, time=AT)
TRACE = [("traceparent", b"00-x")]


def discrepancy(**given) -> Discrepancy:
    fields = dict.fromkeys(Discrepancy.__struct_fields__) | {
        "id": "d1", "revision": 2, "state": "raised", "org": "acme", "rule": "billing.payments", "pack": "billing",
        "type": "AmountMismatch", "severity": "medium", "key": "p1", "sides": {}, "raised_at": AT, "expired": False,
        "explanation": "e", "log": PLACE,
    }  # fmt: skip
    return Discrepancy(**(fields | given))


def letter() -> DeadLetter:
    fields = dict.fromkeys(DeadLetter.__struct_fields__) | {
        "id": "x",
        "reason": "unreadable",
        "raw": b"",
        "received_at": AT,
    }
    return DeadLetter(**fields)


def routed(batch: Batch) -> dict[str, list]:
    routes = Routes(Topics("t."), dead_letter_partitions=6)
    return {f"{topic}/{number}": list(results) for topic, number, results in routes.of(batch)}


def test_discrepancies_carry_cloud_events_headers():
    assert dict(cloud_event_headers(discrepancy())) == {
        "ce_id": b"d1/2",
        "ce_type": b"tieout.discrepancy.raised",
        "ce_source": b"/orgs/acme/rules/billing.payments",
        "ce_specversion": b"1.0",
        "ce_time": b"2026-03-02T10:00:00.001Z",
        "content-type": b"application/json",
    }


def test_results_go_to_the_partition_of_their_input_and_dead_letters_to_what_there_is():
    changes = Changes(discrepancies=[discrepancy()], dead_letters=[letter()])
    found = routed(Batch(9, 6, 1, changes))
    assert set(found) == {"t.discrepancies/9", "t.dead-letters/3"}
    assert found["t.discrepancies/9"][0][0] == b"d1"


def test_progress_goes_to_all_three_topics_behind_the_results():
    batch = Batch(9, 6, 1, Changes(discrepancies=[discrepancy()]), progress=Progress(log=PLACE))
    found = routed(batch)
    assert set(found) == {"t.discrepancies/9", "t.matches/9", "t.checks/9"}
    for results in found.values():
        key, value, headers = results[-1]
        assert (key, headers) == (b"progress", [("kind", b"progress")])
        assert msgspec.json.decode(value, type=Progress).log == PLACE
    assert len(found["t.discrepancies/9"]) == 2


def test_a_sampled_leg_passes_its_trace_on_to_its_groups_discrepancy_only():
    key = group_key("acme", "billing.payments", ("p1",))
    changes = Changes(discrepancies=[discrepancy(), discrepancy(id="d2", key="p2")])
    first, second = routed(Batch(9, 6, 2, changes, contexts={key: TRACE}))["t.discrepancies/9"]
    assert TRACE[0] in first[2]
    assert TRACE[0] not in second[2]


def test_pairs_are_written_as_json_for_consumers_that_ask_for_it() -> None:
    """`matches_as_json`: the same item, whoever reads it."""
    legs = [
        encode_leg_record(
            Leg("g", side, source, f"{source}-1", f"e{side}", 1_000, 0, 0, 1, amount="7.00", currency="EUR")
        )
        for side, source in enumerate(("ledger", "stripe"))
    ]
    group = group_key("acme", "billing.payments", ("p1",))
    pair = encode_pair(encode_words(PairWords("billing", ("internal", "provider"))), group, 9, 5, 1, *legs)
    batch = Batch(9, 6, 1, Changes(items=[(group, pair)]))

    (_, short, _), (_, written, _) = next(item_results(batch)), next(item_results(batch, pairs_as_json=True))

    assert short == pair
    assert msgspec.json.decode(written, type=Item) == read_item(pair)
    assert in_json(written) == written

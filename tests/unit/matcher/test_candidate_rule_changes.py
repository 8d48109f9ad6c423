"""Rules without a shared key that change while records are open or matched, and partitions that grow hot."""

from datetime import datetime, timedelta
from typing import Any

from services.matcher.domain.changes import Changes
from services.matcher.domain.core import Core
from shared.contracts.leg import RuleRecord
from tests.model.strategies import START, at
from tests.model.strategies_candidates import RULE
from tests.support.laws import counters, drive, rule_change
from tests.support.offline import log_of, run_offline

MINUTE, DAY = 60_000, 86_400_000


def invoice(record: str = "i1", **fields: Any) -> dict[str, Any]:
    return {
        "org": "acme", "source": "erp", "type": "invoice.issued", "id": f"id-{record}", "record": record,
        "amount": "100.00", "currency": "EUR", "account": "main", "occurred_at": at(0), "received_at": at(0),
        "refs": {"invoice": "INV100017"},
    } | fields  # fmt: skip


def line(record: str = "l1", text: str | None = "INV100017", **fields: Any) -> dict[str, Any]:
    attrs = {"text": text} if text else {}
    return invoice(record, source="bank", type="entry.booked", refs={}, attrs=attrs) | fields


def started(*events: dict[str, Any], until: int = 11 * MINUTE, rule: dict[str, Any] = RULE) -> Core:
    core = Core(0)
    drive(core, log_of([rule], list(events), at(until)))
    return core


def after(core: Core, record: RuleRecord) -> Changes:
    core.apply(b"", record, 100)
    return core.take()


def told(changes: Changes) -> list[tuple[str, str, str | None]]:
    return [(one.type, one.state, one.resolution) for one in changes.discrepancies]


def test_a_match_that_would_not_be_accepted_any_more_is_decided_anew() -> None:
    core = started(invoice(), line(text="INV100071"))

    changes = after(core, rule_change(RULE, 1, {"accept": "0.99"}))
    statuses = [item.status for _, item in changes.items if not isinstance(item, bytes)]
    assert statuses == ["pending", "pending"]


def test_a_match_that_is_good_enough_stays() -> None:
    core = started(invoice(), line())

    changes = after(core, rule_change(RULE, 1, {"accept": "0.99"}))
    assert told(changes) == []
    assert {item.status for _, item in changes.items if not isinstance(item, bytes)} <= {"matched"}


def test_a_shorter_deadline_raises_what_is_missing() -> None:
    core = started(invoice(), until=2 * DAY)

    assert told(after(core, rule_change(RULE, 1, {"deadline": "1d"}))) == [("MissingProviderRecord", "raised", None)]


def test_a_withdrawn_rule_resolves_and_forgets() -> None:
    core = started(invoice(), line("l1", None), line("l2", None, amount="7.00"), until=6 * DAY)

    changes = after(core, rule_change(RULE, 1, None))
    assert told(changes) == [("MissingInternalRecord", "resolved", "rule_withdrawn")]
    assert counters(core) == (0, 0, 0)


def test_a_rule_that_gets_a_key_closes_what_was_matched_without() -> None:
    core = started(invoice(), line(), line("l2", None, amount="7.00"), until=6 * DAY)
    keyed = {name: RULE[name] for name in ("name", "kind", "sides")} | {"key": ["currency", "account"]}

    changes = after(core, rule_change(keyed, 1, {}))
    assert told(changes) == [("MissingInternalRecord", "resolved", "rule_changed")]
    assert counters(core) == (0, 0, 0)


def test_a_match_stands_in_one_item_with_its_confidence_and_reasons() -> None:
    engine, _ = run_offline([RULE], [invoice(), line(text="RE INV 100071", occurred_at=at(-DAY))], at(20 * MINUTE))

    (item,) = engine.items.values()
    assert (item.status, item.confidence) == ("matched", "0.931")
    assert item.reasons == [
        "the amounts are equal",
        "1 day apart",
        "INV100017 is INV100071 with two characters swapped",
    ]
    assert [side and [record.record for record in side.records] for side in item.sides.values()] == [["i1"], ["l1"]]


def test_records_that_part_stand_in_items_of_their_own_again() -> None:
    """An item gives a record up before another takes it, or the sink would see it twice."""
    voided = line(id="again", status="voided", received_at=at(DAY), occurred_at=at(DAY))
    engine, _ = run_offline([RULE], [invoice(), line(), voided], at(DAY))

    items = {item.key[-1]: item for item in engine.items.values()}
    assert (items["record:erp/i1"].status, items["record:erp/i1"].live) == ("pending", True)
    assert items["record:erp/i1"].sides["provider"] is None
    assert items["record:erp/i1"].confidence is None


def test_a_crowd_of_equal_records_ends_in_an_outcome_and_bounded_work() -> None:
    """Two hundred invoices and lines that nothing tells apart: every line names some, nobody is matched, nothing stalls."""
    events = [one for place in range(200) for one in (invoice(f"i{place}", refs={}), line(f"l{place}", None))]
    engine, _ = run_offline([RULE], events, at(DAY))

    raised = [one for one in engine.last_revisions() if one.state == "raised"]
    assert {one.type for one in raised} == {"AmbiguousMatch"}
    assert {one.key[-1] for one in raised} >= {f"record:bank/l{place}" for place in range(200)}
    assert all(one.reason and one.reason.count("erp record") <= 20 for one in raised)


def test_among_records_of_one_amount_references_tell() -> None:
    """However many there are: what a text names is found without looking at all of them."""
    start = datetime.fromisoformat(START.isoformat())
    events = []
    for place in range(300):
        when = (start + timedelta(seconds=place)).isoformat()
        number = f"INV{700_000 + 13 * place}"
        events += [
            invoice(f"i{place}", refs={"invoice": number}, received_at=when, occurred_at=when),
            line(f"l{299 - place}", f"INV{700_000 + 13 * (299 - place)}", received_at=when, occurred_at=when),
        ]
    engine, _ = run_offline([RULE], events, at(DAY))

    matched = [item for item in engine.items.values() if item.status == "matched"]
    pairs = {tuple(side.records[0].record[1:] for side in item.sides.values() if side) for item in matched}
    assert pairs == {(str(place), str(place)) for place in range(300)}

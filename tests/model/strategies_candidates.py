"""Small adversarial streams for `match` without a shared key: few amounts, few references, few times."""

from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from tests.model.match_model import Event, Rule
from tests.model.strategies import START, at
from tests.model.stream import Stream

RULE: Rule = {
    "name": "bank.invoices",
    "kind": "match",
    "sides": {
        "internal": {"source": "erp", "type": ["invoice.*"]},
        "provider": {"source": "bank", "type": ["entry.*"]},
    },
    "partition_by": ["currency", "account"],
    "score": {"reference": {"fields": ["refs.invoice", "attrs.text"]}},
    "decide_after": "10m",
    "deadline": "5d",
    "keep": "7d",
    "expire": "20d",
}
REFERENCES = [None, "INV100017", "INV100071", "INV100018", "INV204488", "INV731905"]
AMOUNTS = ["100.00", "100.00", "100.00", "99.00", "60.00", "40.00", "160.00", "-100.00"]
MINUTE, DAY = 60_000, 86_400_000
OFFSETS = [
    0,
    1,
    MINUTE,
    10 * MINUTE,
    10 * MINUTE + 1,
    20 * MINUTE,
    DAY,
    5 * DAY,
    5 * DAY + 1,
    6 * DAY,
    12 * DAY,
    21 * DAY,
]
STATUSES = [None, None, None, None, "booked", "voided", "pending"]


@st.composite
def scenarios(draw: st.DrawFn, *, forgets: bool = True) -> Stream:
    """Anything: corrections, voids, records that replace others, money without an account, adjustments.

    Unless it `forgets`, all is over before `keep` has passed: what comes again later is new.
    """
    pool = OFFSETS if forgets else [offset for offset in OFFSETS if offset < 7 * DAY]
    offsets = sorted(draw(st.lists(st.sampled_from(pool), min_size=1, max_size=9)))
    events = [draw(event(place, offset)) for place, offset in enumerate(offsets)]
    until = max(offsets[-1], draw(st.sampled_from([*pool, 60 * DAY] if forgets else pool)))
    return Stream(RULE, events, at(until))


@st.composite
def event(draw: st.DrawFn, place: int, offset: int) -> Event:
    is_line = draw(st.booleans())
    reference = draw(st.sampled_from(REFERENCES))
    received = START + timedelta(milliseconds=offset)
    made: dict[str, Any] = {
        "org": "acme",
        "source": "bank" if is_line else "erp",
        "type": "entry.booked" if is_line else "invoice.issued",
        "id": f"e{draw(st.sampled_from([place, place, place, place, 0]))}",
        "record": f"{'l' if is_line else 'i'}{draw(st.integers(1, 4))}",
        "received_at": at(offset),
        "occurred_at": (received - timedelta(days=draw(st.sampled_from([0, 0, 1, 3, 30])))).isoformat(),
        "amount": draw(st.sampled_from(AMOUNTS)),
        "currency": draw(st.sampled_from(["EUR", "EUR", "EUR", "USD"])),
        "account": draw(st.sampled_from(["main", "main", "main", "main", None])),
        "status": draw(st.sampled_from(STATUSES)),
        "refs": {"invoice": reference} if reference and not is_line else {},
        "attrs": {"text": reference} if reference and is_line else {},
        "supersedes": draw(st.sampled_from([None, None, None, None, None, "i1", "l1"])),
    }
    if not is_line and made["amount"].startswith("-"):
        made["amount"] = made["amount"][1:]
    if draw(st.integers(0, 9)) == 0:
        made |= {"type": "adjustment.found", "refs": {"discrepancy": draw(st.sampled_from(["d1", "d2"]))}}
    return {name: value for name, value in made.items() if value is not None}


@st.composite
def lawful_scenarios(draw: st.DrawFn) -> Stream:
    """One partition, one event per record, all received before the first decision, none of several that add up."""
    count = draw(st.integers(1, 7))
    events = []
    for place in range(count):
        one = draw(event(place, 0))
        one |= {
            "id": f"e{place}",
            "record": f"r{place}",
            "type": one["type"].replace(
                "adjustment.found", "entry.booked" if one["source"] == "bank" else "invoice.issued"
            ),
            "amount": draw(st.sampled_from(["100.00", "100.00", "99.00", "98.50"])),
            "currency": "EUR",
            "account": "main",
            "received_at": at(place),
        }
        one["occurred_at"] = (datetime.fromisoformat(one["occurred_at"]).replace(microsecond=0)).isoformat()
        one.pop("status", None)
        one.pop("supersedes", None)
        if "discrepancy" in one.get("refs", {}):
            one["refs"] = {}
        events.append(one)
    return Stream(RULE, events, at(draw(st.sampled_from([DAY, 12 * DAY]))))

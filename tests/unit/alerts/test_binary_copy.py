"""Rows of a pair are, byte for byte, those of the item that it stands for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.alerts.adapters.binary_copy import item_row, record_rows
from services.alerts.domain.settled import arrived
from shared.contracts.leg import Leg, encode_leg_record, group_key, keyless_group_key
from shared.contracts.matched_pair import PairWords, encode_pair, encode_words, read_item, read_told
from tests.support.results import item

WORDS = encode_words(PairWords("billing", ("internal", "provider")))
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
milliseconds = st.integers(-60_000_000_000_000, 250_000_000_000_000)
"""Years 69 to 9891."""


@given(
    group=st.lists(texts, min_size=1, max_size=3).map(lambda key: group_key("acme", "r", tuple(key)))
    | st.builds(keyless_group_key, texts, texts, texts, texts),
    names=st.lists(texts, min_size=4, max_size=4),
    times=st.lists(milliseconds, min_size=3, max_size=3),
    place=st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1)),
    amount=st.sampled_from(["12.50", "7", "-3.10"]),
    provider_first=st.booleans(),
    notes=st.tuples(st.booleans(), st.booleans()),
)
def test_rows_of_a_pair_are_those_of_its_item(group, names, times, place, amount, provider_first, notes) -> None:
    one, other, one_id, other_id = names
    legs = [
        Leg("g", 0, "ledger", one, one_id, times[0] * 1000 + 1, 0, 0, times[1], 0, None, amount, "EUR", None),
        Leg("g", 1, "stripe", other, other_id, times[1] * 1000, 0, 0, times[0], 0, None, amount, "EUR", "ok"),
    ]
    values = map(encode_leg_record, reversed(legs) if provider_first else legs)
    pair = encode_pair(WORDS, group, *place, times[2], *values)

    told, written = arrived(read_told(pair)), arrived(read_item(pair))

    last, fresh = notes
    assert told.item == written.item == written.told
    assert (told.id, told.group_id, told.records) == (written.id, written.group_id, written.records)
    assert item_row(told, last=last, fresh=fresh) == item_row(written, last=last, fresh=fresh)
    assert record_rows(told, told.records) == record_rows(written, written.records)


@pytest.mark.parametrize("id_", ["", "0123", "0123456789abcdef", "no uuid", "0" * 34])
def test_an_id_that_is_no_uuid_is_refused_and_not_filled_up(id_: str) -> None:
    with pytest.raises(ValueError, match=r"UUID|digit|string"):
        item_row(arrived(item(id=id_)), last=True, fresh=True)

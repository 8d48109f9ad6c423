"""The short form of a plain match, read, says exactly what the general way says."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.matcher.adapters.results import identify
from services.matcher.domain.compiled import pair_as_json
from services.matcher.domain.group import MATCHED, Group, record_of
from services.matcher.domain.revise import Moment, make_item
from shared.contracts.discrepancy import LogPosition
from shared.contracts.event import from_milliseconds
from shared.contracts.leg import Leg, Tick, encode_leg_record, group_key, read_group_key
from shared.contracts.matched_pair import PairWords, encode_pair, encode_words, is_printed, read_item
from shared.money import format_amount, parse_amount
from shared.rules.load import validate_rules
from shared.rules.match_rule import MatchRule, compile_match

WORDS = encode_words(PairWords("billing", ("internal", "provider")))

texts = st.text(min_size=1, max_size=12).filter(lambda text: not text.isspace())
micros = st.integers(0, 4_000_000_000_000_000) | st.integers(0, 4_000_000_000).map(lambda second: second * 1_000_000)


def rule(key: list[str]) -> MatchRule:
    sides = {"internal": {"source": "ledger", "type": "*"}, "provider": {"source": "stripe", "type": "*"}}
    given_rule = {"name": "billing.payments", "kind": "match", "sides": sides, "key": key}
    model = validate_rules({"version": 1, "pack": "billing", "rules": [given_rule]}).rules[0]
    return compile_match("acme", "billing", model)


@given(
    key=st.lists(texts, min_size=1, max_size=3),
    ids=st.tuples(texts, texts, texts, texts),
    times=st.tuples(micros, micros),
    statuses=st.tuples(texts | st.none(), texts | st.none()),
    amount=st.decimals(0, 10**9, places=2).map(str) | st.sampled_from(["7", "007.5", "0.12345", "-3.10", "1.5000"]),
    currency=st.sampled_from(["EUR", "JPY", "BHD", "BTC"]),
    offset=st.integers(0, 2**40),
    provider_first=st.booleans(),
)
def test_a_pair_says_what_the_general_way_says(
    key, ids, times, statuses, amount, currency, offset, provider_first
) -> None:
    compiled = rule([f"refs.k{n}" for n in range(len(key))])
    one_id, one_record, other_id, other_record = ids
    at = times[0] // 1000
    legs = [
        Leg("g", 0, "ledger", one_record, one_id, times[0], 0, 0, at, 0, None, amount, currency, statuses[0]),
        Leg("g", 1, "stripe", other_record, other_id, times[1], 0, 0, at, 0, None, amount, currency, statuses[1]),
    ]
    opener, settler = reversed(legs) if provider_first else legs
    # Words drawn here may be ones that do not count; pairs are made of records that do.
    counts = all(compiled.sides[0].is_live(status) for status in statuses)
    group = group_key("acme", "billing.payments", tuple(key))
    general = make_item(
        Group(compiled.generation, opener.id, at, at, at, [record_of(opener), record_of(settler)]),
        compiled,
        read_group_key(group),
        MATCHED,
        Moment(at, at, LogPosition(partition=3, offset=offset, time=from_milliseconds(at))),
    )

    value = encode_pair(WORDS, group, 3, offset, at, encode_leg_record(opener), encode_leg_record(settler))

    assert not counts or read_item(value) == general
    assert not counts or read_item(msgspec.json.encode(general)) == general
    assert identify(value) == identify(msgspec.json.encode(general))
    assert not counts or pair_as_json(value) in {None, msgspec.json.encode(general)}


@given(st.from_regex(r"\A-?[0-9]{1,6}(\.[0-9]{1,6})?\Z"), st.sampled_from(["EUR", "JPY", "BHD", "BTC"]))
def test_what_counts_as_printed_is_what_printing_gives(amount: str, currency: str) -> None:
    if is_printed(amount, currency):
        assert format_amount(parse_amount(amount), currency) == amount


TICK = encode_leg_record(Tick(0, 1, 5))
PAIR = encode_pair(WORDS, b'["acme","r","k"]', 0, 1, 2, TICK, TICK)


@pytest.mark.parametrize("value", [b"", b"\x01", b"\x02\x90", b"{}", PAIR, PAIR[:-3], b"\x01" + PAIR], ids=repr)
def test_what_is_no_item_is_told_so(value: bytes) -> None:
    """The sink sets it aside with its place instead of stopping."""
    assert pair_as_json(value) is None
    with pytest.raises(msgspec.MsgspecError):
        read_item(value)

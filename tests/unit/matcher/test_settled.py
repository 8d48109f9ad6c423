"""The fast way to write a plain match says exactly what the general way says."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from services.matcher.domain.group import MATCHED, Group, record_of
from services.matcher.domain.revise import Moment, make_item
from services.matcher.domain.settled import MatchWriter, RuleWords, is_printed, quote, time_text
from shared.contracts.discrepancy import LogPosition
from shared.contracts.event import from_microseconds, from_milliseconds
from shared.contracts.leg import Leg, group_key, read_group_key
from shared.money import format_amount, parse_amount
from shared.rules.load import validate_rules
from shared.rules.match_rule import MatchRule, compile_match

texts = st.text(min_size=1, max_size=12).filter(lambda text: not text.isspace())
micros = st.integers(0, 4_000_000_000_000_000) | st.integers(0, 4_000_000_000).map(lambda second: second * 1_000_000)


def rule(key: list[str]) -> MatchRule:
    sides = {"internal": {"source": "ledger", "type": "*"}, "provider": {"source": "stripe", "type": "*"}}
    given_rule = {"name": "billing.payments", "kind": "match", "sides": sides, "key": key}
    model = validate_rules({"version": 1, "pack": "billing", "rules": [given_rule]}).rules[0]
    return compile_match("acme", "billing", model)


@given(
    key=st.lists(texts, min_size=1, max_size=3),
    ids=st.tuples(texts, texts, texts, texts, texts),
    times=st.tuples(micros, micros),
    statuses=st.tuples(texts | st.none(), texts | st.none()),
    amount=st.decimals(0, 10**9, places=2).map(str),
    offset=st.integers(0, 2**40),
)
def test_fast_item_equals_general_item(key, ids, times, statuses, amount, offset) -> None:
    compiled = rule([f"refs.k{n}" for n in range(len(key))])
    opener, one_id, one_record, other_id, other_record = ids
    one = Leg("g", 0, "ledger", one_record, one_id, times[0], 0, 0, 0, 0, None, amount, "EUR", statuses[0])
    other = Leg("g", 1, "stripe", other_record, other_id, times[1], 0, 0, 0, 0, None, amount, "EUR", statuses[1])
    group = group_key("acme", "billing.payments", tuple(key))
    at = times[0] // 1000
    log = LogPosition(partition=3, offset=offset, time=from_milliseconds(at))
    slow = make_item(
        Group(compiled.generation, opener, at, at, at, [record_of(one), record_of(other)]),
        compiled,
        read_group_key(group),
        MATCHED,
        Moment(at, at, log),
    )
    fast = MatchWriter(3).write(RuleWords(compiled), group, opener, one, other, at, offset, at)
    live = msgspec.json.decode(bytes(fast))
    expected = msgspec.json.decode(msgspec.json.encode(slow))
    # Statuses drawn here may be words that do not count; the fast way is taken only for records that do.
    if all(compiled.sides[0].is_live(status) for status in statuses):
        assert live == expected
        assert bytes(fast) == msgspec.json.encode(slow)


@given(micros)
def test_times_are_printed_as_msgspec_prints_them(time: int) -> None:
    assert f'"{time_text(time)}"'.encode() == msgspec.json.encode(from_microseconds(time))


@given(st.text())
def test_texts_are_quoted_as_msgspec_quotes_them(text: str) -> None:
    assert quote(text).encode() == msgspec.json.encode(text)


@given(st.from_regex(r"\A-?[0-9]{1,6}(\.[0-9]{1,6})?\Z"), st.sampled_from(["EUR", "JPY", "BHD", "BTC"]))
def test_what_counts_as_printed_is_what_printing_gives(amount: str, currency: str) -> None:
    if is_printed(amount, currency):
        assert format_amount(parse_amount(amount), currency) == amount

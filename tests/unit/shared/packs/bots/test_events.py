"""What bots write, as events: exact numbers, times, ids that stay, and clear words for what is unreadable."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.money import AmountError, parse_amount
from shared.packs.bots.events import (
    Exchange,
    InputRead,
    Unreadable,
    fills_event,
    input_event,
    line_event,
    number_text,
    read_exchange,
    read_json,
    snapshot_event,
    time_of,
)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def snapshot(raw: str, **more: Any) -> Any:
    return snapshot_event("bot1", read_json(raw.encode(), "the snapshot"), read_at=NOW, **more)


def line(raw: str, bot: str | None = "bot1", offset: int = 0) -> Any:
    return line_event(raw.encode(), bot=bot, file="f", offset=offset, read_at=NOW, exchanges={})


def test_numbers_keep_their_text_and_what_is_none_goes_on_as_it_is() -> None:
    event = snapshot(
        '{"ts": "2026-11-20T11:00:00+01:00", "equity_quote": 0.1000000000000000055, "base_pct": 1e-05, '
        '"target_base_pct": NaN, "fees_paid": "n/a", "turnover": null, "anything": [1]}'
    )
    assert event.attrs == {
        "equity_quote": "0.1000000000000000055",
        "base_pct": "0.00001",
        "target_base_pct": "NaN",
        "fees_paid": "n/a",
    }
    assert event.occurred_at == datetime(2026, 11, 20, 10, tzinfo=UTC)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=12, min_value=-(10**12), max_value=10**12))
def test_a_decimal_is_the_same_number_however_it_is_written(number: Any) -> None:
    for text in (str(number), format(number, "e"), format(number, "f")):
        assert number_text(text) is not None
        assert number_text(number_text(text)) == number_text(text)
        assert type(number)(number_text(text) or "") == number


@pytest.mark.parametrize("value", ["1e400", "Infinity", "-inf", "nan", True, "0x1", {"a": 1}, "1,5"])
def test_what_is_no_number_never_becomes_one(value: Any) -> None:
    with pytest.raises(AmountError):
        parse_amount(number_text(value) or "")


def test_the_exchange_counts_where_its_probe_was_ok() -> None:
    at = datetime(2026, 11, 20, 11, tzinfo=UTC)
    ok = snapshot('{"ts": "2026-11-20T10:00:00Z"}', exchange=Exchange("ok", "0.4", at))
    paper = snapshot('{"ts": "2026-11-20T10:00:00Z"}', exchange=Exchange("paper_only", "0.4", at))
    assert (ok.attrs, paper.attrs) == ({"external_base_pct": "0.4"}, {})
    assert ok.id != paper.id


def test_of_two_snapshots_of_one_time_the_one_read_later_is_newer() -> None:
    raw = '{"ts": "2026-11-20T10:00:00Z", "fees_paid": 1}'
    assert snapshot(raw) == snapshot(raw)
    said = read_json(raw.encode(), "the snapshot")
    later = snapshot_event("bot1", said, read_at=NOW + timedelta(milliseconds=1))
    assert later.occurred_at == snapshot(raw).occurred_at
    assert (later.sequence or 0) > (snapshot(raw).sequence or 0)


def test_a_snapshot_without_a_time_is_as_old_as_its_file() -> None:
    assert snapshot("{}", written_at=NOW - timedelta(hours=1)).occurred_at == NOW - timedelta(hours=1)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("", "is empty"),
        ('{"ts": "2026-11-20T10:00:00Z", "equ', "is not valid JSON"),
        ("[1]", "is no JSON object"),
        ('{"ts": "yesterday"}', "is no time"),
        ('{"ts": true}', "is no time"),
        ('{"ts": "2036-01-01T00:00:00Z"}', "ahead of now"),
    ],
)
def test_an_unreadable_snapshot_says_why(raw: str, words: str) -> None:
    with pytest.raises(Unreadable, match=words):
        snapshot(raw)


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-20T10:00:00Z",
        "2026-11-20T11:00:00+01:00",
        "2026-11-20 10:00:00",
        1795168800,
        "1795168800.0",
        1795168800000,
        1795168800000000,
        1795168800000000000,
    ],
)
def test_times_are_understood_in_the_units_that_bots_write(value: Any) -> None:
    assert time_of(value) == datetime(2026, 11, 20, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "raw",
    [
        '{"type": "order_filled", "ts": "2026-11-20T10:00:00Z"}',
        '{"event_type": "order_filled", "timestamp": 1795168800}',
        '{"event": "order_filled", "payload": {"ts": "2026-11-20T10:00:00Z"}}',
        '{"type": "order_filled", "ts": "2026-11-20T10:00:00Z", "price": NaN}',
    ],
)
def test_a_fill_is_understood_in_the_forms_that_event_stores_have(raw: str) -> None:
    event = line(raw, offset=7)
    assert (event.type, event.account, event.id) == ("order_filled", "bot1", "f-7")
    assert event.occurred_at == datetime(2026, 11, 20, 10, tzinfo=UTC)


def test_a_line_of_a_shared_store_names_its_bot() -> None:
    assert line('{"type": "order_filled", "instance_name": "bot7"}', bot=None).account == "bot7"
    assert line('{"type": "order_filled", "data": {"bot": "bot8"}}', bot=None).account == "bot8"
    with pytest.raises(Unreadable, match="names no bot"):
        line('{"type": "order_filled"}', bot=None)


def test_a_fill_is_never_later_than_it_was_read() -> None:
    assert line('{"type": "order_filled", "ts": "2036-01-01T00:00:00Z"}').occurred_at == NOW
    assert line('{"type": "order_filled"}').occurred_at == NOW


def test_other_events_are_left_alone_and_a_line_without_a_type_is_told() -> None:
    assert line('{"type": "order_cancelled"}') is None
    for raw in ("garbage", '{"ts": 1}', '["order_filled"]', '{"type": "order_fi'):
        with pytest.raises(Unreadable):
            line(raw)


def test_a_snapshot_may_come_as_an_event() -> None:
    event = line('{"type": "snapshot", "ts": "2026-11-20T10:00:00Z", "payload": {"equity_quote": 1.10}}', offset=9)
    assert (event.type, event.attrs, event.sequence) == ("snapshot.state", {"equity_quote": "1.10"}, 9)


def test_counts_and_reading_problems_are_events() -> None:
    fills, read = fills_event("bot1", 12, read_at=NOW), input_event("bot1", InputRead(lines_unreadable=2), read_at=NOW)
    assert (fills.source, fills.type, fills.amount, fills.currency) == ("fills", "balance.fills", "12", None)
    assert (read.type, read.attrs["lines_unreadable"], read.attrs["snapshots"]) == ("snapshot.input", "2", "1")


def test_an_exchange_snapshot_says_how_each_probe_went() -> None:
    raw = b'{"ts": "2026-11-20T10:00:00Z", "bots": {"a": {"account_probe_status": "ok", "base_pct": 0.5}, "b": {"account_probe_status": "disabled"}}}'
    found = read_exchange(raw)
    assert found["a"] == Exchange("ok", "0.5", datetime(2026, 11, 20, 10, tzinfo=UTC))
    assert (found["b"].status, found["b"].base_pct) == ("disabled", None)


@pytest.mark.parametrize("raw", [b"", b'{"bots": {"a"', b"{}", b'{"bots": []}', b'{"bots": {"a": 1}}'])
def test_an_exchange_snapshot_of_another_form_is_unreadable(raw: bytes) -> None:
    with pytest.raises(Unreadable):
        read_exchange(raw)

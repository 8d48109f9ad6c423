"""What a producer may post, and what each refusal says."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.contracts import event as event_module
from shared.contracts.event import (
    EventRefused,
    PostedEvent,
    accept,
    checked,
    convert_posted,
    decode_posted,
    from_microseconds,
    from_milliseconds,
    microseconds,
    milliseconds,
)
from shared.ids import event_id

RECEIVED = datetime(2026, 11, 20, 10, tzinfo=UTC)
PLAIN: dict[str, Any] = {
    "source": "ledger", "type": "payment.succeeded", "id": "evt_1", "occurred_at": "2026-11-20T09:59:59.123456+00:00",
    "amount": "120.50", "currency": "EUR",
}  # fmt: skip


def take(**changes: Any) -> Any:
    body = {name: value for name, value in (PLAIN | changes).items() if value is not ...}
    return accept(decode_posted(json.dumps(body)), org="acme", received_at=RECEIVED)


def refusal(**changes: Any) -> EventRefused:
    with pytest.raises(EventRefused) as caught:
        take(**changes)
    return caught.value


def test_what_is_left_out_is_filled_in() -> None:
    """The record is the event itself, the org the key's, the receipt the inbox's."""
    event = take()

    assert (event.org, event.record, event.sequence, event.received_at) == ("acme", "evt_1", 0, RECEIVED)
    assert event.uuid == event_id("acme", "ledger", "evt_1")
    assert (event.refs, event.attrs, event.status, event.supersedes) == ({}, {}, None, None)


def test_times_are_kept_to_the_microsecond_and_in_utc() -> None:
    """Whatever zone they were written in."""
    assert take(occurred_at="2026-11-20T11:00:00.000001+02:00").occurred_at == datetime(
        2026, 11, 20, 9, 0, 0, 1, tzinfo=UTC
    )


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"amount": 120.5}, "amount", ["decimal string", '"120.50"']),
        ({"amount": "1e3"}, "amount", ["decimal string"]),
        ({"amount": "-1"}, "amount", ["negative", "payment.succeeded", "adjustment.*"]),
        ({"amount": "1" * 30 + "." + "1" * 18}, "amount", ["38 digits"]),
        ({"currency": "EURO"}, "currency", ["'EURO'", "ISO 4217"]),
        ({"currency": "eur"}, "currency", ["currency"]),
        ({"occurred_at": "2026-11-20T10:00:00"}, "occurred_at", ["RFC 3339 with a zone"]),
        ({"occurred_at": "2099-01-01T00:00:00Z"}, "occurred_at", ["2099", "10 minutes", "clock"]),
        ({"occurred_at": "0001-01-01T00:00:00+01:00"}, "occurred_at", ["0001", "in UTC"]),
        ({"occurred_at": "9999-12-31T23:59:59-01:00"}, "occurred_at", ["9999", "in UTC"]),
        ({"received_at": "9999-12-31T23:59:59-01:00"}, "received_at", ["9999", "in UTC"]),
        ({"org": "globex"}, "org", ["'globex'", "'acme'"]),
        ({"type": "Payment"}, "type", ["type"]),
        ({"id": ""}, "id", ["id"]),
        ({"id": "x" * 256}, "id", ["255"]),
        ({"sequence": -1}, "sequence", ["sequence"]),
        ({"sequence": "1"}, "sequence", ["sequence"]),
        ({"source": "a b"}, "source", ["source"]),
        ({"refs": {"n": 1}}, "refs[...]", ["refs"]),
        ({"attrs": {"n": "x" * 1025}}, "attrs[...]", ["1024"]),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_refusal_names_the_field_and_what_to_write(changes: dict[str, Any], field: str, words: list[str]) -> None:
    """A producer mends it without asking."""
    error = refusal(**changes)

    assert error.field == field
    for word in words:
        assert word in str(error)


def test_unknown_fields_are_refused_by_name() -> None:
    """With the place where they belong."""
    error = refusal(colour="red")

    assert "colour" in str(error)
    assert "attrs" in str(error)


@pytest.mark.parametrize("missing", ["source", "type", "id", "occurred_at"])
def test_a_missing_field_is_named(missing: str) -> None:
    """Everything else has a default."""
    assert missing in str(refusal(**{missing: ...}))


@pytest.mark.parametrize("type_", ["entry.posted", "movement.in", "adjustment.fee", "balance.read"])
def test_types_that_carry_a_direction_in_the_amount_may_be_negative(type_: str) -> None:
    """All others say the direction by their type."""
    assert take(type=type_, amount="-5.00").amount == "-5.00"


def test_a_clock_that_is_ten_minutes_ahead_is_borne() -> None:
    """One microsecond more is not."""
    limit = RECEIVED + timedelta(minutes=10)

    assert take(occurred_at=limit.isoformat()).occurred_at == limit
    assert refusal(occurred_at=(limit + timedelta(microseconds=1)).isoformat()).field == "occurred_at"


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'"text"', b"\xff", b"null"])
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    """And never a traceback."""
    with pytest.raises(EventRefused):
        decode_posted(raw)


def test_parsed_json_is_read_like_text() -> None:
    """Strictly: no string is taken for a number."""
    assert convert_posted(PLAIN) == decode_posted(json.dumps(PLAIN))
    with pytest.raises(EventRefused, match="sequence"):
        convert_posted(PLAIN | {"sequence": "3"})


def test_times_convert_both_ways() -> None:
    """Milliseconds round down, so log time is never ahead."""
    time = datetime(2026, 11, 20, 10, 0, 0, 999_999, tzinfo=UTC)

    assert from_microseconds(microseconds(time)) == time
    assert from_milliseconds(milliseconds(time)) == time.replace(microsecond=999_000)


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"amount": "10,50"}, 'write the amount in the major unit, e.g. "120.50"'),
        ({"currency": "eur"}, 'write it in capitals, e.g. "EUR"'),
        ({"type": "Payment"}, "write lower case words joined by dots"),
        ({"source": "my ledger"}, "use letters, digits"),
    ],
)
def test_a_wrong_form_is_refused_in_words_and_not_by_its_pattern(change: dict[str, Any], advice: str):
    refused = refusal(**change)
    assert advice in str(refused)
    assert "regex" not in str(refused)
    assert refused.field == next(iter(change))


@pytest.mark.parametrize("field", ["source", "type", "currency", "amount", "org"])
def test_a_line_end_is_no_part_of_a_name(field: str) -> None:
    """A pattern with `$` would let it through, into topic names and keys."""
    assert refusal(**{field: str(PLAIN.get(field, "acme")) + "\n"}).field == field


def test_names_that_were_refused_once_are_refused_again() -> None:
    """What is remembered of names is only that they were good."""
    for _ in range(2):
        assert refusal(source="no name").field == "source"
        assert refusal(source="ledger", currency="eur").field == "currency"


def test_what_is_remembered_of_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Producers choose types: they must not fill the memory."""
    monkeypatch.setattr(event_module, "FORMS_REMEMBERED_MAX", 3)
    monkeypatch.setattr(event_module, "_remembered", set())
    for number in range(10):
        take(type=f"payment.kind_{number}")
    assert len(event_module._remembered) <= 3
    assert refusal(type="no type").field == "type"


def _texts(*lengths: int) -> st.SearchStrategy[str]:
    """Texts at the limits, and names in a wrong form."""
    return st.sampled_from([*("a" * length for length in lengths), "A_B.c", "no name", "ü" * 70])


BUILT: dict[str, st.SearchStrategy[Any]] = {
    "source": _texts(0, 1, 64, 65),
    "type": st.one_of(_texts(2, 3, 64, 65), st.just("payment.succeeded")),
    "id": _texts(0, 1, 255, 256),
    "occurred_at": st.just(RECEIVED),
    "org": st.none() | _texts(0, 64, 65),
    "record": st.none() | _texts(0, 255, 256),
    "sequence": st.none() | st.sampled_from([-1, 0, 2**63 - 1, 2**63]),
    "supersedes": st.none() | _texts(0, 255, 256),
    "amount": st.none() | st.sampled_from(["120.50", "-1", "1e3", "", "9" * 38 + "." + "9" * 18, "0" * 59]),
    "currency": st.none() | st.sampled_from(["EUR", "eur", "EU", "E" * 8, "E" * 9]),
    "status": st.none() | _texts(0, 255, 256),
    "account": st.none() | _texts(0, 255, 256),
    "refs": st.dictionaries(_texts(0, 300), _texts(0, 1024, 1025), max_size=3),
    "attrs": st.sampled_from([{}, {str(n): "" for n in range(64)}, {str(n): "" for n in range(65)}]),
}
GOOD = {"source": "stripe", "type": "payment.succeeded", "id": "e", "occurred_at": RECEIVED}


def _said(make: Callable[[], PostedEvent]) -> PostedEvent | tuple[str | None, str]:
    try:
        return make()
    except EventRefused as refused:
        return refused.field, str(refused)


@settings(deadline=None)
@given(st.fixed_dictionaries(BUILT), st.sets(st.sampled_from(sorted(BUILT)), max_size=2))
def test_what_a_mapping_built_is_held_to_the_contract_of_what_is_posted(fields: dict[str, Any], odd: set[str]) -> None:
    """The short way and the way of posted events say the same of every event, in the same words."""
    said = GOOD | {name: fields[name] for name in odd}
    # Of two breaches the first is named, in the order in which the fields stand.
    row = {name: said[name] for name in PostedEvent.__struct_fields__ if name in said}
    assert _said(lambda: checked(PostedEvent(**row))) == _said(lambda: convert_posted(row))

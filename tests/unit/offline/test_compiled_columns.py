"""Lines that C reads into columns are the rows that Python makes of them, to the byte; what it leaves, Python reads."""

import json
import tempfile
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.unit.offline.test_ahead import RULE_SETS, a_line, events, one_event, packs_of, rule
from tieout.bench.replay import _lines as bench_lines
from tieout.offline.columns import BUILT, FIRST, LEGS, SPOILS, Block, ColumnReader, Columns

if not BUILT:
    warnings.warn("NOT CHECKED: reading in C is not built here, for want of a C compiler (`make native`)", stacklevel=1)
pytestmark = pytest.mark.skipif(not BUILT, reason="reading in C is not built: `make native` needs a C compiler")

LAWS = settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], max_examples=150, deadline=None
)
PLAIN = {
    "source": "ledger",
    "type": "payment.made",
    "id": "ledger-1",
    "occurred_at": "2026-03-06T22:00:00Z",
    "amount": "10.00",
    "currency": "EUR",
    "status": "succeeded",
    "account": "a",
    "refs": {"p": "k1", "q": "k2"},
}
KNOWN = [
    PLAIN,
    {**PLAIN, "source": "stripe"},
    {**PLAIN, "type": "refund.made"},
    {**PLAIN, "type": "other.kind"},
    {key: value for key, value in PLAIN.items() if key != "status"},
    {**PLAIN, "status": "", "org": "acme"},
    {**PLAIN, "status": "paid"},
    {key: value for key, value in PLAIN.items() if key not in {"amount", "currency"}} | {"type": "other.kind"},
]
"""One event of each combination of names that the readers have looked at before."""


def rows(columns: Columns) -> tuple[Any, ...]:
    """What can be told of columns; legs stand in no order, and what spoils a group stands on no line."""
    legs = columns.legs.copy()
    spoils = legs["side"] == SPOILS
    for name in LEGS.names or ():
        if name not in {"group", "side"}:
            legs[name][spoils] = 0
    told = [leg.tobytes() for leg in legs]
    return columns.lines_in_all, columns.lines.tolist(), sorted(told), columns.keyless.tolist(), columns.told.tolist()


def read(raw: bytes, rules: str = "plain", begin: bytes = b"") -> tuple[Columns, Columns, int]:
    """What C with Python, and Python alone, make of a block behind `begin`; and how many lines C left."""
    left = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        known = b"".join(json.dumps(one).encode() + b"\n" for one in KNOWN)
        path.write_bytes(known + begin + raw)
        found = []
        for compiled in (True, False):
            reader = ColumnReader(packs_of(RULE_SETS[rules]), "acme", compiled=compiled)
            reader.read(Block(path, 0, len(known)))
            if reader._scanner is not None:
                left = len(reader._scanner.scan(raw, 0).rest)
            found.append(reader.read(Block(path, len(known) + len(begin), len(known) + len(begin) + len(raw))))
    return found[0], found[1], left


def assert_same(raw: bytes, rules: str = "plain") -> int:
    """Return how many lines C left."""
    compiled, python, left = read(raw, rules)
    assert rows(compiled) == rows(python)
    return left


# ---- every way in which a line may be written

NAMES = ["source", "type", "id", "occurred_at", "org", "record", "sequence", "supersedes", "amount", "currency"]
FIELDS = [*NAMES, "status", "account", "refs", "attrs", "received_at", "unknown", "", "refs\\u0020"]
TIMES = [
    "2026-03-06T22:00:00+00:00",
    "2026-03-06T22:00:00.1Z",
    "2026-03-06T22:00:00.123456-05:30",
    "2026-03-06T22:00:00.1234567Z",
    "2026-03-06T22:00:00.Z",
    "2026-03-06T22:00:00",
    "2026-03-06t22:00:00z",
    "2026-03-06 22:00:00Z",
    "2026-03-06T22:00Z",
    "2026-02-29T22:00:00Z",
    "2024-02-29T22:00:00Z",
    "2100-02-29T22:00:00Z",
    "2026-13-01T22:00:00Z",
    "2026-12-31T23:59:60Z",
    "2026-12-31T24:00:00Z",
    "2026-03-06T22:00:00+24:00",
    "2026-03-06T22:00:00+23:59",
    "2026-03-06T22:00:00+0100",
    "2026-03-06T22:00:00-00:00",
    "1970-01-01T00:00:00+00:01",
    "1969-12-31T23:59:59Z",
    "0001-01-01T00:00:00+01:00",
    "9998-12-31T23:59:59Z",
    "9999-12-31T23:59:59-01:00",
    "1767225600",
    "",
]
TEXTS = ["x", "", " ", "  ", "é", "\u2028", "\U0001f600", "a\tb", 'a"b', "a\\b", "\x7f", "\x00", "\x1f", "x" * 255, "é" * 255, "x" * 256, "x" * 1024, "é" * 1025, "succeeded", "k1", "\ud800"]  # fmt: skip
AMOUNTS = ["1", "1.5", "0" * 18, "1" * 19, "1." + "2" * 18, "1." + "2" * 19, "-1", "1.", ".5", "", "1e3", "+1", " 1", "\u0661"]  # fmt: skip
RAW = ["1", "0", "01", "-1", "1.0", "1e2", str(2**63 - 1), str(2**63), "9" * 18, "9" * 40, "null", "nul", "nullx", "true", "[]", "{}", '{"a":{}}', '""', '"\\ud83d\\ude00"', '"\\ud800"', '"\\u00e9"', '"\\u0030"', '"\\x"', '"\\u12"', '"\\/"']  # fmt: skip


def dumped(value: Any) -> st.SearchStrategy[str]:
    return st.booleans().map(lambda ascii_: json.dumps(value, ensure_ascii=ascii_))


entries = st.dictionaries(
    st.sampled_from(["p", "q", "p ", "é", "", "discrepancy", "x"]), st.sampled_from(TEXTS), max_size=4
)
space = st.sampled_from([""] * 12 + [" ", "  ", "\t", "\r", "\x0b", "\xa0"])


@st.composite
def value_of(draw: st.DrawFn, field: str) -> str:
    """What stands behind a field, as it is written."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.sampled_from(RAW))
    if field in {"refs", "attrs"}:
        return draw(dumped(draw(entries)))
    if field in {"occurred_at", "received_at"}:
        return draw(dumped(draw(st.sampled_from(TIMES))))
    if field == "amount":
        return draw(dumped(draw(st.sampled_from(AMOUNTS))))
    if field == "sequence":
        return draw(st.sampled_from(RAW))
    return draw(dumped(draw(st.sampled_from(TEXTS))))


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """An event that C may know, with some fields changed, added, doubled or left out, in any order and with spaces."""
    event = [(field, json.dumps(value)) for field, value in draw(st.sampled_from(KNOWN)).items()]
    for field in draw(st.lists(st.sampled_from(FIELDS), max_size=draw(st.sampled_from([0, 1, 1, 2, 4])))):
        value = draw(value_of(field))
        kept = event if draw(st.integers(0, 5)) == 0 else [one for one in event if one[0] != field]
        event = [*kept, *([] if draw(st.integers(0, 9)) == 0 else [(field, value)])]
    if draw(st.booleans()):
        event = draw(st.permutations(event))
    parts = [f"{draw(space)}{json.dumps(name)}{draw(space)}:{draw(space)}{value}{draw(space)}" for name, value in event]
    text = f"{draw(space)}{{{','.join(parts)}}}{draw(space)}"
    return text.encode("utf-8", "surrogatepass")


def every_value() -> list[str]:
    texts = [json.dumps(text, ensure_ascii=ascii_) for text in [*TEXTS, *TIMES, *AMOUNTS] for ascii_ in (True, False)]
    around = [json.dumps("x" * size) for size in (2, 3, 8, 9, 63, 64, 65, 254, 255, 256, 1023, 1024, 1025)]
    entries = [f'{{"p":{text}}}' for text in texts + around] + [f'{{"p":"k1","é":{text}}}' for text in texts + around]
    return [
        *RAW,
        *texts,
        *around,
        *entries,
        '{"p":"a","p":"b"}',
        '{"q":"a","q":"b"}',
        '{"p" :"a" , "q": "b" }',
        '{"p":1}',
    ]


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("rules", ["plain", "two fields, business days", "by record", "statuses and severities"])
def test_every_field_may_say_anything_and_is_the_same_rows(field: str, rules: str) -> None:
    """In place of what it says in an event that is plain; and before and after it, where the last one counts."""
    lines = []
    for known in (KNOWN[0], KNOWN[-1]):
        others = [f"{json.dumps(name)}:{json.dumps(value)}" for name, value in known.items() if name != field]
        lines += [",".join([*others, f'"{field}":{value}']) for value in every_value()]
        lines.append(",".join(others))
        itself = f'"{field}":{json.dumps(known.get(field, "k1"))}'
        lines += [",".join([*others, itself, f'"{field}":{value}']) for value in every_value()]
        lines += [",".join([*others, f'"{field}":{value}', itself]) for value in every_value()]
    assert_same("".join(f"{{{line}}}\n" for line in lines).encode("utf-8", "surrogatepass"), rules)


@LAWS
@given(
    st.lists(written() | a_line() | events().map(lambda event: json.dumps(event).encode()), min_size=1, max_size=8),
    st.sampled_from(sorted(set(RULE_SETS) - {"a feed"})),
    st.sampled_from([b"\n", b"\n", b""]),
)
def test_a_block_is_the_same_rows_whoever_reads_its_lines(lines: list[bytes], rules: str, end: bytes) -> None:
    assert_same(b"\n".join(lines) + end or b"\n", rules)


@LAWS
@given(written(), st.data())
def test_a_line_with_some_of_its_bytes_changed_is_the_same_rows(line: bytes, data: st.DataObject) -> None:
    changed = bytearray(line)
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(changed) - 1))
        match data.draw(st.sampled_from(["cut", "add", "turn"])):
            case "cut":
                del changed[at : at + data.draw(st.integers(1, 3))]
                changed += b" "
            case "add":
                changed[at:at] = data.draw(
                    st.sampled_from([b'"', b"\\", b",", b"{", b"}", b"\n", b"\xe9", b"\x00", b":"])
                )
            case "turn":
                changed[at] = data.draw(st.integers(0, 255))
    assert_same(one_event("ledger", 1) + bytes(changed) + b"\n" + one_event("stripe", 2))


@settings(max_examples=300, deadline=None)
@given(
    st.datetimes(datetime(1969, 12, 31), datetime(9999, 12, 30)),  # noqa: DTZ001 - a zone is drawn beside it
    st.sampled_from(["Z", "+00:00", "-00:00", "+14:00", "-23:59", "+05:45"]),
)
@example(datetime(2000, 2, 29, 23, 59, 59, 999_999), "Z")  # noqa: DTZ001 - as above
@example(datetime(1970, 1, 1), "+00:00")  # noqa: DTZ001 - as above
def test_every_time_is_the_same(time: datetime, zone: str) -> None:
    assert_same(json.dumps({**PLAIN, "occurred_at": time.isoformat() + zone}).encode() + b"\n")


@given(
    st.integers(-700, 700).map(lambda seconds: seconds * 1_000_000 + 1) | st.sampled_from([-600_000_000, 600_000_000])
)
def test_a_receipt_before_or_after_the_event_is_the_same(microseconds: int) -> None:
    """More than ten minutes before is a wrong date, and for the core."""
    received = datetime(2026, 3, 6, 22, tzinfo=UTC) + timedelta(microseconds=microseconds)
    assert_same(json.dumps({**PLAIN, "received_at": received.isoformat()}).encode() + b"\n")


@pytest.mark.parametrize("count", [63, 64, 65])
def test_as_many_entries_as_an_event_may_have_and_one_more(count: int) -> None:
    attrs = {str(number): "" for number in range(count)}
    assert assert_same(json.dumps({**PLAIN, "attrs": attrs}).encode() + b"\n") == (count > 64)


@pytest.mark.parametrize("size", [19_000, 21_000, 1_000_000, 1_000_001])
def test_long_lines_are_the_same(size: int) -> None:
    line = json.dumps(PLAIN).encode()
    assert_same(line + b" " * (size - len(line)) + b"\n" + line + b"\n")


def test_more_names_than_c_looks_for_are_the_same() -> None:
    """And what they say, in either half."""
    lines = [json.dumps({**PLAIN, "status": f"s{number % 200}"}).encode() + b"\n" for number in range(1_000)]
    raw = b"".join(lines)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        path.write_bytes(raw)
        half = sum(map(len, lines[:500]))
        found = []
        for compiled in (True, False):
            reader = ColumnReader(packs_of(RULE_SETS["statuses and severities"]), "acme", compiled=compiled)
            found.append([rows(reader.read(Block(path, *place))) for place in ((0, half), (half, len(raw)))])
    assert found[0] == found[1]


def test_keys_of_more_fields_than_c_holds_are_left_to_python() -> None:
    keyed = [rule(name=f"test.r{number}", key=[f"refs.k{number}", f"attrs.k{number}"]) for number in range(17)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        path.write_bytes(one_event("ledger", 1, refs={"k0": "a"}, attrs={"k0": "b"}))
        readers = [ColumnReader(packs_of(keyed), "acme", compiled=compiled) for compiled in (True, False)]
        found = [rows(reader.read(Block(path, 0, path.stat().st_size))) for reader in readers for _ in range(2)]
    assert found == [found[0]] * 4


def test_lines_that_tell_no_time_have_that_of_the_event_before_them() -> None:
    raw = b"{broken\n" + one_event("ledger", 1) + b"\n{broken\n" + one_event("ledger", 2, supersedes="x") + b"[]\n"
    compiled, python, left = read(raw)
    assert left == 5
    assert rows(compiled) == rows(python)
    at = compiled.lines["at"]
    assert at[0] == FIRST
    assert at[1] == at[2] < at[3] == at[4]
    assert compiled.lines["number"].tolist() == [0, 1, 3, 4, 5]


def test_nearly_all_lines_of_plain_files_are_read_in_c() -> None:
    """Else the tests above would hold Python against itself."""
    raw = b"".join(
        line.encode().replace(b'"payment_id"', b'"p"') for line, is_internal in bench_lines(500) if is_internal
    ).replace(b'"payment.succeeded"', b'"payment.made"')
    assert assert_same(raw) == 0
    compiled, _, _ = read(raw)
    assert len(compiled.legs) == raw.count(b"\n")
    assert np.unique(compiled.legs["group"]).size == len(compiled.legs)

"""Rows of tables to events: one test per option of the mapping."""

from collections import Counter
from typing import Any

import pytest
import yaml

from services.ingest.domain.formats.csv_mapping import parse_mapping
from services.ingest.domain.formats.mapped_csv import CsvFormat
from services.ingest.domain.formats.rows import FileUnreadable, RowError
from shared.contracts.event import PostedEvent
from tests.unit.ingest.formats.test_csv_mapping import GOOD


class Counted:
    def __init__(self) -> None:
        self._seen: Counter[bytes] = Counter()

    def next(self, digest: bytes) -> int:
        self._seen[digest] += 1
        return self._seen[digest]


def outcomes(text: str | bytes, **changes: Any) -> list[tuple[int, PostedEvent | str]]:
    mapping = parse_mapping(yaml.safe_dump({k: v for k, v in {**GOOD, **changes}.items() if v is not ...}), "m.yaml")
    raw = text if isinstance(text, bytes) else text.encode()
    rows = CsvFormat(mapping, Counted).read([raw], "bank.csv")
    return [(row.line, row.outcome.reason if isinstance(row.outcome, RowError) else row.outcome[0]) for row in rows]


def event(text: str, **changes: Any) -> PostedEvent:
    ((_, one),) = outcomes(text, **changes)
    assert isinstance(one, PostedEvent), one
    return one


def error(text: str, **changes: Any) -> str:
    ((_, one),) = outcomes(text, **changes)
    assert isinstance(one, str), one
    return one


def one_row(**cells: str) -> str:
    given = {"Ref": "r1", "Date": "20.11.2026", "Amount": "12,50", **cells}
    return ",".join(given) + "\n" + ",".join(f'"{cell}"' for cell in given.values()) + "\n"


def test_a_row_becomes_an_event():
    one = event(one_row())

    assert (one.source, one.type, one.id, one.record) == ("bank", "movement.booked", "r1", None)
    assert one.occurred_at.isoformat() == "2026-11-19T23:00:00+00:00"
    assert (one.amount, one.currency) == ("12.50", "EUR")


def test_broken_rows_are_named_and_the_rest_goes_on():
    text = 'Ref,Date,Amount\nr1,20.11.2026,"1,00"\nr2,20.11.2026\nr3,31.02.2026,"1,00"\nr4,20.11.2026,x\n"r5,20.11.2026,1\n,20.11.2026,"1,00"\nr6,20.11.2026,"2,00"\n'
    found = outcomes(text)

    assert [(line, one.id) for line, one in found if isinstance(one, PostedEvent)] == [(2, "r1"), (8, "r6")]
    assert [(line, one.split(":")[0]) for line, one in found if isinstance(one, str)] == [
        (3, "has 2 cells where the table has 3 columns"),
        (4, "occurred_at"),
        (5, "amount"),
        (6, 'a quote (") is opened and never closed'),
        (7, "id"),
    ]


def test_cells_beyond_the_columns_may_be_empty():
    """Banks end their lines with a delimiter."""
    assert event(f"Ref,Date,Amount\nr1,20.11.2026,{'5'},,\n").amount == "5.00"
    assert "has 4 cells" in error("Ref,Date,Amount\nr1,20.11.2026,5,x\n")


@pytest.mark.parametrize(
    ("amount", "cells", "value"),
    [
        ({"column": "Amount", "decimal": ","}, {"Amount": "-12,5"}, "-12.50"),
        ({"column": "Amount", "decimal": ",", "thousands": "."}, {"Amount": "1.012,5"}, "1012.50"),
        ({"column": "Amount", "strip": ["€"]}, {"Amount": "€ 12.5"}, "12.50"),
        ({"column": "Amount", "flip": True}, {"Amount": "12.5"}, "-12.50"),
        ({"column": "Amount", "flip": True}, {"Amount": "0.00"}, "0.00"),
        ({"column": "Amount", "absolute": True}, {"Amount": "-12.5"}, "12.50"),
        ({"credit": "In", "debit": "Out"}, {"In": "12.5", "Out": ""}, "12.50"),
        ({"credit": "In", "debit": "Out"}, {"In": "", "Out": "12.5"}, "-12.50"),
        ({"credit": "In", "debit": "Out"}, {"In": "0.00", "Out": "12.5"}, "-12.50"),
        ({"credit": "In", "debit": "Out", "debit_written": "negative"}, {"In": "", "Out": "-12.5"}, "-12.50"),
        ({"column": "Amount", "flag": {"column": "SH", "credit": ["H"], "debit": "S"}}, {"Amount": "12.5", "SH": "S"}, "-12.50"),
        ({"column": "Amount", "flag": {"column": "SH", "credit": ["H"], "debit": "S"}}, {"Amount": "12.5", "SH": "H"}, "12.50"),
        ({"column": 3}, {"Amount": "7"}, "7.00"),
        ({"column": "Amount"}, {"Amount": ""}, None),
    ],
)  # fmt: skip
def test_amounts_and_their_signs(amount: dict[str, Any], cells: dict[str, str], value: str | None):
    assert event(one_row(**cells), amount=amount).amount == value


@pytest.mark.parametrize(
    ("amount", "cells", "words"),
    [
        ({"column": "Amount"}, {"Amount": "12,50"}, "amount: '12,50' is no amount as the mapping says, like '1234.50'"),
        ({"credit": "In", "debit": "Out"}, {"In": "1", "Out": "2"}, "amount: columns 'In' and 'Out' both hold an amount"),
        ({"credit": "In", "debit": "Out"}, {"In": "-1", "Out": ""}, "amount: -1 in column 'In' carries a minus"),
        ({"credit": "In", "debit": "Out"}, {"In": "", "Out": "-1"}, "amount: -1 in column 'Out', though `amount.debit_written` is `positive`"),
        ({"column": "Amount", "flag": {"column": "SH", "credit": "H", "debit": "S"}}, {"Amount": "1", "SH": "X"}, "amount: column 'SH' holds 'X', which tells no direction; the mapping knows 'H', 'S'"),
        ({"column": "Amount", "flag": {"column": "SH", "credit": "H", "debit": "S"}}, {"Amount": "-1", "SH": "S"}, "amount: -1 carries a minus and a direction"),
    ],
)  # fmt: skip
def test_amounts_that_cannot_be_told_are_refused(amount: dict[str, Any], cells: dict[str, str], words: str):
    assert error(one_row(**cells), amount=amount).startswith(words)


def test_amounts_are_printed_with_the_decimals_of_their_currency():
    text = "Ref,Date,Amount,C\nr1,20.11.2026,1200,jpy\nr2,20.11.2026,1.5,KWD\nr3,20.11.2026,0.123456789,BTC\n"
    amounts = [
        one.amount
        for _, one in outcomes(text, amount={"column": "Amount"}, currency={"column": "C"})
        if isinstance(one, PostedEvent)
    ]
    assert amounts == ["1200", "1.500", "0.123456789"]


@pytest.mark.parametrize(
    ("occurred_at", "text", "utc"),
    [
        ({"formats": "%d.%m.%Y", "zone": "Europe/Berlin"}, "25.10.2026", "2026-10-24T22:00:00"),
        ({"formats": "%d.%m.%Y", "zone": "Europe/Berlin"}, "26.10.2026", "2026-10-25T23:00:00"),
        ({"formats": ["%m/%d/%Y %I:%M %p"], "zone": "America/New_York"}, "11/20/2026 01:05 PM", "2026-11-20T18:05:00"),
        ({"formats": ["%Y-%m-%d", "%d.%m.%y"], "zone": "UTC"}, "20.11.26", "2026-11-20T00:00:00"),
        ({}, "2026-11-20T10:00:00+01:00", "2026-11-20T09:00:00"),
        ({"zone": "UTC"}, "2026-11-20", "2026-11-20T00:00:00"),
        ({"formats": "unix"}, "1763632800.25", "2025-11-20T10:00:00.250000"),
        ({"formats": "%Y-%m-%d %H:%M:%S %z"}, "2026-11-20 10:00:00 -0500", "2026-11-20T15:00:00"),
    ],
)
def test_times(occurred_at: dict[str, Any], text: str, utc: str):
    one = event(one_row(Date=text), occurred_at={"column": "Date", **occurred_at})
    assert one.occurred_at.isoformat() == f"{utc}+00:00"


def test_a_time_may_stand_in_two_columns():
    form = {"columns": ["Date", "Time"], "formats": "%d.%m.%Y %H:%M", "zone": "UTC"}
    assert event(one_row(Time="13:37"), occurred_at=form).occurred_at.isoformat() == "2026-11-20T13:37:00+00:00"


@pytest.mark.parametrize("text", ["20-11-2026", "yesterday", "31.02.2026"])
def test_a_date_of_another_form_is_refused(text: str):
    assert error(one_row(Date=text)) == f"occurred_at: column 'Date' holds {text!r}, which is none of %d.%m.%Y"


def test_a_time_without_zone_is_refused():
    assert "set `occurred_at.zone`" in error(one_row(Date="2026-11-20T10:00:00"), occurred_at={"column": "Date"})


def test_types_by_value_by_sign_and_by_default():
    by_value = {"column": "Kind", "values": {"in": "movement.in"}, "default": "movement.other"}
    assert event(one_row(Kind="in"), type=by_value).type == "movement.in"
    assert event(one_row(Kind="?"), type=by_value).type == "movement.other"
    assert event(one_row(Kind=""), type=by_value).type == "movement.other"
    by_sign = {"credit": "movement.credit", "debit": "movement.debit"}
    assert event(one_row(Amount="-1"), type=by_sign).type == "movement.debit"
    assert event(one_row(Amount="0"), type=by_sign).type == "movement.credit"


def test_a_value_that_the_mapping_does_not_know_is_an_error_of_its_row():
    words = error(one_row(Kind="swap"), type={"column": "Kind", "values": {"in": "movement.in", "out": "movement.out"}})
    assert words == "type: column 'Kind' holds 'swap'; the mapping knows 'in', 'out' (add it, or a `default`)"


def test_texts_from_columns_patterns_and_fixed():
    one = event(
        one_row(Text="Invoice INV-77 paid", Iban="DE02", Empty="", State="booked"),
        record={"columns": ["Iban", "Ref"], "join": "/"},
        account={"column": "Iban"},
        status={"column": "State", "values": {"booked": "succeeded"}},
        refs={
            "invoice": {"column": "Text", "pattern": "(INV-[0-9]+)"},
            "none": {"column": "Text", "pattern": "PO-[0-9]+"},
            "empty": {"column": "Empty"},
        },
        attrs={"bank": "ours", "words": {"column": "Text", "pattern": "[A-Z]{3}-"}},
    )
    assert (one.record, one.account, one.status) == ("DE02/r1", "DE02", "succeeded")
    assert one.refs == {"invoice": "INV-77"}
    assert one.attrs == {"bank": "ours", "words": "INV-"}


def test_rows_to_ignore_are_no_rows():
    text = one_row(State="pending")
    assert outcomes(text, ignore=[{"column": "State", "values": ["pending"]}]) == []


def test_ids_from_the_row_tell_equal_rows_apart_and_are_the_same_in_another_export():
    head, row, other = "Date,Amount\n", "20.11.2026,5\n", "21.11.2026,5\n"
    first = [
        one.id for _, one in outcomes(head + row + row + other, id={"hash": "row"}) if isinstance(one, PostedEvent)
    ]
    overlapping = [
        one.id for _, one in outcomes(head + other + row + row, id={"hash": "row"}) if isinstance(one, PostedEvent)
    ]

    assert len(set(first)) == 3
    assert sorted(overlapping) == sorted(first)
    assert first[0][:-1] == first[1][:-1]


def test_an_id_of_some_cells_stays_when_others_change():
    head = "Date,Amount,Balance\n"
    one = event(f"{head}20.11.2026,5,100\n", id={"hash": ["Date", "Amount"]})
    assert event(f"{head}20.11.2026,5,999\n", id={"hash": ["Date", "Amount"]}).id == one.id
    assert event(f"{head}20.11.2026,6,100\n", id={"hash": ["Date", "Amount"]}).id != one.id


def test_preamble_footer_delimiter_and_encoding():
    raw = "Umsätze\nKonto;1\n\nRef;Date;Amount\nr1;20.11.2026;1,00\n\nSumme;;1,00\nseite 1\n".encode("cp1252")
    layout = {"encoding": "cp1252", "delimiter": ";", "skip_rows": 3, "footer_starts_with": "Summe"}
    assert [(line, one.id) for line, one in outcomes(raw, file=layout) if isinstance(one, PostedEvent)] == [(5, "r1")]
    counted = {**layout, "footer_rows": 2}
    del counted["footer_starts_with"]
    assert [line for line, _ in outcomes(raw, file=counted)] == [5]


def test_a_table_without_header_names_columns_by_number():
    changes: dict[str, Any] = {
        "id": {"column": 1},
        "occurred_at": {"column": 2, "formats": "%d.%m.%Y", "zone": "UTC"},
        "amount": {"column": 3},
    }
    found = outcomes(
        '"broken\nr1\t20.11.2026\t5\nr2\t20.11.2026\t6\n', file={"header": False, "delimiter": "tab"}, **changes
    )
    assert [(line, one.amount if isinstance(one, PostedEvent) else "error") for line, one in found] == [
        (1, "error"),
        (2, "5.00"),
        (3, "6.00"),
    ]


@pytest.mark.parametrize(
    ("text", "changes", "words"),
    [
        ("", {}, "bank.csv: is empty: a header with the names of the columns was expected"),
        (
            "Ref;Date;Amount\n",
            {},
            "bank.csv:1: there is no column 'Ref'; there are 'Ref;Date;Amount'; is ',' the delimiter (`file.delimiter`)?",
        ),
        ("Ref,Date,Sum\n", {}, "bank.csv:1: there is no column 'Amount'; there are 'Ref', 'Date', 'Sum'"),
        ("Ref,Date,Amount,Ref\n", {}, "bank.csv:1: several columns are named 'Ref'; name it by number: 1 and 4"),
        ("Ref,Date,Amount\n", {"amount": {"column": 9}}, "bank.csv:1: has 3 columns, but the mapping names number 9"),
        (
            "a,b,c\n",
            {"file": {"header": False}},
            "bank.csv:1: the file has no header, so columns are named by number, not 'Ref'",
        ),
        ('"Ref,Date\n', {}, "bank.csv:1: the header cannot be read: a quote"),
    ],
)
def test_a_file_that_does_not_fit_its_mapping_is_refused_whole(text: str, changes: dict[str, Any], words: str):
    with pytest.raises(FileUnreadable) as unreadable:
        outcomes(text, **changes)
    assert str(unreadable.value).startswith(words)


def test_what_the_contract_refuses_is_an_error_of_its_row():
    assert "Expected `str` of length <= 255" in error(one_row(Ref="x" * 300))
    assert error(one_row(C="EU"), currency={"column": "C"}).startswith("currency: ")
    assert error(one_row(T="x" * 2000), attrs={"text": {"column": "T"}}).startswith(
        "attrs.text: column 'T' holds 2000 characters"
    )

"""Events to CSV by a mapping and back are the same events, whatever stands in them and however the file is written."""

import csv
import io
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingest.domain.formats.csv_mapping import parse_mapping
from services.ingest.domain.formats.mapped_csv import CsvFormat
from shared.contracts.event import PostedEvent
from shared.money import format_amount
from tests.unit.ingest.formats.test_mapped_csv import Counted

# Cells are stripped of blanks around them, so that texts of events have none here.
TEXTS = (
    st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), min_size=1, max_size=20)
    .map(str.strip)
    .filter(bool)
)
LATIN = (
    st.text(st.characters(codec="cp1252", exclude_categories=["Cc"]), min_size=1, max_size=20)
    .map(str.strip)
    .filter(bool)
)


@st.composite
def events(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> list[PostedEvent]:
    made = []
    for number in range(draw(st.integers(1, 6))):
        currency = draw(st.sampled_from(["EUR", "JPY", "KWD", "BTC"]))
        amount = Decimal(draw(st.integers(-(10**12), 10**12))).scaleb(-2)
        made.append(
            PostedEvent(
                source="bank",
                type=draw(st.sampled_from(["movement.in", "movement.out"])),
                id=f"{number}{draw(texts)}",
                occurred_at=draw(st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1))).replace(tzinfo=UTC),  # noqa: DTZ001 - the zone is set behind it
                amount=format_amount(amount, currency),
                currency=currency,
                status=draw(texts),
                account=draw(texts),
                refs={"payment_id": draw(texts)},
                attrs={"text": draw(texts)},
            )
        )
    return made


@settings(deadline=None)
@given(
    data=st.data(),
    delimiter=st.sampled_from([",", ";", "tab"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
    decimal=st.sampled_from([",", "."]),
    thousands=st.sampled_from([None, "'", " "]),
    direction=st.sampled_from(["signed", "columns", "flag"]),
    preamble=st.integers(0, 3),
    size=st.integers(1, 40),
)
def test_events_survive_the_table(
    data: st.DataObject,
    delimiter: str,
    encoding: str,
    decimal: str,
    thousands: str | None,
    direction: str,
    preamble: int,
    size: int,
):
    made = data.draw(events(LATIN if encoding == "cp1252" else TEXTS))
    form: dict[str, Any] = {"decimal": decimal, **({"thousands": thousands} if thousands else {})}
    document = {
        "version": 1,
        "file": {"encoding": encoding, "delimiter": delimiter, "skip_rows": preamble},
        "source": "bank",
        "type": {"column": "Kind", "values": {"I": "movement.in", "O": "movement.out"}},
        "id": {"column": "Id"},
        "occurred_at": {"column": "At", "formats": "%d.%m.%Y %H:%M:%S.%f", "zone": "UTC"},
        "amount": {
            "signed": {"column": "Amount"},
            "columns": {"credit": "In", "debit": "Out"},
            "flag": {"column": "Amount", "flag": {"column": "SH", "credit": "H", "debit": "S"}},
        }[direction]
        | form,
        "currency": {"column": "Currency"},
        "status": {"column": "State"},
        "account": {"column": "Account"},
        "refs": {"payment_id": {"column": "Ref"}},
        "attrs": {"text": {"column": "Text"}},
    }
    text = io.StringIO()
    text.write("about this file\n" * preamble)
    out = csv.DictWriter(
        text,
        ["Kind", "Id", "At", "Amount", "In", "Out", "SH", "Currency", "State", "Account", "Ref", "Text"],
        delimiter="\t" if delimiter == "tab" else delimiter,
        lineterminator="\r\n",
        quoting=csv.QUOTE_ALL,
    )
    out.writeheader()
    for event in made:
        out.writerow(row(event, direction, decimal, thousands))
    raw = text.getvalue().encode(encoding)
    chunks = [raw[at : at + size] for at in range(0, len(raw), size)]
    read = list(CsvFormat(parse_mapping(yaml.safe_dump(document), "m"), Counted).read(chunks, "f"))

    assert [event for one in read if isinstance(one.outcome, list) for event in one.outcome] == made


def row(event: PostedEvent, direction: str, decimal: str, thousands: str | None) -> dict[str, str]:
    assert event.amount is not None
    amount = Decimal(event.amount)
    whole, _, fraction = event.amount.removeprefix("-").partition(".")
    printed = f"{int(whole):,}".replace(",", thousands or "") + (f"{decimal}{fraction}" if fraction else "")
    cells = {
        "Kind": "I" if event.type == "movement.in" else "O",
        "Id": event.id,
        "At": f"{event.occurred_at:%d.%m.%Y %H:%M:%S.%f}",
        "Currency": event.currency or "",
        "State": event.status or "",
        "Account": event.account or "",
        "Ref": event.refs["payment_id"],
        "Text": event.attrs["text"],
    }
    match direction:
        case "signed":
            return cells | {"Amount": ("-" if amount < 0 else "") + printed}
        case "columns":
            return cells | {"Out" if amount < 0 else "In": printed}
        case _:
            return cells | {"Amount": printed, "SH": "S" if amount < 0 else "H"}

"""Mapping files: every mistake is told with file, field and what is allowed, before a row is read."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from services.ingest.domain.formats.csv_mapping import Layout, MappingInvalid, parse_mapping

GOOD: dict[str, Any] = {
    "version": 1,
    "source": "bank",
    "type": "movement.booked",
    "id": {"column": "Ref"},
    "occurred_at": {"column": "Date", "formats": "%d.%m.%Y", "zone": "Europe/Berlin"},
    "amount": {"column": "Amount", "decimal": ","},
    "currency": "EUR",
}


def problem(**changes: Any) -> str:
    document = {name: value for name, value in {**GOOD, **changes}.items() if value is not ...}
    with pytest.raises(MappingInvalid) as invalid:
        parse_mapping(yaml.safe_dump(document), "bank.yaml")
    assert invalid.value.exit_code == 2
    return str(invalid.value)


def test_a_good_mapping_is_read():
    mapping = parse_mapping(yaml.safe_dump(GOOD), "bank.yaml")
    assert (mapping.source, mapping.file.delimiter, mapping.amount and mapping.amount.column) == ("bank", ",", "Amount")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": ...}, "bank.yaml: source: is missing"),
        ({"id": ...}, "bank.yaml: id: is missing"),
        ({"version": 2}, "bank.yaml: version: Input should be 1 (got 2)"),
        ({"amonut": {}}, "bank.yaml: amonut: is no field of a mapping; remove it or check its spelling"),
        ({"source": "my bank"}, "bank.yaml: source: is no name; use letters, digits, . _ -, at most 64 (got 'my bank')"),
        ({"type": "Movement"}, "bank.yaml: type: is no type; write lower case words joined by dots, e.g. \"payment.recorded\" (got 'Movement')"),
        ({"type": 5}, "bank.yaml: type: must be a fixed text or {column: NAME}"),
        ({"type": {"column": "T", "values": {"x": "Nope"}}}, "(got 'Nope')"),
        ({"type": {"credit": "movement.in"}}, "bank.yaml: type.debit: is missing"),
        ({"type": {"credit": "a.b", "debit": "a.c"}, "amount": ..., "currency": ...}, "type: credit and debit are told by the amount, but `amount` is missing"),
        ({"id": "Ref"}, "bank.yaml: id: must be {column: NAME}, {columns: [...]} or {hash: row} where rows have no id"),
        ({"id": {"column": "A", "columns": ["B"]}}, "bank.yaml: id: name either `column` or `columns`"),
        ({"id": {"hash": "all"}}, "bank.yaml: id.hash: "),
        ({"currency": "EURO"}, "bank.yaml: currency: 'EURO' is no ISO 4217 code"),
        ({"currency": ...}, "bank.yaml: currency: is missing: an amount without one says nothing"),
        ({"occurred_at": {"column": "D", "formats": "%d.%m.%Y"}}, "bank.yaml: occurred_at: zone: is missing: '%d.%m.%Y' reads no zone"),
        ({"occurred_at": {"column": "D", "formats": ["%d.%m"], "zone": "UTC"}}, "bank.yaml: occurred_at.formats.0: '%d.%m' names no whole date"),
        ({"occurred_at": {"column": "D", "formats": ["dd.mm.yyyy"], "zone": "UTC"}}, "bank.yaml: occurred_at.formats.0: 'dd.mm.yyyy' is no date format: use `iso`, `unix`"),
        ({"occurred_at": {"column": "D", "zone": "Berlin"}}, "bank.yaml: occurred_at.zone: 'Berlin' is no time zone; write a name of the IANA database"),
        ({"amount": {"column": "A", "thousands": "."}}, "bank.yaml: amount: thousands: '.' is the decimal sign as well"),
        ({"amount": {"column": "A", "thousands": "x"}}, "thousands: must be one of '.', ',', \"'\", ' ' (got 'x')"),
        ({"amount": {"column": "A", "decimal": ";"}}, "bank.yaml: amount.decimal: Input should be '.' or ',' (got ';')"),
        ({"amount": {"credit": "C"}}, "bank.yaml: amount: `credit` and `debit` stand for each other"),
        ({"amount": {"column": "A", "credit": "C", "debit": "D"}}, "bank.yaml: amount: name `column` (signed, or with `flag`), or `credit` and `debit`"),
        ({"amount": {"column": 0}}, "bank.yaml: amount.column: name a column of the header, or its number from 1 (got 0)"),
        ({"file": {"encoding": "utf-9"}}, "bank.yaml: file.encoding: 'utf-9' is no encoding of text that Python knows"),
        ({"file": {"encoding": "base64"}}, "bank.yaml: file.encoding: 'base64' is no encoding of text"),
        ({"file": {"delimiter": "||"}}, "bank.yaml: file.delimiter: must be one character, or \"tab\" (got '||')"),
        ({"file": {"delimiter": '"'}}, "bank.yaml: file: quote: '\"' is the delimiter as well"),
        ({"refs": {"x": {"column": "T", "pattern": "("}}}, "bank.yaml: refs.x.pattern: '(' is no regular expression"),
        ({"refs": {"x": {"column": "T", "pattern": "(a)(b)"}}}, "bank.yaml: refs.x.pattern: '(a)(b)' has 2 groups"),
        ({"refs": {"x": 5}}, "bank.yaml: refs.x: must be a fixed text or {column: NAME}"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(changes: dict[str, Any], words: str):
    assert words in problem(**changes)


def test_every_mistake_is_told_at_once():
    told = problem(source=..., currency="EURO", file={"delimiter": "||"}).splitlines()
    assert len(told) >= 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\na: 2", "bank.yaml:2:1: not valid YAML: 'a' is given twice"),
        ("a: [", "bank.yaml:1:5: not valid YAML"),
        ("- a", "bank.yaml: must be a mapping with version, source, type, id and occurred_at"),
        ("", "bank.yaml: must be a mapping"),
    ],
)
def test_what_is_no_mapping_is_told(text: str, words: str):
    from shared.errors import UsageError

    with pytest.raises(UsageError) as error:
        parse_mapping(text, "bank.yaml")
    assert words in str(error.value)


def test_the_mapping_in_the_docs_is_one_and_states_the_defaults():
    text = (Path(__file__).parents[4] / "docs" / "import.md").read_text(encoding="utf-8")
    mapping = parse_mapping(text.split("```yaml\n")[1].split("```")[0], "docs/import.md")

    assert mapping.file == Layout()
    assert mapping.ignore[0].values == ["pending"]

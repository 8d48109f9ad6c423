"""Records of tables; a broken line in the middle loses nothing else."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.domain.formats.table import RECORD_LINES_MAX, Dialect, Records
from services.ingest.domain.formats.text_lines import text_lines

OPEN = 'a quote (") is opened and never closed'


def records(
    text: str, dialect: Dialect | None = None, width: int | None = None
) -> list[tuple[int, list[str], str | None]]:
    found = Records(text_lines([text.encode()], "utf-8"), dialect or Dialect())
    if width is not None:
        found.expect(width)
    return [(record.line, record.cells, record.problem) for record in found]


def test_cells_may_be_quoted_and_quotes_doubled():
    assert records('a,"b,c","say ""hi"""\n1,,3\n') == [(1, ["a", "b,c", 'say "hi"'], None), (2, ["1", "", "3"], None)]


def test_empty_lines_are_left_out_and_lines_keep_their_numbers():
    assert [line for line, _, _ in records("a,b\n\n  \n1,2\n")] == [1, 4]


def test_a_cell_may_go_on_over_lines():
    assert records('1,"free\ntext, with\nlines",x\n2,b,c\n', width=3) == [
        (1, ["1", "free\ntext, with\nlines", "x"], None),
        (4, ["2", "b", "c"], None),
    ]


def test_a_quote_that_is_never_closed_breaks_its_own_line_only():
    text = '1,a,b\n2,"a,b\n3,a,b\n4,"x",b\n5,a,b\n'
    assert records(text, width=3) == [
        (1, ["1", "a", "b"], None),
        (2, [], OPEN),
        (3, ["3", "a", "b"], None),
        (4, ["4", "x", "b"], None),
        (5, ["5", "a", "b"], None),
    ]


def test_good_lines_between_two_broken_ones_are_not_swallowed():
    """Read as one, lines 2 to 4 have three cells: the csv module would take them for one record."""
    text = '1,a,b\n2,"a,b\n3,a,b\n4",b,c\n5,a,b\n'
    found = records(text, width=3)

    assert [(line, problem) for line, _, problem in found][1] == (2, OPEN)
    assert (3, ["3", "a", "b"], None) in found
    assert found[-1] == (5, ["5", "a", "b"], None)


def test_the_search_for_the_closing_quote_is_bounded():
    lines = ['0,"a', *(f"{number},b" for number in range(1, 500))]
    found = records("\n".join(lines), width=2)

    assert found[0] == (1, [], OPEN)
    assert len(found) == 500 > RECORD_LINES_MAX


def test_a_quote_inside_of_an_unquoted_cell_is_text():
    assert records('5" pipe,2\n3,4\n', width=2) == [(1, ['5" pipe', "2"], None), (2, ["3", "4"], None)]


def test_text_behind_a_closed_quote_is_a_broken_line():
    (first, second) = records('"a"b,c\n1,2\n', width=2)
    assert first[2] is not None
    assert first[2].startswith("is no record of a table")
    assert second == (2, ["1", "2"], None)


def test_without_quotes_a_quote_is_text():
    assert records('1;"a;b\n', Dialect(";", None)) == [(1, ["1", '"a', "b"], None)]


def test_an_escape_stands_before_a_quote():
    assert records('1,"a \\" b"\n', Dialect(",", '"', "\\")) == [(1, ["1", 'a " b'], None)]


CELLS = st.text(st.characters(exclude_characters="\x00\r", exclude_categories=["Cs"]), max_size=12)


@given(
    rows=st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=8),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
)
def test_what_the_csv_module_writes_is_read_back(rows: list[list[str]], delimiter: str):
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\r\n", quoting=csv.QUOTE_ALL).writerows(rows)

    assert [cells for _, cells, _ in records(text.getvalue(), Dialect(delimiter), 3)] == rows


@pytest.mark.parametrize("broken", ['"', 'x,"y', '"x"y"', ",,,,"])
@given(
    before=st.lists(st.integers(0, 999), max_size=5),
    after=st.lists(st.integers(0, 999), max_size=5),
)
def test_a_broken_line_anywhere_takes_no_other_with_it(broken: str, before: list[int], after: list[int]):
    row = '{},"text {}",{}'
    lines = [row.format(n, n, n) for n in before] + [broken] + [row.format(n, n, n) for n in after]
    good = [cells for _, cells, problem in records("\n".join(lines), width=3) if problem is None and len(cells) == 3]

    assert good == [[str(n), f"text {n}", str(n)] for n in [*before, *after]]

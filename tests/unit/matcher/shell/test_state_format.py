"""Records of the state topic."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.matcher.adapters import state_format
from services.matcher.adapters.state_format import (
    RECORD_BYTES_MAX,
    StateReader,
    UnknownStateVersion,
    encode_changes,
    encode_slice,
)

entries = st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.binary(max_size=400)), max_size=40)


def read(values: list[bytes]) -> list[tuple[bytes, bytes]]:
    reader = StateReader()
    return [entry for offset, value in enumerate(values) for entry in reader.read(offset, value).entries]


@given(entries)
def test_what_is_written_is_read(written):
    values = encode_changes(7, written)
    assert read(values) == written
    assert {StateReader().read(0, value).next_offset for value in values[:1]} == {7}


@given(entries, st.integers(min_value=60, max_value=600))
def test_entries_are_cut_into_records_and_joined_again(written, record_bytes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state_format, "RECORD_BYTES_MAX", record_bytes)
        values = encode_changes(7, written)
        assert read(values) == written
        assert max(map(len, values)) <= record_bytes + 20


def test_a_group_larger_than_a_record_is_cut():
    written = [(b"a", b"1"), (b"b", bytes(2 * RECORD_BYTES_MAX)), (b"c", b"3")]
    values = encode_changes(7, written)
    assert len(values) >= 3
    assert max(map(len, values)) < RECORD_BYTES_MAX + 100
    assert read(values) == written


def test_no_change_still_stores_the_offset():
    (value,) = encode_changes(9, [])
    assert StateReader().read(0, value).next_offset == 9


def test_slices_are_flagged_at_both_ends():
    written = [(b"%d" % at, bytes(RECORD_BYTES_MAX // 2)) for at in range(3)]
    records = [StateReader().read(0, value) for value in encode_slice(1, written, first=True, last=True)]
    assert [(one.snapshot, one.first, one.last) for one in records] == [
        (True, True, False),
        (True, False, False),
        (True, False, True),
    ]


def test_a_newer_version_stops_with_a_clear_error():
    with pytest.raises(UnknownStateVersion, match=r"offset 5: version 9.*deploy the newer matcher"):
        StateReader().read(5, b"\x09rest")

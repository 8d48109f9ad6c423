"""Ids are uuid5 of canonical JSON: anyone can compute them again."""

import json
import uuid

from hypothesis import given
from hypothesis import strategies as st

from shared.ids import NAMESPACE, canonical, dead_letter_id, discrepancy_id, event_id, item_id

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


def named(*values: str | None) -> str:
    return str(uuid.uuid5(NAMESPACE, json.dumps(values, ensure_ascii=False, separators=(",", ":"))))


def test_the_namespace_never_changes() -> None:
    """It is part of every id that was ever given out."""
    assert uuid.uuid5(uuid.NAMESPACE_OID, "tieout") == NAMESPACE


@given(TEXT, TEXT, TEXT)
def test_an_event_id_is_the_uuid5_that_the_standard_library_gives(org: str, source: str, id_: str) -> None:
    """Whatever characters the source uses in its ids."""
    assert event_id(org, source, id_) == named(org, source, id_)


@given(TEXT, st.lists(TEXT, min_size=1, max_size=3), st.none() | TEXT, st.lists(TEXT, max_size=2))
def test_a_discrepancy_id_names_everything_that_tells_it_apart(
    opener: str, key: list[str], side: str | None, extra: list[str]
) -> None:
    """Key, opening event, type, side, and for sums and duplicates what is said beside."""
    wanted = named("acme", "billing.payments", *key, opener, "AmountMismatch", side, *extra)

    assert discrepancy_id("acme", "billing.payments", key, opener, "AmountMismatch", side, *extra) == wanted
    assert item_id("acme", "billing.payments", key, opener) == named("acme", "billing.payments", *key, opener, "item")


@given(TEXT, TEXT)
def test_parts_never_run_into_each_other(one: str, other: str) -> None:
    """Where a joined text would be the same, the array is not."""
    assert (canonical([one, other]) == canonical([one + other, ""])) == (other == "")


def test_a_dead_letter_is_named_by_its_place_and_reason() -> None:
    """Set aside twice it is one."""
    assert dead_letter_id("no amount", 3, 17, "r") == named("dead letter", "no amount", "3", "17", "r")
    assert dead_letter_id("no amount", 3, 17, None) != dead_letter_id("no amount", 3, 17, "r")

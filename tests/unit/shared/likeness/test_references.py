"""References that differ and may still name the same thing, and those that do not."""

import pytest

from shared.likeness import reference_likeness, signature


@pytest.mark.parametrize(
    ("one", "other", "kind", "part"),
    [
        ("INV-17", "INV-17", "same", "the same reference"),
        ("INV-17", "INV-71", "transposed", "two characters transposed"),
        ("INV-17", "IVN-17", "transposed", "two characters transposed"),
        ("INV-17", "inv-17", "written_differently", "in another case"),
        ("INV-0017", "INV-17", "written_differently", "with other leading zeros"),
        ("INV 17", "INV/17", "written_differently", "written differently"),
        ("INV-17", "INV-17/2", "part_of", "'/2' more at the end"),
        ("INV-17/2", "INV-17", "part_of", "'/2' fewer at the end"),
        ("ACME INV-17", "INV-17", "part_of", "'ACME ' fewer at the beginning"),
        ("INV-17", "RE INV-17", "part_of", "'RE ' more at the beginning"),
        ("INV-1007", "INV-1907", "mistyped", "one character different"),
        ("INV-17", "IMV-17", "mistyped", "one character different"),
        ("INV-1007", "INV-107", "mistyped", "one character too many or too few"),
        ("order-2026-000451-k", "orden-2026-000451-m", "similar", "2 characters different"),
        ("2026-11-20", "2026-11-21", "day_off", "one day off"),
        ("20261130", "20261201", "day_off", "one day off"),
    ],
)  # fmt: skip
def test_references_that_are_alike(one: str, other: str, kind: str, part: str):
    """The kind, and what the sentence says."""
    found = reference_likeness([one], [other])
    assert found is not None
    assert (found.kind, found.part) == (kind, part)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("INV-17", "INV-18"),  # neighbours in a series
        ("INV-71", "INV-78"),
        ("INV-17", "INV-171"),  # the number goes on
        ("INV-17", "INV-117"),
        ("17", "171"),
        ("17", "71"),  # too short to tell
        ("INV-17", "pay_9"),
        ("INV-17", ""),
        ("a1b2", "a1c2"),
        ("order-2026-000451", "order-2026-000998"),
        ("2026-11-20", "2026-11-23"),
    ],
)
def test_references_that_are_not(one: str, other: str):
    """Two different things stay two."""
    assert reference_likeness([one], [other]) is None
    assert reference_likeness([other], [one]) is None


def test_of_a_key_with_several_fields_one_may_differ():
    """All others have to be equal, and there have to be as many."""
    found = reference_likeness(["acct_1", "2026-11-20"], ["acct_1", "2026-11-21"])
    assert found is not None
    assert found.kind == "day_off"
    assert reference_likeness(["acct_1", "2026-11-20"], ["acct_2", "2026-11-21"]) is None
    assert reference_likeness(["acct_1"], ["acct_1", "2026-11-21"]) is None


def test_a_signature_stays_when_a_reference_is_written_in_another_way():
    """Case, separators, leading zeros and swapped characters leave it; another character does not."""
    same = {signature([text]) for text in ("INV-0017", "inv-17", "INV 71", "IVN17")}
    assert len(same) == 1
    assert signature(["INV-18"]) not in same

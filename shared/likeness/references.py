"""Why two references that differ may name the same thing: a slip of the keys, another way of writing, another day."""

import re
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final, Literal, NamedTuple

from rapidfuzz.distance import OSA

ReferenceKind = Literal["same", "written_differently", "day_off", "transposed", "mistyped", "part_of", "similar"]

SCORES: Final[dict[ReferenceKind, int]] = {
    "same": 1000,
    "written_differently": 970,
    "day_off": 950,
    "transposed": 930,
    "part_of": 880,
    "mistyped": 850,
    "similar": 800,
}
"""Of 1000: how much each kind says."""

PART_CHARS_MIN: Final = 4
"""A shorter reference is the beginning or end of too many others."""
TRANSPOSED_CHARS_MIN: Final = 3
MISTYPED_CHARS_MIN: Final = 5
"""In a shorter one a single other character makes another reference."""
SIMILAR_CHARS_MIN: Final = 10
SIMILAR_CHARS_PER_SLIP: Final = 6
"""A longer reference may hold one slip per so many characters."""
REFERENCE_CHARS_MAX: Final = 200
"""Longer ones are no references that people write; compared by what they begin with."""

_NOISE = re.compile(r"[\s\-_./#:]+")
_LEADING_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")
_NUMBER = re.compile(r"[0-9]+")
_DATE = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})")
_DAY: Final = timedelta(days=1)


class ReferenceLikeness(NamedTuple):
    kind: ReferenceKind
    score: int
    part: str


def reference_likeness(one: Sequence[str], other: Sequence[str]) -> ReferenceLikeness | None:
    """Compare two keys, field by field: all but one have to be equal. None: they are not alike."""
    if len(one) != len(other):
        return None
    differing = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
    if not differing:
        return ReferenceLikeness("same", SCORES["same"], "the same reference")
    if len(differing) > 1:
        return None
    a, b = (text[:REFERENCE_CHARS_MAX] for text in differing[0])
    return _compare(a, b)


def plain(text: str) -> str:
    """Return a reference without what people write in different ways: case, separators, leading zeros."""
    return _NOISE.sub("", _LEADING_ZEROS.sub("", text.casefold()))


def signature(key: Sequence[str]) -> str:
    """Return what references keep that were only written differently or have characters swapped: for an index."""
    return "".join(sorted(plain("".join(key))))[:REFERENCE_CHARS_MAX]


def _compare(one: str, other: str) -> ReferenceLikeness | None:
    if not one or not other:
        return None
    if _day_apart(one, other):
        return _found("day_off", "one day off")
    a, b = plain(one), plain(other)
    if not a or not b:
        return None
    if a == b:
        return _found("written_differently", _written(one, other))
    return _part_of(one, other) or _slip(a, b)


def _part_of(one: str, other: str) -> ReferenceLikeness | None:
    a, b = one.casefold(), other.casefold()
    short, long, longer = (a, b, other) if len(a) < len(b) else (b, a, one)
    if len(short) < PART_CHARS_MIN or len(short) == len(long) or len(longer) != len(long):
        return None
    rest = len(long) - len(short)
    word = "more" if longer is other else "fewer"
    if long.startswith(short) and not _goes_on(short, long):
        return _found("part_of", f"{longer[-rest:]!r} {word} at the end")
    if long.endswith(short) and not _begins_before(short, long):
        return _found("part_of", f"{longer[:rest]!r} {word} at the beginning")
    return None


def _slip(a: str, b: str) -> ReferenceLikeness | None:
    # Counted in whole slips: the same on every machine.
    slips, short = OSA.distance(a, b), min(len(a), len(b))
    if slips == 1 and len(a) == len(b) and sorted(a) == sorted(b):
        return _found("transposed", "two characters transposed") if short >= TRANSPOSED_CHARS_MIN else None
    if short < MISTYPED_CHARS_MIN or _counts_on(a, b):
        return None
    if slips == 1:
        return _found(
            "mistyped", "one character different" if len(a) == len(b) else "one character too many or too few"
        )
    if short >= SIMILAR_CHARS_MIN and slips * SIMILAR_CHARS_PER_SLIP <= short:
        return _found("similar", f"{slips} characters different")
    return None


def _goes_on(short: str, long: str) -> bool:
    """INV-17 is no beginning of INV-171: the number goes on."""
    return short[-1].isdigit() and long[len(short)].isdigit()


def _begins_before(short: str, long: str) -> bool:
    """17 is no ending of INV-117: the number began before."""
    return short[0].isdigit() and long[-len(short) - 1].isdigit()


def _counts_on(a: str, b: str) -> bool:
    """INV-17 and INV-19, or INV-17 and INV-171, stand in one series, and are most likely two different things."""
    if _NUMBER.sub("0", a) != _NUMBER.sub("0", b):
        return False
    pairs = [(x, y) for x, y in zip(_NUMBER.findall(a), _NUMBER.findall(b), strict=True) if x != y]
    if len(pairs) != 1:
        return False
    x, y = str(pairs[0][0]), str(pairs[0][1])
    return x[:-1] == y[:-1] or x.startswith(y) or y.startswith(x) or x.endswith(y) or y.endswith(x)


def _written(one: str, other: str) -> str:
    if one.casefold() == other.casefold():
        return "in another case"
    if _LEADING_ZEROS.sub("", one) == _LEADING_ZEROS.sub("", other):
        return "with other leading zeros"
    return "written differently"


def _day_apart(one: str, other: str) -> bool:
    """Two references that are the same but for a date in them, one day on."""
    first, second = _DATE.search(one), _DATE.search(other)
    if first is None or second is None or _DATE.sub("", one, count=1) != _DATE.sub("", other, count=1):
        return False
    try:
        days = [date(int(found[1]), int(found[2]), int(found[3])) for found in (first, second)]
    except ValueError:
        return False
    return abs(days[0] - days[1]) == _DAY


def _found(kind: ReferenceKind, part: str) -> ReferenceLikeness:
    return ReferenceLikeness(kind, SCORES[kind], part)

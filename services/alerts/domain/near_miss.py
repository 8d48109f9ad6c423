"""Near misses: money missing on one side that stands on the other under another reference, amount, day or currency.

A loose end is an open discrepancy with a record that has nothing opposite: a missing record, or a duplicate too many.
Two loose ends that look like the same money are paired, each at most once: of all pairs the best goes first. So the
result depends on what is open and not on the order in which it came. It is a hint for people; nothing is resolved by it.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec

from shared.contracts.discrepancy import Discrepancy, Key, SideEvidence
from shared.contracts.near_miss import NearMiss, NearMissKind
from shared.likeness import (
    Likeness,
    Money,
    Sizes,
    like_amounts,
    likeness,
    plausible_amounts,
    reference_likeness,
    signature,
    units_of,
)
from shared.money import format_amount

NEAR_IN_TIME_MAX: Final = 20
"""Records of the very same amount that are looked at before and after a loose end: a common price has thousands."""
CANDIDATES_MAX: Final = 100
"""Records of other amounts that are looked at for one loose end, and as many of other currencies."""
ALIKE_WINDOW: Final = timedelta(days=31)
"""With a reference that is alike: a month, within which most money is booked on both sides."""
SAME_ACCOUNT_WINDOW: Final = timedelta(days=1)
"""Of the same account and without a reference that is alike."""
ALONE_WINDOW: Final = timedelta(days=1)
"""Without any reference: only if nothing else of the amount is open within so much."""

SAME_ACCOUNT_SCORE: Final = 650
KEYLESS_SCORE: Final = 600
ALONE_SCORE: Final = 500
"""Of 1000, in place of what a reference says (`shared.likeness.references.SCORES`)."""

KIND_SCORES: Final[dict[NearMissKind, int]] = {
    "same_amount": 1000,
    "day_off": 960,
    "sign_flipped": 950,
    "minor_units": 940,
    "digits_transposed": 930,
    "same_number": 900,
    "rounding": 900,
    "fee": 850,
    "tax": 850,
    "other_currency": 800,
}
"""Of 1000: how much the two amounts say."""
ALONE_KINDS: Final = frozenset({"same_amount", "day_off", "sign_flipped"})
"""What may be said without a reference or account that is alike: the digits are all there."""
OTHER_MONEY_KINDS: Final = frozenset({"same_number", "other_currency"})
"""What needs a reference that is alike: an account says nothing of the currency."""

KEYLESS_PREFIX: Final = "record:"
MISSING_PREFIX: Final = "Missing"
DUPLICATE: Final = "DuplicateChargeSuspected"
_DAY = timedelta(days=1)
_NO_SIZES: Final = Sizes()


class LooseEnd(msgspec.Struct, frozen=True, kw_only=True):
    """An open discrepancy with a record that has nothing opposite."""

    id: str
    """Of the discrepancy."""
    org: str
    pack: str
    rule: str
    has: str
    """Side on which its record stands."""
    lacks: str | None
    """Side on which a record is missing; None: the record itself is one too many."""
    seeks: tuple[str, ...]
    """Sides on which the same money may stand."""
    source: str
    record: str
    key: Key
    amount: Decimal
    currency: str
    """Empty: the record has none."""
    account: str | None
    occurred_at: datetime

    @property
    def fields(self) -> tuple[str, ...]:
        """The key's fields."""
        return (self.key,) if isinstance(self.key, str) else tuple(self.key)

    @property
    def keyless(self) -> bool:
        """Its record came without a match key."""
        return isinstance(self.key, str) and self.key.startswith(KEYLESS_PREFIX)

    @property
    def signature(self) -> str:
        """Equal for references that are only written differently or have characters swapped."""
        return "" if self.keyless else signature(self.fields)

    @property
    def money(self) -> Money:
        return Money(self.amount, self.currency or None, self.occurred_at)

    def faces(self, other: "LooseEnd") -> bool:
        """Tell whether the two could be two sides of the same money."""
        if (self.org, self.pack) != (other.org, other.pack) or self.id == other.id:
            return False
        if other.has not in self.seeks or self.has not in other.seeks:
            return False
        return self.lacks is not None or other.lacks is not None


Rank = tuple[int, int, str, str, str]
"""Orders pairs, the best first: score (negative), time between, first time, and the two ids, which settle any tie."""


class Match(NamedTuple):
    """Two loose ends that may be the same money."""

    kind: NearMissKind
    score: int
    rank: Rank
    alone: bool
    """Only while nothing else of these amounts is open nearby."""
    amounts: str
    """What the amounts tell, seen from the first; empty where they are equal."""
    references: str
    """What the references tell, seen from the first; empty where nothing."""


class Neighbours(NamedTuple):
    """What is open around a loose end."""

    opposite: Sequence[LooseEnd]
    """On the sides that it seeks: of like amounts, or with a reference of the same signature."""
    beside: Sequence[LooseEnd]
    """On its own side, of the very same amount."""


def loose_end(found: Discrepancy) -> LooseEnd | None:
    """Return the loose end that `found` speaks of, None: it has two sides, no record or no amount, or is a shadow."""
    if found.shadow:
        # A rule that only watches speaks of the same records as the rule in force: each would be there twice.
        return None
    if found.type.startswith(MISSING_PREFIX) and found.side is not None:
        return _missing(found, found.side)
    if found.type == DUPLICATE and found.side is not None:
        return _surplus(found, found.side)
    return None


def _missing(found: Discrepancy, lacks: str) -> LooseEnd | None:
    there = next(((name, side) for name, side in found.sides.items() if side is not None and name != lacks), None)
    if there is None:
        return None
    has, side = there
    return _loose(found, has, lacks, (lacks,), side, _record(side), side.amount)


def _surplus(found: Discrepancy, has: str) -> LooseEnd | None:
    side = found.sides.get(has)
    amount = found.actual if found.actual is not None else found.expected
    if side is None or found.duplicate is None:
        return None
    others = tuple(name for name in found.sides if name != has)
    return _loose(found, has, None, others, side, found.duplicate, amount)


def _record(side: SideEvidence) -> str | None:
    if side.record is not None:
        return side.record
    return side.records[0].record if side.records else None


def _loose(
    found: Discrepancy,
    has: str,
    lacks: str | None,
    seeks: tuple[str, ...],
    side: SideEvidence,
    record: str | None,
    amount: str | None,
) -> LooseEnd | None:
    if record is None or amount is None or side.source is None or side.occurred_at is None:
        return None
    return LooseEnd(
        id=found.id,
        org=found.org,
        pack=found.pack,
        rule=found.rule,
        has=has,
        lacks=lacks,
        seeks=seeks,
        source=side.source,
        record=record,
        key=found.key,
        amount=Decimal(amount),
        currency=side.currency or found.currency or "",
        account=found.account,
        occurred_at=side.occurred_at,
    )


# ---- two of them


def compare(one: LooseEnd, other: LooseEnd) -> Match | None:
    """Return how two loose ends are alike, None: not enough. The same from both sides but for its words."""
    if not one.faces(other) or not one.amount or not other.amount:
        return None
    gap = abs(one.occurred_at - other.occurred_at)
    if gap > ALIKE_WINDOW:
        return None
    references = _references(one, other)
    if references is None and not _may_stand_without(one, other, gap):
        return None
    alike = likeness(one.money, other.money) if one.amount != other.amount or one.currency != other.currency else None
    kind = _kind(alike, same=alike is None and _is_same(one, other), day=_is_day(gap, references))
    if kind is None:
        return None
    standing = _standing(one, other, kind, gap, references)
    if standing is None:
        return None
    score = KIND_SCORES[kind] * standing // 1000
    ids = sorted((one.id, other.id))
    first = min(one.occurred_at, other.occurred_at)
    rank = (-score, gap // timedelta(microseconds=1), first.isoformat(), ids[0], ids[1])
    return Match(
        kind=kind,
        score=score,
        rank=rank,
        alone=standing in {KEYLESS_SCORE, ALONE_SCORE},
        amounts="" if alike is None else alike.part,
        references=references[1] if references else "",
    )


def _is_same(one: LooseEnd, other: LooseEnd) -> bool:
    return one.amount == other.amount and one.currency == other.currency


def _is_day(gap: timedelta, references: tuple[int, str, bool] | None) -> bool:
    return gap == _DAY or (references is not None and references[2])


def _kind(alike: Likeness | None, *, same: bool, day: bool) -> NearMissKind | None:
    if same:
        return "day_off" if day else "same_amount"
    if alike is None or alike.kind == "day_off":
        return None
    return alike.kind


def _references(one: LooseEnd, other: LooseEnd) -> tuple[int, str, bool] | None:
    """Return score, words, and whether the references are a day apart; None: not alike."""
    if one.keyless and other.keyless:
        return None
    found = reference_likeness(*((end.record,) if end.keyless else end.fields for end in (one, other)))
    if found is None or ((one.keyless or other.keyless) and found.kind not in {"same", "written_differently"}):
        return None
    return found.score, found.part, found.kind == "day_off"


def _may_stand_without(one: LooseEnd, other: LooseEnd, gap: timedelta) -> bool:
    """Tell whether `_standing` may find something without references: asked first, for most pairs have nothing else."""
    if gap <= ALONE_WINDOW and one.amount.copy_abs() == other.amount.copy_abs():  # what `ALONE_KINDS` have in common
        return True
    return gap <= SAME_ACCOUNT_WINDOW and one.account is not None and one.account == other.account


def _standing(
    one: LooseEnd, other: LooseEnd, kind: NearMissKind, gap: timedelta, references: tuple[int, str, bool] | None
) -> int | None:
    """Return what speaks for the pair beside its amounts, of 1000; None: nothing does."""
    if references is not None:
        return references[0]
    same_account = one.account is not None and one.account == other.account
    if same_account and gap <= SAME_ACCOUNT_WINDOW and kind not in OTHER_MONEY_KINDS:
        return SAME_ACCOUNT_SCORE
    if kind in ALONE_KINDS and gap <= ALONE_WINDOW:
        return KEYLESS_SCORE if one.keyless or other.keyless else ALONE_SCORE
    return None


def is_alone(one: LooseEnd, other: LooseEnd, around: Neighbours) -> bool:
    """Tell whether nothing else could be meant: `around` is what is open around `one`."""
    rivals = (end for end in around.opposite if end.id != other.id and _is_same(end, other))
    if any(one.faces(end) and abs(end.occurred_at - one.occurred_at) <= ALONE_WINDOW for end in rivals):
        return False
    twins = (end for end in around.beside if end.id != one.id and _is_same(end, one))
    return not any(end.faces(other) and abs(end.occurred_at - other.occurred_at) <= ALONE_WINDOW for end in twins)


def matches(one: LooseEnd, around: Neighbours) -> list[tuple[Match, LooseEnd]]:
    """Return everything that `one` may be paired with, the best first."""
    found: list[tuple[Match, LooseEnd]] = []
    for other in {end.id: end for end in around.opposite}.values():
        match = compare(one, other)
        if match is not None and (not match.alone or is_alone(one, other, around)):
            found.append((match, other))
    return sorted(found, key=lambda pair: pair[0].rank)


def near_miss(one: LooseEnd, other: LooseEnd, match: Match) -> NearMiss:
    """Return what is said about `one`: its near miss is the record of `other`."""
    currency = other.currency or None
    return NearMiss(
        kind=match.kind,
        discrepancy=other.id,
        source=other.source,
        record=other.record,
        key=other.key,
        amount=format_amount(other.amount, currency),
        currency=currency,
        sentence=_sentence(one, other),
        score=match.score,
    )


def _sentence(one: LooseEnd, other: LooseEnd) -> str:
    match = compare(one, other)
    assert match is not None, "only a pair has a sentence"
    money = f"{format_amount(other.amount, other.currency or None)} {other.currency}".strip()
    surplus = ", one too many there," if other.lacks is None else ""
    if match.kind in {"same_amount", "day_off"}:
        days = _day_word(one, other) if match.kind == "day_off" and not match.references else ""
        says = f"has the same amount{days}"
    elif match.kind == "sign_flipped":
        says = "has the same amount with the sign flipped"
    else:
        own = f"{format_amount(one.amount, one.currency or None)} {one.currency}".strip()
        says = f"stands against {own}: {match.amounts}"
    return f"Near miss: {other.source} record {other.record} of {money}{surplus} {says}{_under(one, other, match)} (discrepancy {other.id})."


def _day_word(one: LooseEnd, other: LooseEnd) -> str:
    return " one day later" if other.occurred_at > one.occurred_at else " one day earlier"


def _under(one: LooseEnd, other: LooseEnd, match: Match) -> str:
    """The part of a sentence about references."""
    link = "," if match.amounts and match.kind != "sign_flipped" else ""
    if one.keyless and other.keyless:
        return f"{link} and neither has a reference"
    if other.keyless:
        named = ", which is its record" if match.references else ""
        return f"{link} and no reference, where {_text(one.key)} was expected{named}"
    if one.keyless:
        named = ", which is the name of this record" if match.references else ", where this one has none"
        return f"{link} under the reference {_text(other.key)}{named}"
    if one.key == other.key:
        return f"{link} under the same reference {_text(one.key)} of {other.rule}"
    why = f", {match.references}" if match.references else ""
    return f"{link} under the reference {_text(other.key)} instead of {_text(one.key)}{why}"


def _text(key: Key) -> str:
    return key if isinstance(key, str) else " / ".join(key)


# ---- all of them


class Shelf:
    """Loose ends of one organisation in memory, found as the database finds them: by amount, time and signature."""

    def __init__(self, ends: Iterable[LooseEnd]) -> None:
        self._by_id: dict[str, LooseEnd] = {}
        self._by_amount: dict[tuple[str, str, str, Decimal], list[tuple[datetime, str]]] = {}
        self._amounts: dict[tuple[str, str, str], list[Decimal]] = {}
        self._sizes: dict[tuple[str, str, str], Sizes] = {}
        """The same in whole minor units, without signs."""
        self._currencies: set[str] = set()
        self._by_signature: dict[tuple[str, str, str], list[str]] = {}
        for end in ends:
            self._put(end)

    def _put(self, end: LooseEnd) -> None:
        self._by_id[end.id] = end
        self._currencies |= {end.currency} - {""}
        place = (end.pack, end.has, end.currency)
        bucket = self._by_amount.setdefault((*place, end.amount), [])
        if not bucket:
            insort(self._amounts.setdefault(place, []), end.amount)
            if (units := units_of(end.amount, end.currency or None)) is not None:
                self._sizes.setdefault(place, Sizes()).add(units)
        insort(bucket, (end.occurred_at, end.id))
        if not end.keyless:
            self._by_signature.setdefault((end.pack, end.has, end.signature), []).append(end.id)

    def around(self, end: LooseEnd) -> Neighbours:
        """Return the neighbours of `end`."""
        ids = dict.fromkeys(id_ for side in end.seeks for id_ in self._opposite(end, side))
        beside = self._near(end, (end.pack, end.has, end.currency, end.amount))
        return Neighbours([self._by_id[id_] for id_ in ids], [self._by_id[id_] for id_ in beside])

    def _opposite(self, end: LooseEnd, side: str) -> Iterator[str]:
        yield from self._near(end, (end.pack, side, end.currency, end.amount))
        if not end.keyless:
            yield from self._by_signature.get((end.pack, side, end.signature), [])[:NEAR_IN_TIME_MAX]
        left = CANDIDATES_MAX
        sizes = self._sizes.get((end.pack, side, end.currency), _NO_SIZES)
        for amount in sorted(like_amounts(end.amount, end.currency or None, sizes)):
            for _, id_ in self._by_amount.get((end.pack, side, end.currency, amount), [])[:NEAR_IN_TIME_MAX]:
                if left == 0:
                    break
                left -= 1
                yield id_
        yield from self._in_other_currencies(end, side)

    def _near(self, end: LooseEnd, place: tuple[str, str, str, Decimal]) -> list[str]:
        bucket = self._by_amount.get(place, [])
        middle = bisect_left(bucket, (end.occurred_at, ""))
        return [id_ for _, id_ in bucket[max(middle - NEAR_IN_TIME_MAX, 0) : middle + NEAR_IN_TIME_MAX]]

    def _in_other_currencies(self, end: LooseEnd, side: str) -> Iterator[str]:
        left = CANDIDATES_MAX
        for currency, least, greatest in other_money(end, self._currencies):
            amounts = self._amounts.get((end.pack, side, currency), [])
            for amount in amounts[bisect_left(amounts, least) : bisect_right(amounts, greatest)]:
                for _, id_ in self._by_amount[end.pack, side, currency, amount]:
                    if left == 0:
                        return
                    left -= 1
                    yield id_


def other_money(end: LooseEnd, currencies: Iterable[str]) -> list[tuple[str, Decimal, Decimal]]:
    """Return currency, least and greatest amount of what `end` may be worth in those of `currencies` it is not in."""
    if not end.currency or end.keyless:
        return []
    return [
        (currency, least, greatest)
        for currency in sorted(currencies)
        for least, greatest in plausible_amounts(end.amount, end.currency, currency)
    ]


def near_misses(discrepancies: Iterable[Discrepancy]) -> dict[str, NearMiss]:
    """Return the near miss of every open discrepancy that has one, by id."""
    by_org: dict[str, list[LooseEnd]] = {}
    for found in discrepancies:
        end = loose_end(found) if found.state == "raised" else None
        if end is not None:
            by_org.setdefault(end.org, []).append(end)
    said: dict[str, NearMiss] = {}
    for ends in by_org.values():
        said |= _pair(ends)
    return said


def _pair(ends: Sequence[LooseEnd]) -> dict[str, NearMiss]:
    shelf = Shelf(ends)
    pairs = {match.rank: (match, one, other) for one in ends for match, other in matches(one, shelf.around(one))}
    said: dict[str, NearMiss] = {}
    for rank in sorted(pairs):
        match, one, other = pairs[rank]
        if one.id not in said and other.id not in said:
            said[one.id] = near_miss(one, other, match)
            said[other.id] = near_miss(other, one, match)
    return said

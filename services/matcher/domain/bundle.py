"""Bundled and partial payments: one record against several of the other side that add up to it."""

from collections.abc import Callable
from decimal import Decimal
from typing import Final, NamedTuple

from services.matcher.domain.assignment import subsets
from services.matcher.domain.candidate_index import Entry, Index
from services.matcher.domain.similarity import (
    NO_REFERENCE,
    SAME_NAME,
    SAME_REFERENCE,
    Reference,
    Scored,
    combine,
    compare_texts,
)
from shared.money import EXACT, exact_sum
from shared.rules.candidate_rule import WHOLE, CandidateRule

LISTED_MAX: Final = 60
"""Records that one text may list by their references: they are taken together, without trying combinations."""
ONES_MAX: Final = 4
"""Bundles that one record is tried in as a part."""
_ZERO = Decimal(0)
_NOT_ZERO = Decimal((0, (1,), -18))
"""The least amount there is."""

IsFree = Callable[[Entry, Entry, int], bool]
"""Tells whether a record fits nobody but the second, for which it may be bundled, with this score or more."""


class Part(NamedTuple):
    """A record that may be in a bundle."""

    entry: Entry
    reference: Reference | None
    gap: int


class Bundle(NamedTuple):
    """What was found for one record."""

    parts: tuple[Entry, ...] = ()
    scored: Scored | None = None
    rivals: tuple[tuple[bytes, int], ...] = ()
    """Instead of parts: records of several sets that add up, with the score of their set."""
    note: str | None = None
    """Why nothing could be decided."""


NOTHING = Bundle()


def find_bundle(one: Entry, rule: CandidateRule, index: Index, is_free: IsFree) -> Bundle:  # noqa: PLR0911 - ways out
    """Find the records of the other side that add up to `one`."""
    parts, note = _parts(one, rule, index, is_free)
    if len(parts) < 2:
        return Bundle(note=note)
    target = abs(one.features.amount)
    tolerance = rule.bundle.allowance(target)
    listed = [part for part in parts if part.reference and part.reference.score == SAME_REFERENCE]
    if 2 <= len(listed) <= LISTED_MAX:
        total = exact_sum(abs(part.entry.features.amount) for part in listed)
        if abs(EXACT.subtract(total, target)) <= tolerance:
            return _decided(rule, listed)
    limits = rule.limits
    tried = parts[: limits.candidates_max]
    values = _whole([target, tolerance, *(abs(part.entry.features.amount) for part in tried)])
    found = subsets(values[2:], values[0], values[1], limits.bundle_records_max, limits.bundle_steps_max)
    if found.exhausted:
        return Bundle(note=f"more than {limits.bundle_steps_max} combinations of {len(tried)} records: not decided")
    sets = [[tried[place] for place in places] for places in found.found]
    if not sets:
        return Bundle(note=note)
    if len(sets) == 1:
        return _decided(rule, sets[0])
    scores = [_scored(rule, one).total for one in sets]
    if abs(scores[0] - scores[1]) >= rule.margin:
        return _decided(rule, sets[0] if scores[0] > scores[1] else sets[1])
    if max(scores) < rule.accept:
        return Bundle(note=note)
    rivals = {
        part.entry.key: total for total, some in sorted(zip(scores, sets, strict=True), key=_total) for part in some
    }
    return Bundle(rivals=tuple(sorted(rivals.items())))


def find_whole(part: Entry, rule: CandidateRule, index: Index, is_free: IsFree) -> tuple[Entry, Bundle] | None:
    """Find a record of the other side that `part` adds up to with others."""
    amount = part.features.amount
    ones = []
    for one in index.of_text(part):
        gap = _gap(part, one, rule)
        if gap is None or abs(one.features.amount) <= abs(amount):
            continue
        reference = compare_texts(one.features.text, part.features.text)
        if _is_for(reference) and is_free(one, part, _score_of(rule, gap, reference)):
            ones.append((-reference.score, gap, one.rank, one))
    for *_, one in sorted(ones, key=lambda found: found[:3])[:ONES_MAX]:
        bundle = find_bundle(one, rule, index, is_free)
        if part in bundle.parts or any(key == part.key for key, _ in bundle.rivals):
            return one, bundle
    return None


def _parts(one: Entry, rule: CandidateRule, index: Index, is_free: IsFree) -> tuple[list[Part], str | None]:
    """Return what may be in a bundle for `one`: by its text, or, where there is none, by amount and date alone."""
    by_text = bool(rule.weight_reference) and not one.features.text.is_empty
    if by_text:
        found = index.of_text(one)
    else:
        amount = one.features.amount
        low, high = (_NOT_ZERO, amount) if amount > 0 else (amount, -_NOT_ZERO)
        most = 4 * rule.limits.candidates_max
        count = index.count_of_amount(one.bucket, 1 - one.side, low, high)
        if count > most:
            return [], f"{count} records could be parts of it, too many to add up without a reference"
        found = index.of_amount(one, low, high, most)
    parts = []
    for entry in found:
        gap = _gap(one, entry, rule)
        if gap is None or abs(entry.features.amount) >= abs(one.features.amount):
            continue
        reference = None
        if rule.weight_reference:
            reference = compare_texts(one.features.text, entry.features.text)
            if by_text and not _is_for(reference):
                continue
        if is_free(entry, one, _score_of(rule, gap, reference)):
            parts.append(Part(entry, reference, gap))
    parts.sort(key=lambda part: (-(part.reference.score if part.reference else 0), part.gap, part.entry.rank))
    return parts, None


def _score_of(rule: CandidateRule, gap: int, reference: Reference | None) -> int:
    return combine(rule, WHOLE, "", gap, reference).total


def _is_for(reference: Reference) -> bool:
    return reference.told or reference.score >= SAME_NAME


def _gap(one: Entry, other: Entry, rule: CandidateRule) -> int | None:
    """Return how far their dates are apart, microseconds; None: they can never stand in one bundle."""
    gap = abs(one.features.first_at - other.features.first_at)
    if gap > rule.within_us or one.features.currency != other.features.currency:
        return None
    return gap if (one.features.amount > _ZERO) == (other.features.amount > _ZERO) else None


def _decided(rule: CandidateRule, parts: list[Part]) -> Bundle:
    scored = _scored(rule, parts)
    if scored.total < rule.accept:
        return NOTHING
    return Bundle(parts=tuple(part.entry for part in parts), scored=scored)


def _scored(rule: CandidateRule, parts: list[Part]) -> Scored:
    """Score a set of records by the one of them that fits least."""
    references = [part.reference for part in parts if part.reference is not None]
    reference = min(references, key=lambda one: (one.score, one.reason)) if references else None
    if rule.weight_reference and reference is None:
        reference = Reference(NO_REFERENCE, "no reference on one of them")
    return combine(
        rule, WHOLE, f"{len(parts)} records add up to the amount", max(part.gap for part in parts), reference
    )


def _total(found: tuple[int, list[Part]]) -> int:
    return found[0]


def _whole(amounts: list[Decimal]) -> list[int]:
    """Return exact amounts as whole numbers of one smallest unit."""
    places = max(-int(amount.as_tuple().exponent) for amount in amounts)
    return [int(EXACT.scaleb(amount, Decimal(max(places, 0)))) for amount in amounts]

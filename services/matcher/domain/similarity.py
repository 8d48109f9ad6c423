"""How alike two records without a shared key are: amount, date and reference, in whole thousandths.

Integers throughout, so that every machine gives the same score. References are compared as identifiers (words with
digits, however they are split and punctuated) and as names (words without).
"""

import re
import unicodedata
from decimal import Decimal
from typing import Final, NamedTuple

from rapidfuzz.distance import OSA
from rapidfuzz.fuzz import token_set_ratio

from shared.money import EXACT
from shared.rules.candidate_rule import WHOLE, CandidateRule

SAME_REFERENCE: Final = 1000
TRANSPOSED: Final = 850
ONE_SLIP: Final = 830
TWO_SLIPS: Final = 800
SAME_NAME: Final = 900
NO_REFERENCE: Final = 800
"""Nothing to compare: neither for nor against the pair, so that amount and date have to agree closely."""
OTHER_NAME: Final = 500
OTHER_REFERENCE: Final = 0
"""Both name an identifier of the same form, and not the same one: evidence against the pair."""

OTHER_AMOUNT: Final = (870, 800)
"""What an amount that differs still says where references are scored: nearly equal, and at the edge of the tolerance."""
OTHER_AMOUNT_ALONE: Final = (960, 900)
"""The same where they are not: the tolerance is then what the rule trusts."""
DATE_AT_EDGE: Final = 750
"""What a date at the edge of its window still says."""

ID_CHARS_MIN: Final = 5
"""Shorter numbers stand in too many texts."""
SLIP_CHARS_MIN: Final = 5
TWO_SLIPS_CHARS_MIN: Final = 9
WORDS_MAX: Final = 24
"""Words of a text that are looked at."""
JOINED_WORDS_MAX: Final = 3
JOINED_CHARS_MAX: Final = 32
NAMES_ALIKE: Final = 85
"""Of 100, as `token_set_ratio` counts: the same words in any order, or nearly."""

NAME_CHARS_MIN: Final = 4
NOT_NAMES: Final = frozenset(
    [
        "GMBH",
        "AG",
        "KG",
        "UG",
        "LTD",
        "LIMITED",
        "LLC",
        "INC",
        "CORP",
        "CO",
        "PLC",
        "SA",
        "SARL",
        "SAS",
        "SRL",
        "SPA",
        "BV",
        "NV",
        "AB",
        "AS",
        "OY",
        "THE",
        "AND",
        "UND",
        "INVOICE",
        "INV",
        "PAYMENT",
        "PMT",
        "TRANSFER",
        "THANK",
        "THANKS",
        "YOU",
        "RECHNUNG",
        "RG",
        "RE",
        "NR",
        "NO",
        "REF",
        "REFERENCE",
        "ORDER",
        "PART",
    ]
)
"""Forms of companies and words of payments: they stand beside many names."""

_SPLIT = re.compile(r"[\s,;|()\[\]]+")
_CHARS = re.compile(r"[\W_]+")
_DATE = re.compile(r"(?:(?:19|20)\d{2}[01]\d[0-3]\d|[0-3]\d[01]\d(?:19|20)\d{2})")
_DIGIT = re.compile(r"\d")
_DIGITS = re.compile(r"\d+")
_LETTERS = re.compile(r"[^\W\d_]+")


class Text(NamedTuple):
    """The references of a record, taken apart."""

    ids: frozenset[str]
    """Words with digits that name something."""
    joined: frozenset[str]
    """The same, and neighbouring words joined: "INV 2026 0047" is INV20260047."""
    names: tuple[str, ...]
    """The words without digits of every line that has any that name somebody."""
    shapes: frozenset[str]
    """Forms of `ids`: letters as A, digits as 9, each with its number."""
    signs: tuple[str, ...]
    """What an index finds it by: identifiers, also with their characters in order, and neighbouring names."""

    @property
    def is_empty(self) -> bool:
        """Nothing to compare."""
        return not self.ids and not self.names


class Reference(NamedTuple):
    """How two texts compare; `told` says that an identifier tells the pair."""

    score: int
    reason: str
    told: bool = False


class Scored(NamedTuple):
    """How alike two records are, in thousandths, and why."""

    total: int
    reasons: tuple[str, ...]


class Features(NamedTuple):
    """What of a record is compared."""

    amount: Decimal
    currency: str | None
    first_at: int
    """Microseconds: `occurred_at` of its earliest event."""
    text: Text


def read_text(text: str) -> Text:
    """Take the references of a record apart."""
    ids: set[str] = set()
    joined: set[str] = set()
    signs: set[str] = set()
    names: list[str] = []
    left = WORDS_MAX
    for line in unicodedata.normalize("NFKC", text).upper().split("\n"):
        words = [word for part in _SPLIT.split(line) if (word := _CHARS.sub("", part))][:left]
        left -= len(words)
        ids |= {word for word in words if _is_id(word)}
        joined |= {gram for gram in _grams(words, JOINED_WORDS_MAX) if _is_id(gram)}
        named = [word for word in words if not _DIGIT.search(word) and word not in NOT_NAMES]
        signs |= set(_grams(named, 2))
        if sum(map(len, named)) >= NAME_CHARS_MIN:
            names.append(" ".join(named))
    joined |= ids
    signs |= joined | {_in_order(one) for one in joined}
    shapes = frozenset(_shape(one) for one in ids)
    return Text(frozenset(ids), frozenset(joined), tuple(names), shapes, tuple(sorted(signs)))


def _grams(words: list[str], count_max: int) -> list[str]:
    """Return neighbouring words joined, two to `count_max` of them."""
    grams = []
    for count in range(2, count_max + 1):
        for start in range(len(words) - count + 1):
            gram = "".join(words[start : start + count])
            if len(gram) <= JOINED_CHARS_MAX:
                grams.append(gram)
    return grams


def _is_id(word: str) -> bool:
    return len(word) >= ID_CHARS_MIN and _DIGIT.search(word) is not None and not _DATE.fullmatch(word)


def _in_order(word: str) -> str:
    """Return the characters of an identifier in order: the same for one with characters swapped."""
    return "~" + "".join(sorted(word))


def _shape(word: str) -> str:
    return _LETTERS.sub("A", _DIGITS.sub(lambda found: f"9{len(found[0])}.", word))


def compare_texts(one: Text, other: Text) -> Reference:  # noqa: PLR0911 - one per outcome
    """Compare the references of two records."""
    if one.is_empty or other.is_empty:
        return Reference(NO_REFERENCE, "no reference on one of them")
    same = (one.ids & other.joined) | (one.joined & other.ids)
    if same:
        return Reference(SAME_REFERENCE, f"both name {max(same, key=lambda word: (len(word), word))}", told=True)
    slip = _slip(one, other)
    if slip is not None:
        return slip
    if one.shapes & other.shapes:
        return Reference(OTHER_REFERENCE, "they name different references")
    if one.names and other.names:
        if any(int(token_set_ratio(a, b)) >= NAMES_ALIKE for a in one.names for b in other.names):
            return Reference(SAME_NAME, "the names agree")
        return Reference(OTHER_NAME, "the names differ")
    return Reference(NO_REFERENCE, "nothing that both name")


def _slip(one: Text, other: Text) -> Reference | None:
    best: tuple[int, str, str] | None = None
    for a, b in {(a, b) for a in one.ids for b in other.joined} | {(a, b) for a in one.joined for b in other.ids}:
        shorter = min(len(a), len(b))
        allowed = 2 if shorter >= TWO_SLIPS_CHARS_MIN else 1 if shorter >= SLIP_CHARS_MIN else 0
        if not allowed or abs(len(a) - len(b)) > allowed:
            continue
        distance = OSA.distance(a, b, score_cutoff=allowed)
        if distance > allowed:
            continue
        score = (
            TWO_SLIPS if distance > 1 else TRANSPOSED if len(a) == len(b) and _in_order(a) == _in_order(b) else ONE_SLIP
        )
        best = max(best or (0, "", ""), (score, a, b))
    if best is None:
        return None
    score, a, b = best
    how = {TRANSPOSED: "with two characters swapped", ONE_SLIP: "but for one character", TWO_SLIPS: "but for two slips"}
    return Reference(score, f"{a} is {b} {how[score]}", told=True)


def allowance(rule: CandidateRule, expected: Decimal) -> Decimal:
    """Return how far the amounts of a candidate pair may be apart."""
    if not rule.percent:
        return rule.tolerance
    return max(rule.tolerance, EXACT.scaleb(EXACT.multiply(abs(expected), rule.percent), Decimal(-2)))


def score(rule: CandidateRule, first: Features, last: Features) -> Scored | None:
    """Score a record of the first side against one of the last; None: they are no pair at all."""
    gap = abs(first.first_at - last.first_at)
    if gap > rule.within_us or first.currency != last.currency:
        return None
    reference = compare_texts(first.text, last.text) if rule.weight_reference else None
    amount, why = WHOLE, "the amounts are equal"
    if first.amount != last.amount:
        difference = abs(EXACT.subtract(first.amount, last.amount))
        allowed = allowance(rule, first.amount)
        if difference > allowed or (first.amount > 0) != (last.amount > 0) or (reference and not reference.told):
            return None
        near, edge = OTHER_AMOUNT if reference else OTHER_AMOUNT_ALONE
        amount = near - int(EXACT.divide_int(EXACT.multiply(difference, Decimal(near - edge)), allowed))
        why = f"the amounts differ by {difference:f}"
    return combine(rule, amount, why, gap, reference)


def combine(rule: CandidateRule, amount: int, why: str, gap: int, reference: Reference | None) -> Scored:
    """Weigh the parts of a score; `gap` is in microseconds and within the rule's window."""
    date = WHOLE - (WHOLE - DATE_AT_EDGE) * gap // rule.within_us if rule.within_us else WHOLE
    days = gap // 86_400_000_000
    reasons = [why, "the same day" if not days else f"{days} day{'s' if days > 1 else ''} apart"]
    total = rule.weight_amount * amount + rule.weight_date * date
    if reference is not None:
        total += rule.weight_reference * reference.score
        reasons.append(reference.reason)
    weights = rule.weight_amount + rule.weight_date + rule.weight_reference
    return Scored(total // weights, tuple(reasons))

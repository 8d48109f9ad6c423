"""What belongs together without a shared key, by trying everything: an oracle for small sets of records.

It shares no code with the product. It knows the parts of a score as the docs give them, for references that are equal,
have two digits swapped, are absent or name something else; and it looks at every way to pair the records.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from typing import Any

WEIGHTS = {"amount": 40, "date": 15, "reference": 45}
WITHIN_DAYS = 60
PERCENT = Fraction(2, 100)
ACCEPT, MARGIN = 900, 50

Event = dict[str, Any]
Pair = tuple[str, str]


@dataclass(frozen=True)
class Told:
    """Every way to pair, looked at."""

    scores: dict[Pair, int]
    """Acceptable and nearly acceptable pairs."""
    best: frozenset[Pair]
    """The pairs that add up to the highest score; one of them where there are several."""
    regret: dict[Pair, int]
    """By pair of `best`: how much the best way without it is worse."""

    @property
    def is_clear(self) -> bool:
        """No other way to pair is nearly as good, whichever of the pairs one takes away."""
        return all(by >= MARGIN for by in self.regret.values())

    @property
    def is_stable(self) -> bool:
        """No two records would rather have each other: the best first and the best in all are the same."""
        mine = {record: self.scores[pair] for pair in self.best for record in pair}
        return all(
            points <= max(mine.get(a, 0), mine.get(b, 0)) for (a, b), points in self.scores.items() if points >= ACCEPT
        )


def tell(invoices: list[Event], lines: list[Event]) -> Told:
    """Look at live records of one partition, in which no bundle is hidden."""
    scores = {
        (a["record"], b["record"]): points
        for a in invoices
        for b in lines
        if (points := score(a, b)) is not None and points >= ACCEPT - MARGIN
    }
    acceptable = {pair: points for pair, points in scores.items() if points >= ACCEPT}
    best = highest(acceptable)
    regret = {}
    for pair in best:
        others = {one: points for one, points in scores.items() if one != pair}
        regret[pair] = total(best, scores) - total(highest(others), scores)
    return Told(scores, best, regret)


def total(pairs: frozenset[Pair], scores: dict[Pair, int]) -> int:
    return sum(scores[pair] for pair in pairs)


def highest(scores: dict[Pair, int]) -> frozenset[Pair]:
    """The set of pairs without a record in common that has the highest sum."""
    best: frozenset[Pair] = frozenset()
    for count in range(1, len(scores) + 1):
        found = False
        for some in combinations(sorted(scores), count):
            if len({a for a, _ in some}) < count or len({b for _, b in some}) < count:
                continue
            found = True
            if total(frozenset(some), scores) > total(best, scores):
                best = frozenset(some)
        if not found:
            break
    return best


def score(invoice: Event, line: Event) -> int | None:
    """Thousandths; None: no pair."""
    days = Fraction(abs(datetime.fromisoformat(invoice["occurred_at"]) - datetime.fromisoformat(line["occurred_at"])).total_seconds()) / 86400  # fmt: skip
    if days > WITHIN_DAYS or invoice["currency"] != line["currency"]:
        return None
    reference, tells = compare(invoice.get("refs", {}).get("invoice"), line.get("attrs", {}).get("text"))
    expected, actual = Fraction(Decimal(invoice["amount"])), Fraction(Decimal(line["amount"]))
    amount = 1000
    if expected != actual:
        allowed = abs(expected) * PERCENT
        if abs(actual - expected) > allowed or (expected > 0) != (actual > 0) or not tells:
            return None
        amount = 870 - int(70 * abs(actual - expected) / allowed)
    date = 1000 - int(250 * days / WITHIN_DAYS)
    points = WEIGHTS["amount"] * amount + WEIGHTS["date"] * date + WEIGHTS["reference"] * reference
    return points // sum(WEIGHTS.values())


def compare(one: str | None, other: str | None) -> tuple[int, bool]:
    """Points of two references, and whether they tell the pair."""
    if one is None or other is None:
        return 800, False
    if one == other:
        return 1000, True
    differing = [place for place, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    if len(differing) == 1:
        return 830, True
    if len(differing) == 2:
        first, second = differing
        if second == first + 1 and one[first] == other[second] and one[second] == other[first]:
            return 850, True
        return 800, True
    return 0, False

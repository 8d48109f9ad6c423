"""Who belongs to whom: the best pairs first, nobody where two choices are as good. And amounts that add up.

Pure and bounded: what is given is all that is looked at.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Edge(NamedTuple):
    """A candidate pair: a record of the first side, one of the last, and their score in thousandths."""

    score: int
    gap: int
    """Microseconds between their dates."""
    first: bytes
    last: bytes
    rank: tuple[int, str, str, int, str, str]
    """Decides between equal scores: date, source and record of both."""

    @property
    def order(self) -> tuple[int, int, tuple[int, str, str, int, str, str]]:
        """The best first."""
        return (-self.score, self.gap, self.rank)

    def other(self, key: bytes) -> bytes:
        """Return the other end."""
        return self.last if key == self.first else self.first


class Choice(NamedTuple):
    """What was decided among some records."""

    pairs: list[Edge]
    contested: dict[bytes, list[Edge]]
    """Records that nobody can decide about, with the edges that are as good."""


def choose(edges: Sequence[Edge], accept: int, margin: int) -> Choice:
    """Pair records: the highest score first; a pair is taken only if every other way to pair the two is clearly worse.

    Another way costs what both lose by it: the rival's own best other partner counts as well, so a record that belongs
    elsewhere does not make a pair ambiguous.
    """
    ordered = sorted(edges, key=lambda edge: edge.order)
    around: dict[bytes, list[Edge]] = {}
    for edge in ordered:
        around.setdefault(edge.first, []).append(edge)
        around.setdefault(edge.last, []).append(edge)
    free = set(around)
    pairs: list[Edge] = []
    changed = True
    while changed:
        changed = False
        for edge in ordered:
            if edge.score < accept:
                break
            if edge.first not in free or edge.last not in free or _is_contested(edge, around, free, margin):
                continue
            pairs.append(edge)
            free -= {edge.first, edge.last}
            changed = True
    return Choice(pairs, _contested(around, free, accept, margin))


def _is_contested(edge: Edge, around: dict[bytes, list[Edge]], free: set[bytes], margin: int) -> bool:
    for own, mate in ((edge.first, edge.last), (edge.last, edge.first)):
        for rival in around[own]:
            if rival.score <= edge.score - margin:
                break
            other = rival.other(own)
            if other == mate or other not in free:
                continue
            kept = edge.score + _best(other, own, around, free)
            swapped = rival.score + _best(mate, own, around, free)
            if kept - swapped < margin:
                return True
    return False


def _best(key: bytes, without: bytes, around: dict[bytes, list[Edge]], free: set[bytes]) -> int:
    """Return the best score that `key` has with somebody else."""
    for edge in around[key]:
        other = edge.other(key)
        if other != without and other in free:
            return edge.score
    return 0


def _contested(around: dict[bytes, list[Edge]], free: set[bytes], accept: int, margin: int) -> dict[bytes, list[Edge]]:
    found: dict[bytes, list[Edge]] = {}
    for key in sorted(free):
        edges = [edge for edge in around[key] if edge.other(key) in free]
        if edges and edges[0].score >= accept:
            found[key] = [edge for edge in edges if edge.score > edges[0].score - margin]
    return found


class Subsets(NamedTuple):
    """Sets of places whose values add up to the target: two at most, since two are as good as many."""

    found: list[tuple[int, ...]]
    exhausted: bool
    """The limit of steps was reached: there may be more."""


def subsets(values: Sequence[int], target: int, tolerance: int, count_max: int, steps_max: int) -> Subsets:
    """Find sets of two or more of the positive `values` that add up to `target`, give or take `tolerance`."""
    order = sorted(range(len(values)), key=lambda place: (-values[place], place))
    sorted_values = [values[place] for place in order]
    rest = [0] * (len(values) + 1)
    for at in range(len(values) - 1, -1, -1):
        rest[at] = rest[at + 1] + sorted_values[at]
    found: list[tuple[int, ...]] = []
    steps = 0
    # (next place, what is left, chosen, just chosen): depth first, with the larger values first.
    stack: list[tuple[int, int, tuple[int, ...], bool]] = [(0, target, (), False)]
    while stack:
        at, left, chosen, is_new = stack.pop()
        steps += 1
        if steps > steps_max:
            return Subsets(found, exhausted=True)
        if is_new and abs(left) <= tolerance and len(chosen) > 1:
            found.append(tuple(sorted(order[place] for place in chosen)))
            if len(found) == 2:
                break
        if at == len(values) or rest[at] < left - tolerance or len(chosen) == count_max:
            continue
        stack.append((at + 1, left, chosen, False))
        if sorted_values[at] <= left + tolerance:
            stack.append((at + 1, left - sorted_values[at], (*chosen, at), True))
    return Subsets(found, exhausted=False)

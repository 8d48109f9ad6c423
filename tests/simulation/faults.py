"""Which faults a run has: drawn from the seed, listed by number so that a failing run can be shrunk."""

import random
from dataclasses import dataclass

RUN_S = 6.0
"""Simulated time in which legs arrive and faults happen."""


@dataclass(frozen=True)
class Fault:
    """One fault; what `amount` means depends on the kind."""

    number: int
    at_s: float
    kind: str
    pick: float
    """Chooses a victim among those that run then."""
    amount: float

    def __str__(self) -> str:
        return f"{self.number}: {self.kind} at {self.at_s:.3f} s ({self.amount:.3f})"


KINDS = {
    "kill": 10,  # after so many of its next steps
    "freeze": 4,  # SIGSTOP, for so many seconds
    "stop": 2,  # SIGTERM, and back after so many seconds
    "cut": 3,  # connections end, for so many seconds
    "silence": 2,  # packets get lost, for so many seconds
    "broker": 3,  # killed, and back after so many seconds; it may forget markers
    "lost commit": 4,  # the answer to the end of a transaction
    "lost send": 3,
    "lost join": 1,
    "refused": 2,  # a batch inside a transaction
    "rebalance": 3,  # a needless one: assignments come again
    "slow": 2,  # everything is late by up to amount / 10 s, for amount seconds
    "database": 2,  # killed, and back after so many seconds
    "lost store": 3,  # the answer to a commit of the database
}
"""With how often each is drawn."""


def draw(chance: random.Random, most: int, only: tuple[str, ...] = ()) -> list[Fault]:
    """Return up to `most` faults; the kinds are drawn first, so that runs differ in their weather."""
    kinds = list(only) or chance.sample(sorted(KINDS), chance.randint(1, 6))
    weights = [KINDS[kind] for kind in kinds]
    found = []
    for number in range(chance.randint(1, most)):
        kind = chance.choices(kinds, weights)[0]
        found.append(Fault(number, chance.uniform(0.3, RUN_S), kind, chance.random(), _amount(kind, chance)))
    return found


def _amount(kind: str, chance: random.Random) -> float:
    if kind == "kill":
        return float(chance.choice((1, 2, 5, 20, 60, 200, 600)) + chance.randrange(10))
    if kind == "freeze":
        return chance.choice((0.2, 1.0, 3.0, 6.0, 9.0)) * chance.uniform(0.5, 1.5)
    return chance.choice((0.05, 0.2, 0.6, 2.0, 5.0)) * chance.uniform(0.5, 1.5)

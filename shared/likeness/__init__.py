"""Likeness: why two amounts or two references that differ may still be the same money. Pure, exact, deterministic.

A likeness never changes a verdict: it is a hint for people, said as such.
"""

from shared.likeness.amounts import (
    KINDS,
    Kind,
    Likeness,
    Money,
    Sizes,
    like_amounts,
    likeness,
    plausible_amounts,
    units_of,
)
from shared.likeness.references import ReferenceKind, ReferenceLikeness, reference_likeness, signature

__all__ = [
    "KINDS",
    "Kind",
    "Likeness",
    "Money",
    "ReferenceKind",
    "ReferenceLikeness",
    "Sizes",
    "like_amounts",
    "likeness",
    "plausible_amounts",
    "reference_likeness",
    "signature",
    "units_of",
]

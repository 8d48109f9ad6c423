"""A generated year of a metered API: usage that is tracked, spend that escapes it, top-ups, an odometer that resets."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

START = date(2025, 1, 1)
DAYS = 365
TOTAL = Decimal("120.00")
TOP_UP = Decimal("60.00")
LOW = Decimal("15.00")
"""People top up when less than this is left."""


@dataclass(frozen=True)
class Day:
    """One day, as its evening knows it."""

    at: datetime
    tracked: Decimal
    escaped: Decimal
    """Spent past the tracking; negative: the provider paid back."""
    remaining: Decimal
    """What the console says in the evening."""
    total: Decimal
    topped_up: bool
    odometer: Decimal
    """Another provider's counter, which begins anew on the 1st."""
    read: bool
    """Whether somebody read the console."""


def year(seed: int = 7, *, first: date = START, days: int = DAYS, total: Decimal = TOTAL) -> Iterator[Day]:
    """Yield the days; the console is read on most of them, and always after a top-up."""
    dice = random.Random(seed)
    remaining = total
    odometer, month = Decimal(0), first.month
    for number in range(days):
        day = first + timedelta(days=number)
        if day.month != month:
            odometer, month = Decimal(0), day.month
        odometer += _cents(dice, 0, 40)
        tracked = _cents(dice, 20, 90)
        escaped = _cents(dice, 100, 450) if dice.random() < 0.08 else Decimal(0)
        if dice.random() < 0.01:
            escaped = -_cents(dice, 5, 60)
        topped_up = remaining - tracked - escaped < LOW
        if topped_up:
            remaining, total = remaining + TOP_UP, total + TOP_UP
        remaining -= tracked + escaped
        yield Day(
            at=datetime(day.year, day.month, day.day, 21, tzinfo=UTC),
            tracked=tracked,
            escaped=escaped,
            remaining=remaining,
            total=total,
            topped_up=topped_up,
            odometer=odometer,
            read=topped_up or dice.random() < 0.7,
        )


def _cents(dice: random.Random, least: int, most: int) -> Decimal:
    return Decimal(dice.randint(least, most)) / 100

"""Calendars of business days: a country's, one of its subdivisions', a market's, or TARGET, the ECB's payment system.

The dates come from the library `holidays`. Which version of it is installed is part of nothing that tieout stores: a new
version may move deadlines that still run, as a decree does that declares a holiday.
"""

from datetime import date
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, NamedTuple

_SATURDAY, _SUNDAY = 5, 6
TARGET = "TARGET"
_ECB = "XECB"


class Calendar(NamedTuple):
    """Names a calendar; two of one name are equal, whatever they have looked up."""

    name: str
    subdivision: str | None = None

    def is_business_day(self, day: date) -> bool:
        """Tell whether business is done on a day: it is no weekend there, and no public holiday."""
        days = _days(self)
        return day.weekday() not in days.weekend and day not in days

    @property
    def title(self) -> str:
        """What people call it: `DE`, `DE-BY`, `TARGET`."""
        return f"{self.name}-{self.subdivision}" if self.subdivision else self.name


class _Weekends:
    """Saturdays and Sundays alone."""

    weekend = frozenset({_SATURDAY, _SUNDAY})

    def __contains__(self, day: date) -> bool:
        return False


WEEKENDS = Calendar("")
"""Where a rule names no calendar."""


def find_calendar(name: str, subdivision: str | None = None) -> Calendar:
    """Return the calendar of this name.

    Raises:
        ValueError: there is none; the message names what there is.
    """
    from holidays import list_supported_countries, list_supported_financial

    countries = list_supported_countries(include_aliases=True)
    markets = [TARGET, *list_supported_financial(include_aliases=True)]
    if subdivision is None and name in markets:
        return Calendar(name)
    if name not in countries:
        near = get_close_matches(name.upper(), [*countries, *markets], n=3)
        meant = f"; do you mean {' or '.join(near)}?" if near else ""
        msg = f"{name!r} is no calendar: write a country (ISO 3166, e.g. DE), a market (e.g. XNYS) or TARGET{meant}"
        raise ValueError(msg)
    if subdivision is not None and subdivision not in countries[name]:
        known = ", ".join(countries[name]) or "none"
        msg = f"{subdivision!r} is no subdivision of {name}; it has {known}"
        raise ValueError(msg)
    return Calendar(name, subdivision)


@lru_cache(maxsize=256)
def _days(calendar: Calendar) -> Any:
    """Return the holidays of a calendar; the library adds years as they are asked for."""
    if calendar == WEEKENDS:
        return _Weekends()
    from holidays import country_holidays, financial_holidays, list_supported_financial

    name = _ECB if calendar.name == TARGET else calendar.name
    if name in list_supported_financial(include_aliases=True):
        return financial_holidays(name)
    return country_holidays(name, subdiv=calendar.subdivision)

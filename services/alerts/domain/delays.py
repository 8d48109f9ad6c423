"""How long the sides of a rule let each other wait, and which deadline that asks for. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import Final, NamedTuple

ARRIVALS_MIN: Final = 100
"""With fewer that were waited for, a quantile says nothing: no deadline is proposed."""
SHOWN: Final = (Decimal("0.5"), Decimal("0.9"), Decimal("0.99"), Decimal("0.999"))
_STEPS: Final = (
    (120_000, 5_000, 1_000, "s"),
    (7_200_000, 60_000, 60_000, "m"),
    (172_800_000, 3_600_000, 3_600_000, "h"),
    (1 << 62, 86_400_000, 86_400_000, "d"),
)
"""Up to so many milliseconds: rounded up to what, and written in which unit."""


class Arrival(NamedTuple):
    """A side of a matched item that was waited for."""

    side: str
    delay_ms: int
    """From the first record of the item to this side's."""


class SideDelays(NamedTuple):
    """What was seen of a side, and what follows. Milliseconds."""

    side: str
    arrivals: int
    quantiles: tuple[int, ...]
    """At SHOWN; empty where nothing was seen."""
    longest_ms: int
    deadline: str
    """As the rule has it now."""
    deadline_ms: int | None
    """None: in business days, which these delays cannot be held against."""
    proposed: str | None
    """None: too few were seen."""
    late_now: int
    """Arrivals that the deadline of now called missing first, or would have."""
    late_then: int
    """The same by the proposed one."""


def learn(
    arrivals: Iterable[Arrival], deadlines: Mapping[str, tuple[str, int | None]], quantile: Decimal
) -> list[SideDelays]:
    """Return what is learned of every side in `deadlines` (as written, and in milliseconds)."""
    delays: dict[str, list[int]] = {side: [] for side in deadlines}
    for arrival in arrivals:
        if arrival.side in delays:
            delays[arrival.side].append(max(arrival.delay_ms, 0))
    return [_learn(side, sorted(delays[side]), text, ms, quantile) for side, (text, ms) in deadlines.items()]


def _learn(side: str, delays: list[int], text: str, deadline_ms: int | None, quantile: Decimal) -> SideDelays:
    proposed_ms, proposed = (None, None) if len(delays) < ARRIVALS_MIN else written(at_quantile(delays, quantile))
    return SideDelays(
        side=side,
        arrivals=len(delays),
        quantiles=tuple(at_quantile(delays, one) for one in SHOWN) if delays else (),
        longest_ms=delays[-1] if delays else 0,
        deadline=text,
        deadline_ms=deadline_ms,
        proposed=proposed,
        late_now=0 if deadline_ms is None else sum(delay > deadline_ms for delay in delays),
        late_then=0 if proposed_ms is None else sum(delay > proposed_ms for delay in delays),
    )


def at_quantile(delays: Sequence[int], quantile: Decimal) -> int:
    """Return the least delay that at least this part of the sorted `delays` does not pass."""
    rank = int((quantile * len(delays)).to_integral_value(ROUND_CEILING))
    return delays[max(rank, 1) - 1]


def written(delay_ms: int) -> tuple[int, str]:
    """Return a deadline not shorter than a delay, rounded up to what a person would write, and as a rule writes it."""
    for limit, step, unit_ms, unit in _STEPS:
        if delay_ms <= limit:
            ms = max(-(-delay_ms // step), 1) * step
            return ms, f"{ms // unit_ms}{unit}"
    raise AssertionError("the last step has no limit")

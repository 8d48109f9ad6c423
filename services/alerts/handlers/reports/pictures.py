"""Pictures of a report as inline SVG: the steps of a bridge, ageing, drift over time.

Floats are used for drawing only; every amount that is read stands beside as the exact text of the report.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from markupsafe import Markup

from services.alerts.domain.drift import DriftLine
from services.alerts.domain.period import zone_of
from shared.money import format_amount

WIDTH = 1000
"""Units of a drawing's width; the page decides how wide it is."""
ROW_HEIGHT = 24
BAR_TOP, BAR_HEIGHT = 4, 16
MARGIN = 0.06
"""Of the width, left free beside steps whose axis does not begin at 0."""
THIN_MIN = 4.0
"""A step of a cent beside a million can still be seen."""

DRIFT_HEIGHT = 260
DRIFT_LEFT, DRIFT_TOP, DRIFT_BOTTOM = 170, 14, 34
TICKS = 6
LINE_STYLES = ("#1d4f91", "#b3541e", "#3d7a4d", "#7a3d78", "#555555")
LINE_DASHES = ("", "10 5", "2 5", "14 4 3 4", "5 3")
"""Told apart in black and white too."""


@dataclass(frozen=True, slots=True)
class Step:
    """One row of a waterfall: a total (from 0), or a step from where the one before ended."""

    kind: str
    """total, more, less, unexplained or none."""
    drawing: Markup


def waterfall(first: Decimal, steps: Sequence[tuple[Decimal, bool]], last: Decimal) -> tuple[list[Step], bool]:
    """Return the drawings of the first total, of each step (amount, explained), and of the last total.

    The second value tells that the axis does not begin at 0, because totals are far larger than steps.
    """
    places = [first]
    for amount, _ in steps:
        places.append(places[-1] + amount)
    values = [float(one) for one in (*places, last)]
    scale = _scale(min(values), max(values))
    rows = [Step("total", _total(scale(float(first)), link=scale(float(first)) if steps else None))]
    for place, (amount, explained) in enumerate(steps):
        kind = "unexplained" if not explained else "less" if amount < 0 else "more"
        rows.append(Step(kind, _step(scale(float(places[place])), scale(float(places[place + 1])), kind)))
    rows.append(Step("total", _total(scale(float(last)), link=None)))
    return rows, bool(steps) and min(values) != 0


def _scale(low: float, high: float) -> Callable[[float], float]:
    left, right = (0.0 if low == 0 else WIDTH * MARGIN), WIDTH * (1 - MARGIN)
    if low == high:
        return lambda _: 0.0 if low == 0 else right
    return lambda value: left + (value - low) / (high - low) * (right - left)


def _total(end: float, link: float | None) -> Markup:
    bar = _rect("bar-total", 0, max(end, THIN_MIN))
    return _drawing(bar + (_line(link, BAR_TOP + BAR_HEIGHT, ROW_HEIGHT) if link is not None else Markup()))


def _step(begin: float, end: float, kind: str) -> Markup:
    bar = _rect(f"bar-{kind}", min(begin, end), max(abs(end - begin), THIN_MIN))
    return _drawing(_line(begin, 0, BAR_TOP) + bar + _line(end, BAR_TOP + BAR_HEIGHT, ROW_HEIGHT))


def _rect(kind: str, x: float, width: float) -> Markup:
    return Markup('<rect class="{}" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>').format(
        kind, x, BAR_TOP, width, BAR_HEIGHT
    )


def _line(x: float, y1: float, y2: float) -> Markup:
    return Markup('<line class="connector" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>').format(x, y1, y2)


def _drawing(inside: Markup) -> Markup:
    return Markup(
        '<svg viewBox="0 0 {} {}" preserveAspectRatio="none" aria-hidden="true" focusable="false">{}</svg>'
    ).format(WIDTH, ROW_HEIGHT, inside)


def ageing(counts: Mapping[str, int]) -> Mapping[str, Markup]:
    """Return a bar per age class, as long as its share of the largest."""
    most = max(1, *counts.values())
    return {
        name: _drawing(_rect(f"age-{place}", 0, max(count / most * WIDTH, THIN_MIN)) if count else Markup())
        for place, (name, count) in enumerate(counts.items())
    }


def drift(lines: Sequence[DriftLine], start: datetime, end: datetime, zone: str) -> Markup:
    """Return the differences of each line over [start, end): each holds until the next reading; a dot where one failed."""
    differences = [float(point.difference) for line in lines for point in line.points]
    low, high = min(0.0, *differences), max(0.0, *differences)
    if low == high:
        low, high = -1.0, 1.0
    begin_s, length_s = start.timestamp(), (end - start).total_seconds()

    def x(at: datetime) -> float:
        return DRIFT_LEFT + (at.timestamp() - begin_s) / length_s * (WIDTH - DRIFT_LEFT - 10)

    def y(value: float) -> float:
        return DRIFT_TOP + (high - value) / (high - low) * (DRIFT_HEIGHT - DRIFT_TOP - DRIFT_BOTTOM)

    parts = [_amount_axis(lines, y), _time_axis(start, end, zone, x)]
    parts += [_drift_line(line, place, end, x, y) for place, line in enumerate(lines)]
    return Markup('<svg class="drift" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, DRIFT_HEIGHT, f"Difference of the readings over time: {lines[0].rule}", Markup().join(parts)
    )


def _amount_axis(lines: Sequence[DriftLine], y: Callable[[float], float]) -> Markup:
    """Zero, and the furthest differences to either side, as exact amounts."""
    currency = lines[0].currency
    found = [point.difference for line in lines for point in line.points]
    marks = {Decimal(0), min(found), max(found)}
    text = Markup('<text x="{}" y="{:.1f}" class="amount">{}</text>')
    grid = Markup('<line class="{}" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>')
    drawn: list[Markup] = []
    taken: list[float] = []
    # Zero first: where two marks are too near to be read, it is the one that stays.
    for value in sorted(marks, key=abs):
        at = y(float(value))
        drawn.append(grid.format("grid" if value else "zero", DRIFT_LEFT, WIDTH - 10, at, at))
        if all(abs(at - other) > 18 for other in taken):
            taken.append(at)
            shown = f"{Decimal(format_amount(value, currency)):,f}"
            drawn.append(text.format(DRIFT_LEFT - 8, at + 5, ("+" if value > 0 else "") + shown))
    return Markup().join(drawn)


def _time_axis(start: datetime, end: datetime, zone: str, x: Callable[[datetime], float]) -> Markup:
    length = end - start
    form = "%H:%M" if length <= timedelta(days=2) else "%d %b"
    text = Markup('<text x="{:.1f}" y="{}" class="{}">{}</text>')
    ticks = [start + length * n / (TICKS - 1) for n in range(TICKS)]
    # The end is the first instant that no longer belongs to the period.
    shown = [*ticks[:-1], end - timedelta(seconds=1)] if form == "%d %b" else ticks
    ends = {0: "first", TICKS - 1: "last"}
    return Markup().join(
        text.format(x(at), DRIFT_HEIGHT - 8, ends.get(place, "tick"), one.astimezone(zone_of(zone)).strftime(form))
        for place, (at, one) in enumerate(zip(ticks, shown, strict=True))
    )


def _drift_line(
    line: DriftLine, place: int, end: datetime, x: Callable[[datetime], float], y: Callable[[float], float]
) -> Markup:
    corners = []
    for point, after in zip(line.points, [*line.points[1:], None], strict=True):
        height = y(float(point.difference))
        corners += [(x(point.at), height), (x(after.at if after else end), height)]
    path = " ".join(f"{px:.1f},{py:.1f}" for px, py in corners)
    drawn = Markup('<polyline fill="none" stroke="{}" stroke-width="2" stroke-dasharray="{}" points="{}"/>').format(
        LINE_STYLES[place % len(LINE_STYLES)], LINE_DASHES[place % len(LINE_DASHES)], path
    )
    dot = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3.5" fill="{}"/>')
    dots = [
        dot.format(x(p.at), y(float(p.difference)), LINE_STYLES[place % len(LINE_STYLES)])
        for p in line.points
        if p.failed
    ]
    return drawn + Markup().join(dots)


def sample(place: int) -> Markup:
    """Return a short piece of a line, for the table below the picture."""
    return Markup(
        '<svg class="sample" viewBox="0 0 40 10" aria-hidden="true"><line x1="0" x2="40" y1="5" y2="5" stroke="{}" '
        'stroke-width="3" stroke-dasharray="{}"/></svg>'
    ).format(LINE_STYLES[place % len(LINE_STYLES)], LINE_DASHES[place % len(LINE_DASHES)])

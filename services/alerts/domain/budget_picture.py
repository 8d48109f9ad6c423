"""A budget over time, as SVG: what was tracked, the plugs on top of it, and the total that both count against.

Floats are used for places in the drawing only; every amount that is read stands as its exact text.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple
from xml.sax.saxutils import escape

from services.alerts.domain.budget import State, minus, plus
from services.alerts.domain.budget_health import Recorded
from shared.money import format_amount

WIDTH, HEIGHT = 960, 440
LEFT, RIGHT, TOP, BOTTOM = 76, 24, 112, 44
"""Room for amounts, for the last date, for the title with the legend, and for dates."""
TICKS_MAX = 7
LABEL_GAP_PX = 90
"""Between the largest plug's label and the edge it is turned away from."""

# Colours that are told apart without seeing colours too: dark, hatched, light; 3:1 against their ground.
STYLE = """
  svg { --ground: #ffffff; --ink: #1d2730; --soft: #55626e; --line: #d5dce2; --tracked: #2f6f9f; --plug: #c2542a; --left: #e3ebf1; }
  @media (prefers-color-scheme: dark) {
    svg { --ground: #161d24; --ink: #e7edf2; --soft: #a3b1bd; --line: #33404b; --tracked: #5aa0d0; --plug: #ec8a5e; --left: #243039; }
  }
  text { font: 13px system-ui, sans-serif; fill: var(--ink); }
  .title { font-size: 19px; font-weight: 600; }
  .soft { fill: var(--soft); }
  .figure { font-weight: 600; }
  .over { paint-order: stroke; stroke: var(--ground); stroke-width: 4px; stroke-linejoin: round; }
"""


_HATCH = (
    '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="6" height="6" fill="var(--plug)"/><rect width="2" height="6" fill="var(--ground)" opacity=".45"/>'
    "</pattern></defs>"
)


class Point(NamedTuple):
    """A budget at a moment, counted from its beginning."""

    at: datetime
    tracked: Decimal
    plugged: Decimal
    total: Decimal

    @property
    def spent(self) -> Decimal:
        return plus(self.tracked, self.plugged)


def points(state: State, rows: Sequence[Recorded], now: datetime) -> list[Point]:
    """Return the budget before its first row, before and after each, and now; `rows` are its last ones, oldest first.

    Usage is known at rows only, so it rises evenly between them; plugs and changes of the total happen at their row.
    """
    tracked, plugged = state.tracked, state.plugged
    backwards = [Point(max(now, state.budget.created_at), state.tracked_usage, plugged, state.budget.total)]
    for row in reversed(rows):
        total = plus(row.budget_after, plus(tracked, plugged))
        backwards.append(Point(row.created_at, tracked, plugged, total))
        before = minus(plugged, row.manual_plug_amount)
        # A row without a top-up leaves the total; a top-up's row stands where the total was before it.
        backwards.append(Point(row.created_at, tracked, before, total))
        tracked, plugged = minus(tracked, row.api_usage_tracked), before
    started = min(state.budget.created_at, rows[0].created_at) if rows else state.budget.created_at
    opening = state.budget.opening if not tracked and not plugged else backwards[-1].total
    backwards.append(Point(started, tracked, plugged, opening))
    return _stepped(backwards[::-1])


def _stepped(found: Sequence[Point]) -> list[Point]:
    """The total steps at the moment it changes, rather than rising towards it."""
    stepped = [found[0]]
    for point in found[1:]:
        if point.total != stepped[-1].total:
            stepped.append(point._replace(total=stepped[-1].total))
        stepped.append(point)
    return stepped


def draw(state: State, rows: Sequence[Recorded], now: datetime) -> str:
    """Return the picture; it holds no script and no address but the name of SVG."""
    drawn = points(state, rows, now)
    currency = state.budget.currency
    scale = _Scale(drawn)
    title = (
        f"{state.budget.budget} ({state.budget.provider}): {_money(state.tracked_usage, currency)} tracked + "
        f"{_money(state.plugged, currency)} plugs = {_money(state.used, currency)} {currency} used"
    )
    description = (
        f"Of a total of {_money(state.budget.total, currency)} {currency}, {_money(state.remaining, currency)} {currency} remain. "
        f"{len(rows)} {'reconciliation' if len(rows) == 1 else 'reconciliations'} from {drawn[0].at:%Y-%m-%d} to {drawn[-1].at:%Y-%m-%d}."
    )
    thinned = _thinned(drawn, scale)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title description">',
        f'<title id="title">{escape(title)}</title><desc id="description">{escape(description)}</desc>',
        f"<style>{STYLE}</style>",
        _HATCH,
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="var(--ground)"/>',
        f'<text class="title" x="{LEFT}" y="30">{escape(title)}</text>',
        f'<text class="soft" x="{LEFT}" y="52">{escape(description)}</text>',
        *_legend(state),
        *_areas(thinned, scale),
        *_axes(scale, currency),
        *_largest(rows, scale, drawn, currency),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class _Scale:
    def __init__(self, drawn: Sequence[Point]) -> None:
        self.first, self.last = drawn[0].at, drawn[-1].at
        self._span_s = (self.last - self.first).total_seconds() or 1.0
        lowest = min(Decimal(0), *(min(point.spent, point.tracked) for point in drawn))
        highest = max(max(point.total, point.spent, point.tracked) for point in drawn) or Decimal(1)
        self.step = _nice_step((highest - lowest) / TICKS_MAX)
        self.low = (lowest / self.step).to_integral_value("ROUND_FLOOR") * self.step
        self.high = (highest / self.step).to_integral_value("ROUND_CEILING") * self.step

    def x(self, at: datetime) -> float:
        share = (at - self.first).total_seconds() / self._span_s
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, amount: Decimal) -> float:
        share = float((amount - self.low) / (self.high - self.low))
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _nice_step(least: Decimal) -> Decimal:
    """Return 1, 2 or 5 times a power of ten, at least `least`."""
    power = Decimal(1).scaleb(least.adjusted())
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least)


def _thinned(drawn: Sequence[Point], scale: _Scale) -> list[Point]:
    """Points that fall on one pixel become its first and its last, so that years are no megabytes."""
    kept: list[Point] = []
    columns: list[int] = []
    for point in drawn:
        column = round(scale.x(point.at))
        if columns[-2:] == [column, column]:
            kept[-1] = point
        else:
            kept.append(point)
            columns.append(column)
    return kept


def _areas(drawn: Sequence[Point], scale: _Scale) -> Iterator[str]:
    def line(amounts: Sequence[Decimal]) -> list[str]:
        return [f"{scale.x(point.at):.1f},{scale.y(amount):.1f}" for point, amount in zip(drawn, amounts, strict=True)]

    nothing = line([Decimal(0)] * len(drawn))
    tracked, spent, total = (line([getattr(point, name) for point in drawn]) for name in ("tracked", "spent", "total"))
    for name, fill, upper, lower in (
        ("remaining", "var(--left)", total, spent),
        ("tracked", "var(--tracked)", tracked, nothing),
        ("plug", "url(#hatch)", spent, tracked),
    ):
        yield f'<polygon class="{name}" fill="{fill}" points="{" ".join([*upper, *reversed(lower)])}"/>'
    yield f'<polyline class="spent" fill="none" stroke="var(--ink)" stroke-width="1.5" points="{" ".join(spent)}"/>'
    yield (
        '<polyline class="total" fill="none" stroke="var(--ink)" stroke-width="1.5" stroke-dasharray="6 4" '
        f'points="{" ".join(total)}"/>'
    )


def _legend(state: State) -> Iterator[str]:
    currency = state.budget.currency
    entries = [
        ("tracked", state.tracked_usage, "var(--tracked)", ""),
        ("plugs", state.plugged, "url(#hatch)", ""),
        ("remaining", state.remaining, "var(--left)", ' stroke="var(--soft)" stroke-width=".7"'),
        ("total", state.budget.total, "none", ' stroke="var(--ink)" stroke-width="1.5" stroke-dasharray="4 3"'),
    ]
    x = float(LEFT)
    for name, amount, fill, more in entries:
        text = _money(amount, currency)
        yield f'<rect x="{x:.0f}" y="70" width="14" height="14" rx="2" fill="{fill}"{more}/>'
        yield f'<text x="{x + 20:.0f}" y="82">{name} <tspan class="figure">{text}</tspan></text>'
        x += 44 + 7.6 * (len(name) + 1 + len(text))


def _axes(scale: _Scale, currency: str) -> Iterator[str]:
    amount = scale.low
    while amount <= scale.high:
        y = scale.y(amount)
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)" stroke-width=".6"/>'
        yield f'<text class="soft" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_tick(amount, scale.step)}</text>'
        amount += scale.step
    yield f'<text class="soft" x="{LEFT - 8}" y="{TOP - 12}" text-anchor="end">{escape(currency)}</text>'
    for at, text in _dates(scale.first, scale.last):
        yield f'<text class="soft" x="{scale.x(at):.1f}" y="{HEIGHT - BOTTOM + 22}" text-anchor="middle">{text}</text>'


def _dates(first: datetime, last: datetime) -> Iterator[tuple[datetime, str]]:
    """Yield at most `TICKS_MAX` moments that are easy to name: hours, days or firsts of months."""
    days = (last - first).days
    if days < 2:
        yield first, f"{first.astimezone(UTC):%Y-%m-%d %H:%M}"
        return
    if days <= 62:
        stride = timedelta(days=-(-days // TICKS_MAX))
        at = (first + timedelta(days=1)).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        while at <= last:
            yield at, f"{at:%d %b}"
            at += stride
        return
    begin = first.astimezone(UTC)
    months = begin.year * 12 + begin.month  # the first of the month after it, counted from year 0
    end = last.astimezone(UTC)
    stride_months = -(-(end.year * 12 + end.month - months) // TICKS_MAX) or 1
    while months < end.year * 12 + end.month:
        at = datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC)
        yield at, f"{at:%b %Y}"
        months += stride_months


def _largest(rows: Sequence[Recorded], scale: _Scale, drawn: Sequence[Point], currency: str) -> Iterator[str]:
    """Name the largest plug: when, how much, why; the first that people ask about."""
    row = max(rows, key=lambda one: abs(one.manual_plug_amount), default=None)
    if row is None or not row.manual_plug_amount:
        return
    there = next(point for point in reversed(drawn) if point.at == row.created_at)
    x, y = scale.x(there.at), scale.y(there.spent)
    anchor = "end" if x > WIDTH / 2 else "start"
    text = f"largest plug {_money(row.manual_plug_amount, currency)} on {row.reconciliation_date}: {row.adjustment_reason[:40]}"
    turned = -LABEL_GAP_PX / 9 if anchor == "end" else LABEL_GAP_PX / 9
    yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="var(--plug)" stroke="var(--ground)" stroke-width="1.5"/>'
    yield f'<text class="over" x="{x + turned:.1f}" y="{max(y - 10, TOP - 2):.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _money(amount: Decimal, currency: str) -> str:
    return format_amount(amount, currency)


def _tick(amount: Decimal, step: Decimal) -> str:
    return f"{amount:.{max(0, -step.adjusted())}f}"

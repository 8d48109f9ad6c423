"""Drift over time, one panel per bot, as SVG: pure, no fonts or scripts from elsewhere, readable in the dark."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import escape
from itertools import pairwise

from shared.packs.bots.thresholds import BotThresholds, Thresholds
from tieout.bots.view.standing import Figures

WIDTH, HEIGHT = 900, 190
LEFT, RIGHT, TOP, BOTTOM = 62, 150, 34, 30
POINTS_MAX = 600
"""Of one line: more than there are pixels. Of each stretch the point farthest from zero is drawn, so no peak is lost."""
GAP_FACTOR = 6
"""A pause this much longer than is usual breaks the line: nothing is known of it."""
TICKS = 5

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#18212b;--soft:#566372;--line:#d8dee5;--own:#1f5f8b;--exchange:#8a4fb0;--warn:#fff1cf;--crit:#fde3e8;--warn-ink:#7a5a00;--crit-ink:#a3123a}
@media(prefers-color-scheme:dark){:root{--paper:#151b22;--ink:#e6ebf0;--soft:#9fadbb;--line:#2d3843;--own:#79b8e8;--exchange:#d3a4f0;--warn:#33290e;--crit:#3a1620;--warn-ink:#ecc75a;--crit-ink:#ff8fa8}}
svg{background:var(--paper);font:12px system-ui,"Segoe UI",Roboto,Arial,sans-serif}text{fill:var(--soft)}
.name{fill:var(--ink);font-size:15px;font-weight:600}.grid{stroke:var(--line)}.zero{stroke:var(--soft)}
.warn{fill:var(--warn)}.crit{fill:var(--crit)}.warn-ink{fill:var(--warn-ink)}.crit-ink{fill:var(--crit-ink)}
.own,.exchange{fill:none;stroke-width:2;stroke-linejoin:round}.own{stroke:var(--own)}.exchange{stroke:var(--exchange);stroke-dasharray:6 3}
.own-dot{fill:var(--own)}.exchange-dot{fill:var(--exchange)}.own-ink{fill:var(--own)}.exchange-ink{fill:var(--exchange)}
""".strip()


@dataclass(frozen=True, slots=True)
class _Scale:
    start: datetime
    end: datetime
    reach: Decimal
    """The panel shows drifts from -reach to +reach."""

    def x(self, at: datetime) -> float:
        part = (at - self.start) / max(self.end - self.start, timedelta(seconds=1))
        return LEFT + part * (WIDTH - LEFT - RIGHT)

    def y(self, drift: Decimal) -> float:
        inner = HEIGHT - TOP - BOTTOM
        return TOP + inner / 2 - float(drift / self.reach) * inner / 2


Point = tuple[datetime, Decimal]


def drift_svg(history: Mapping[str, Sequence[Figures]], thresholds: Thresholds, start: datetime, end: datetime) -> str:
    """Return one SVG with a panel per bot, in order of their names."""
    panels = [_panel(bot, figures, thresholds.of(bot), start, end) for bot, figures in history.items()]
    height = max(HEIGHT, HEIGHT * len(panels))
    body = "".join(f'<g transform="translate(0 {at * HEIGHT})">{panel}</g>' for at, panel in enumerate(panels))
    if not panels:
        body = f'<text x="{LEFT}" y="{HEIGHT // 2}">No figures of any bot in this time.</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="Drift of {len(panels)} bots over time"><style>{STYLE}</style>{body}</svg>'
    )


def drift_html(history: Mapping[str, Sequence[Figures]], thresholds: Thresholds, start: datetime, end: datetime) -> str:
    """Return a page with the picture and, for who does not see it, the last figures as a table."""
    rows = "".join(
        f"<tr><th scope=row>{escape(bot)}</th>"
        + "".join(f"<td>{_text(value)}</td>" for value in (*_drifts(figures[-1]), _farthest(figures)))
        + f"<td>{_stamp(figures[-1].as_of)}</td></tr>"
        for bot, figures in history.items()
        if figures
    )
    style = (
        "body{margin:2rem auto;max-width:960px;padding:0 1rem;font:15px/1.5 system-ui,sans-serif;background:var(--paper);"
        "color:var(--ink)}table{border-collapse:collapse;margin-top:1.5rem}td,th{padding:.3rem .9rem .3rem 0;"
        "text-align:left;border-bottom:1px solid var(--line)}td{font-variant-numeric:tabular-nums}svg{max-width:100%;height:auto}"
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Drift of the bots</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}{style}</style></head><body>'
        f"<h1>Drift of the bots</h1><p>{_stamp(start)} to {_stamp(end)}. Solid: base_pct less target_base_pct. "
        f"Dashed: base_pct less the exchange's. Shaded: where a warning and where a critical finding begins for the "
        f"inventory.</p>{drift_svg(history, thresholds, start, end)}"
        f"<table><thead><tr><th scope=col>Bot</th><th scope=col>Inventory drift</th><th scope=col>Exchange drift</th>"
        f"<th scope=col>Farthest</th><th scope=col>As of</th></tr></thead><tbody>{rows}</tbody></table></body></html>\n"
    )


def _panel(bot: str, figures: Sequence[Figures], own: BotThresholds, start: datetime, end: datetime) -> str:
    inventory = [(one.as_of, one.drift) for one in figures if one.drift is not None]
    exchange = [(one.as_of, one.exchange_drift) for one in figures if one.exchange_drift is not None]
    farthest = max((abs(drift) for _, drift in (*inventory, *exchange)), default=Decimal(0))
    scale = _Scale(start, end, max(farthest, own.inventory_critical) * Decimal("1.15"))
    parts = [
        f"<title>{escape(bot)}: inventory drift {_text(inventory[-1][1] if inventory else None)}</title>",
        *_bands(scale, own),
        *_axes(scale),
        f'<text class="name" x="{LEFT}" y="20">{escape(bot)}</text>',
        *_line(exchange, scale, "exchange"),
        *_line(inventory, scale, "own"),
    ]
    if not inventory and not exchange:
        parts.append(f'<text x="{LEFT + 12}" y="{HEIGHT // 2 - 8}">no figures in this time</text>')
    return "".join(parts) + _labels(scale, inventory, exchange)


def _bands(scale: _Scale, own: BotThresholds) -> Iterable[str]:
    width = WIDTH - LEFT - RIGHT
    for name, low, high in (
        ("warn", own.inventory_warn, own.inventory_critical),
        ("crit", own.inventory_critical, scale.reach),
    ):
        for sign in (1, -1):
            near, far = scale.y(sign * low), scale.y(sign * high)
            top, height = min(near, far), abs(near - far)
            yield f'<rect class="{name}" x="{LEFT}" y="{top:.1f}" width="{width}" height="{height:.1f}"/>'


def _axes(scale: _Scale) -> Iterable[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for drift in (scale.reach / Decimal("1.15"), Decimal(0), -scale.reach / Decimal("1.15")):
        y, kind = scale.y(drift), "zero" if drift == 0 else "grid"
        yield f'<line class="{kind}" x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{f"{drift:+.2f}" if drift else "0"}</text>'
    span = scale.end - scale.start
    form = "%H:%M:%S" if span < timedelta(minutes=10) else "%H:%M" if span <= timedelta(days=2) else "%m-%d"
    for tick in range(TICKS):
        at = scale.start + span * tick / (TICKS - 1)
        yield f'<text x="{scale.x(at):.1f}" y="{bottom + 18}" text-anchor="middle">{at.astimezone(UTC):{form}}</text>'


def _line(points: Sequence[Point], scale: _Scale, name: str) -> Iterable[str]:
    for stretch in _stretches(_thinned(points)):
        if len(stretch) == 1:
            at, drift = stretch[0]
            yield f'<circle class="{name}-dot" cx="{scale.x(at):.1f}" cy="{scale.y(drift):.1f}" r="2.5"/>'
            continue
        path = " ".join(f"{scale.x(at):.1f},{scale.y(drift):.1f}" for at, drift in stretch)
        yield f'<polyline class="{name}" points="{path}"/>'
    if points:
        at, drift = points[-1]
        yield f'<circle class="{name}-dot" cx="{scale.x(at):.1f}" cy="{scale.y(drift):.1f}" r="3.5"/>'


def _thinned(points: Sequence[Point]) -> list[Point]:
    """Keep of each stretch of points its first and the one farthest from zero."""
    if len(points) <= POINTS_MAX:
        return list(points)
    size = -(-len(points) * 2 // POINTS_MAX)
    kept: dict[datetime, Decimal] = {}
    for at in range(0, len(points), size):
        part = points[at : at + size]
        for one in sorted({part[0], max(part, key=lambda point: abs(point[1]))}):
            kept[one[0]] = one[1]
    kept[points[-1][0]] = points[-1][1]
    return sorted(kept.items())


def _stretches(points: Sequence[Point]) -> list[list[Point]]:
    """Break the line where nothing is known for much longer than is usual."""
    if not points:
        return []
    pauses = sorted(later[0] - sooner[0] for sooner, later in pairwise(points))
    usual = pauses[len(pauses) // 2] if pauses else timedelta(0)
    found = [[points[0]]]
    for sooner, later in pairwise(points):
        if later[0] - sooner[0] > usual * GAP_FACTOR:
            found.append([])
        found[-1].append(later)
    return found


def _labels(scale: _Scale, inventory: Sequence[Point], exchange: Sequence[Point]) -> str:
    """Name each line beside its end, apart from one another."""
    ends = [
        (name, kind, points[-1][1])
        for name, kind, points in (("target", "own", inventory), ("exchange", "exchange", exchange))
        if points
    ]
    places = [scale.y(drift) + 4 for _, _, drift in ends]
    if len(places) == 2 and abs(places[0] - places[1]) < 15:
        middle = sum(places) / 2
        places = [middle - 8, middle + 8] if places[0] <= places[1] else [middle + 8, middle - 8]
    return "".join(
        f'<text class="{kind}-ink" x="{WIDTH - RIGHT + 12}" y="{y:.1f}">{name} {_text(drift)}</text>'
        for (name, kind, drift), y in zip(ends, places, strict=True)
    )


def _drifts(figures: Figures) -> tuple[Decimal | None, Decimal | None]:
    return figures.drift, figures.exchange_drift


def _farthest(figures: Sequence[Figures]) -> Decimal | None:
    drifts = [one.drift for one in figures if one.drift is not None]
    return max(drifts, key=abs, default=None)


def _text(drift: Decimal | None) -> str:
    return "none" if drift is None else f"{drift:+.4f}"


def _stamp(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"

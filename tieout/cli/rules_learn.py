"""`tieout rules learn`: the deadlines that the delays seen ask for, as a change of the rule with its effect."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from services.alerts.domain.delays import Arrival, SideDelays
    from shared.rules.match_rule import MatchRuleModel

EXAMPLE = """Example:

    tieout rules learn --org acme --rule billing.payments --quantile 0.999
"""
DAYS = 30
HEADER = (
    "side",
    "waited for",
    "p50",
    "p90",
    "p99",
    "p99.9",
    "longest",
    "deadline",
    "proposed",
    "late now",
    "late then",
)
_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"))


def learn(
    org: Annotated[str, typer.Option(help="Organisation.")],
    rule: Annotated[str, typer.Option(help="Name of a match rule that is in force.")],
    quantile: Annotated[str, typer.Option(help="Part of the records that the deadline must leave alone.")] = "0.999",
    days: Annotated[int, typer.Option(min=1, max=3650, help="Items of the last so many days.")] = DAYS,
) -> None:
    """Propose a deadline per side from stored matches, and say what it would have changed. Changes nothing itself."""
    import asyncio
    from datetime import UTC, datetime, timedelta
    from decimal import Decimal, InvalidOperation

    from services.alerts.domain.delays import learn as learned
    from shared.errors import UsageError

    try:
        part = Decimal(quantile)
    except InvalidOperation:
        part = Decimal(0)
    if not Decimal("0.5") <= part <= 1:
        raise UsageError(f"--quantile {quantile!r}: write a part from 0.5 to 1, e.g. 0.999")
    since = datetime.now(UTC) - timedelta(days=days)
    model, arrivals = asyncio.run(_read(org, rule, since))
    for line in show(model, learned(arrivals, deadlines_of(model), part), part, days):
        typer.echo(line)


async def _read(org: str, rule: str, since: "datetime") -> "tuple[MatchRuleModel, list[Arrival]]":
    from services.alerts.adapters.database import Database
    from services.alerts.adapters.delay_store import PostgresDelays
    from services.alerts.settings import AlertsSettings
    from shared.settings import load_settings
    from tieout.rules_topic import rules_in_force

    model = _find(await rules_in_force(org), org, rule)
    settings = load_settings(AlertsSettings)
    database = Database(settings.database_url.get_secret_value(), role=settings.database_role)
    try:
        return model, await PostgresDelays(database).arrivals(org, rule, since)
    finally:
        await database.close()


def _find(packs: "Mapping[str, Sequence[object]]", org: str, name: str) -> "MatchRuleModel":
    from shared.errors import UsageError
    from shared.rules.match_rule import MatchRuleModel

    rules = [rule for rules in packs.values() for rule in rules if isinstance(rule, MatchRuleModel)]
    for rule in rules:
        if rule.name == name:
            return rule
    known = ", ".join(sorted(rule.name for rule in rules)) or "none"
    raise UsageError(f"{org} has no match rule {name!r} with a key in force; it has {known}")


def deadlines_of(model: "MatchRuleModel") -> dict[str, tuple[str, int | None]]:
    """Return the deadline of every side, as written and in milliseconds."""
    from shared.rules.duration import parse_duration

    written = model.deadline if isinstance(model.deadline, dict) else dict.fromkeys(model.sides, model.deadline)
    read = {side: parse_duration(text) for side, text in written.items()}
    return {
        side: (text, None if read[side].business_days else read[side].milliseconds) for side, text in written.items()
    }


def show(model: "MatchRuleModel", sides: "list[SideDelays]", quantile: object, days: int) -> list[str]:
    """Return what the command prints: a table, what would have changed, and the field to paste."""
    rows = [HEADER, *map(_row, sides)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(HEADER))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append("")
    lines += [_effect(side, days) for side in sides]
    if not any(side.proposed for side in sides):
        return lines
    chosen = {side.side: side.proposed or side.deadline for side in sides}
    field = ", ".join(f"{side}: {text}" for side, text in chosen.items())
    lines += [
        "",
        f"# {model.name}: deadline by the delays of {days} days, quantile {quantile}",
        f"deadline: {{{field}}}",
    ]
    return lines


def _row(side: "SideDelays") -> tuple[str, ...]:
    seen = tuple(map(_span, (*side.quantiles, side.longest_ms))) if side.arrivals else ("-",) * 5
    late_now = "-" if side.deadline_ms is None else f"{side.late_now:,}"
    late_then = "-" if side.proposed is None else f"{side.late_then:,}"
    return (side.side, f"{side.arrivals:,}", *seen, side.deadline, side.proposed or "-", late_now, late_then)


def _effect(side: "SideDelays", days: int) -> str:
    if side.proposed is None:
        return f"{side.side}: {side.arrivals:,} records were waited for in {days} days, too few to learn from; it stays {side.deadline}."
    if side.deadline_ms is None:
        return f"{side.side}: {side.deadline} is in business days; {side.proposed} would have called {side.late_then:,} missing too early."
    fewer = side.late_now - side.late_then
    if not fewer:
        return f"{side.side}: {side.proposed} instead of {side.deadline}: as many called missing that came later ({side.late_now:,})."
    word = "fewer" if fewer > 0 else "more"
    return f"{side.side}: {side.proposed} instead of {side.deadline}: {abs(fewer):,} {word} called missing that came later."


def _span(ms: int) -> str:
    """Return a delay in its largest two units."""
    parts = []
    rest = ms
    for size, unit in _UNITS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or f"{ms}ms"

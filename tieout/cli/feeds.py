"""`tieout feeds`: when each source was last heard of, and what waits for one that is silent."""

from typing import Annotated, Any

import typer

COLUMNS = ("Source", "Last seen", "Usual silence", "Silent after", "State", "Waiting", "Rule")
_SECOND_MS = 1000
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("feeds", epilog="Example: tieout feeds")(feeds)


def feeds(
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line, with everything.")] = False,
) -> None:
    """List the feeds of your organisation: last seen, usual silence at this hour of the week, what waits for it."""
    from tieout.api import from_environment

    found = from_environment().get("/v1/feeds")["data"]
    if json:
        import json as json_module

        for one in found:
            typer.echo(json_module.dumps(one))
        return
    if not found:
        typer.echo("No feed was told of yet: events of a source that a rule selects make one, within a minute.")
        return
    rows = [COLUMNS, *map(_row, found)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(COLUMNS))]
    for row in rows:
        typer.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _row(feed: dict[str, Any]) -> tuple[str, ...]:
    return (
        feed["source"],
        feed["last_seen_at"][:19].replace("T", " "),
        _span(feed["usual_silence_ms"]),
        _span(feed["silent_after_ms"]),
        f"SILENT since {feed['silent_since'][:19].replace('T', ' ')}" if feed["silent_since"] else "sends",
        str(feed["waiting"]),
        feed["rule"] or "none",
    )


def _span(ms: int | None) -> str:
    """Return a length of time in its largest two units."""
    if ms is None:
        return "not known yet"
    seconds, parts = ms // _SECOND_MS, []
    for size, unit in _UNITS:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "below 1 s"

"""`tieout bots drift`: a picture of how far each bot drifted over time."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = """Examples:

    tieout bots drift --out drift.html

    tieout bots drift --since 7d --bot bot1 --bot bot2 --out drift.svg
"""


def drift(
    out: Annotated[Path, typer.Option(help="Where to: a name that ends with .html or .svg.")] = Path("drift.html"),
    since: Annotated[str, typer.Option(help="How far back: 90m, 24h, 7d.")] = "24h",
    bot: Annotated[list[str] | None, typer.Option(help="Only this bot; may be given several times.")] = None,
) -> None:
    """Draw base_pct less its target, and less the exchange's figure, for each bot, with where findings begin.

    The figures are those of the reports of `reconcile` and those that a feed on this machine has kept, in
    RECON_REPORTS_PATH. The picture needs nothing from elsewhere, so it can be mailed.
    """
    from shared.errors import UsageError
    from shared.packs.bots.thresholds import load_thresholds
    from shared.rules.duration import parse_duration
    from tieout.bots.atomic_file import write_whole
    from tieout.bots.service import read_settings
    from tieout.bots.view.drift_chart import drift_html, drift_svg
    from tieout.bots.view.reports import history_of_reports

    if out.suffix not in {".html", ".svg"}:
        raise UsageError(f"--out: {out} should end with .html or .svg")
    try:
        back = timedelta(milliseconds=parse_duration(since).milliseconds)
    except ValueError:
        raise UsageError(f"--since: {since!r} is no length of time; write 90m, 24h or 7d") from None
    end = datetime.now(UTC)
    start = end - back
    reports = read_settings().places.reports
    history, unreadable = history_of_reports(reports, start)
    for name in bot or ():
        if name not in history:
            raise UsageError(f"--bot: nothing is known of {name}; there are {', '.join(history) or 'none'}")
    chosen = {name: history[name] for name in (bot or history)}
    if not any(chosen.values()):
        raise UsageError(
            f"{reports} has no figures of the last {since}; `tieout bots reconcile` and `tieout bots feed` leave them"
        )
    draw = drift_svg if out.suffix == ".svg" else drift_html
    write_whole(out, draw(chosen, load_thresholds(), start, end).encode())
    print(f"{out}: {len(chosen)} bots, {sum(map(len, chosen.values()))} figures", flush=True)
    if unreadable:
        print(f"{unreadable} reports could not be read and are not in it", flush=True)

"""`tieout bots status`: how every bot stands, once or all the time."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    import threading

    from rich.console import RenderableType

    from tieout.bots.view.standing import BotStanding, Standing

EXAMPLE = """Examples:

    tieout bots status

    TIEOUT_API_KEY=tk_... tieout bots status --watch
"""
Origin = Literal["auto", "alerts", "reports"]
STYLES = {"ok": "green", "warning": "yellow", "critical": "bold red", "unknown": "magenta"}
HEADINGS = ("BASE", "TARGET", "DRIFT", "EXCHANGE", "EXCH. DRIFT")
MESSAGES_SHOWN_MAX = 20
"""On a terminal: more would push the table out of sight."""


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again until Ctrl-C.")] = False,
    every_s: Annotated[float, typer.Option("--every-s", help="Seconds between two looks.", min=0.2, max=3600)] = 2.0,
    origin: Annotated[
        Origin,
        typer.Option(
            "--from", help="alerts (TIEOUT_API_URL, TIEOUT_API_KEY), the reports of `reconcile`, or what there is."
        ),
    ] = "auto",
    fail_on: Annotated[
        str | None, typer.Option(help="Leave with 1 where the status is `warning` or worse, or `critical`.")
    ] = None,
) -> None:
    """Show each bot: its checks, its share of the base asset against target and exchange, and every open finding.

    With --watch on a terminal the view is drawn anew in place; elsewhere lines are printed when something changed. What
    is older than three cycles (RECON_INTERVAL_SECONDS) is called stale and is never ok.
    """
    from shared.errors import UsageError

    if fail_on not in {None, "warning", "critical"}:
        raise UsageError(f"--fail-on: must be warning or critical (got {fail_on!r})")
    if fail_on is not None and watch:
        raise UsageError("--fail-on: goes without --watch, which never ends")
    read = _reader(origin)
    if watch:
        _watch(read, every_s)
        return
    standing, now = read(), datetime.now(UTC)
    _print(standing, now)
    from shared.packs.bots.findings import STATUSES

    if fail_on is not None and STATUSES.index(standing.status(now)) >= STATUSES.index(fail_on):
        raise typer.Exit(1)


def _reader(origin: Origin) -> "Callable[[], Standing]":
    from shared.packs.bots.thresholds import ThresholdsFile

    if origin == "alerts" or (origin == "auto" and os.environ.get("TIEOUT_API_KEY")):
        from tieout.api import from_environment
        from tieout.bots.view.live import LiveView

        view, thresholds = LiveView(from_environment()), ThresholdsFile()
        return lambda: view.standing(thresholds.current().thresholds)
    from tieout.bots.service import read_settings
    from tieout.bots.view.reports import standing_of_reports

    settings = read_settings()
    return lambda: standing_of_reports(settings.places.reports, settings.interval_seconds)


def _print(standing: "Standing", now: datetime) -> None:
    import sys

    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(_drawn(standing, now, ""))
        return
    for line in _lines(standing, now):
        print(line, flush=True)


def _watch(read: "Callable[[], Standing]", every_s: float) -> None:
    import sys
    import threading

    from tieout.bots.feed.run import stopped_by_signals

    stop = threading.Event()
    with stopped_by_signals(stop):
        if sys.stdout.isatty():
            _redraw(read, every_s, stop)
        else:
            _tell_changes(read, every_s, stop)


def _redraw(read: "Callable[[], Standing]", every_s: float, stop: "threading.Event") -> None:
    from rich.console import Console
    from rich.live import Live

    from shared.errors import TieoutError

    last: Standing | None = None
    with Live(console=Console(), screen=True, auto_refresh=False) as live:
        while not stop.is_set():
            problem = ""
            try:
                last = read()
            except TieoutError as error:
                problem = str(error)
            now = datetime.now(UTC)
            live.update(_drawn(last, now, problem) if last is not None else problem, refresh=True)
            stop.wait(every_s)


def _tell_changes(read: "Callable[[], Standing]", every_s: float, stop: "threading.Event") -> None:
    from shared.errors import TieoutError

    before: list[str] = []
    while not stop.is_set():
        now = datetime.now(UTC)
        try:
            lines = list(_lines(read(), now))
        except TieoutError as error:
            lines = [f"error: {error}"]
        if lines[1:] != before[1:] or len(lines) != len(before):
            for line in lines:
                print(line, flush=True)
        before = lines
        stop.wait(every_s)


def _lines(standing: "Standing", now: datetime) -> Iterator[str]:
    """Yield plain lines; only the first one tells the time."""
    yield f"{now:%Y-%m-%dT%H:%M:%SZ} {standing.origin}, {_age(standing, now)}"
    stale = f" (stale: {_age(standing, now)})" if standing.is_stale(now) else ""
    yield f"{standing.status(now)}: {len(standing.bots)} bots, {len(standing.findings)} findings{stale}"
    for one in standing.bots:
        troubled = " ".join(f"{check}={word}" for check, word in one.checks.items() if word != "ok")
        yield f"{one.bot}\t{one.status}\t{_figures_line(one)}{f' {troubled}' if troubled else ''}"
    for found in standing.findings:
        yield f"{found.severity}\t{found.bot}\t{found.name}\t{found.message}"


def _figures_line(one: "BotStanding") -> str:
    if one.figures is None:
        return "no figures"
    names = ("base", "target", "drift", "exchange", "exchange_drift")
    return " ".join(f"{name}={text}" for name, text in zip(names, _cells(one), strict=True) if text != "-")


def _cells(one: "BotStanding") -> list[str]:
    figures = one.figures
    if figures is None:
        return ["-"] * 5
    shown = (
        (figures.base_pct, False),
        (figures.target_base_pct, False),
        (figures.drift, True),
        (figures.external_base_pct, False),
        (figures.exchange_drift, True),
    )
    return ["-" if value is None else f"{value:{'+' if signed else ''}.4f}" for value, signed in shown]


def _drawn(standing: "Standing", now: datetime, problem: str) -> "RenderableType":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from shared.packs.bots.findings import STATUSES

    word = standing.status(now)
    head = Text.assemble(
        (f" {word} ", f"reverse {STYLES[word]}"),
        f"  {len(standing.bots)} bots, {len(standing.findings)} findings  ",
        (f"{standing.origin}, {_age(standing, now)}", "dim"),
    )
    notes = [Text(f"not asked just now: {problem}", "bold red")] if problem else []
    if standing.is_stale(now):
        notes.append(Text(f"stale: nobody has written this for {_age(standing, now)}", "bold red"))
    # Two columns fewer where no bot is held against the exchange: a terminal has 80.
    shown = len(HEADINGS) if any(bot.figures and bot.figures.external_base_pct for bot in standing.bots) else -2
    table = Table(box=None, pad_edge=False)
    for heading in ("BOT", "STATUS", *HEADINGS[:shown]):
        table.add_column(heading, no_wrap=True)
    table.add_column("CHECKS THAT ARE NOT OK")
    for one in sorted(standing.bots, key=lambda bot: (-STATUSES.index(bot.status), bot.bot)):
        troubled = [(check, word) for check, word in one.checks.items() if word not in {"ok", "disabled"}]
        marks = Text(", ").join(Text(f"{check} {word}", STYLES.get(word, "")) for check, word in troubled)
        table.add_row(one.bot, Text(one.status, STYLES[one.status]), *_cells(one)[:shown], marks)
    messages = [
        Text.assemble((f"{found.severity:<8} ", STYLES[found.severity]), found.message)
        for found in standing.findings[:MESSAGES_SHOWN_MAX]
    ]
    more = len(standing.findings) - len(messages)
    return Group(head, *notes, "", table, "", *messages, *([Text(f"and {more} more", "dim")] if more > 0 else []))


def _age(standing: "Standing", now: datetime) -> str:
    seconds = int((now - standing.at).total_seconds())
    if standing.stale_after is None:
        return "now"
    if seconds < 0:
        return f"{-seconds} s ahead of this machine's clock"
    if seconds < 120:
        return f"{seconds} s ago"
    return f"{seconds // 60} min ago" if seconds < 7200 else f"{seconds // 3600} h ago"

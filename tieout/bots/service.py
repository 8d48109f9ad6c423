"""Cycles with their artifacts: lock, state, report, webhook; once, or again and again."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final

from shared.errors import UsageError
from shared.packs.bots.findings import Finding, named
from shared.packs.bots.places import Places, read_places
from shared.packs.bots.rules import Reset, rules_of
from shared.packs.bots.thresholds import Thresholds, ThresholdsFile
from shared.rules.load import RulesInvalid
from tieout.bots.alone import alone
from tieout.bots.cycle import Options, run_cycle
from tieout.bots.memory import FILE, Memory, MemoryLost, load_memory, save_memory
from tieout.bots.reading import EVERYBODY
from tieout.bots.report import Report, drop_old, write_report
from tieout.bots.webhook import Alerting, read_alerting, tell

INTERVAL_VARIABLE: Final = "RECON_INTERVAL_SECONDS"
SETTLE_VARIABLE: Final = "RECON_SETTLE_SECONDS"
RESET_VARIABLE: Final = "RECON_COUNTERS_RESET"
ZONE_VARIABLE: Final = "RECON_ZONE"
KEPT_VARIABLE: Final = "RECON_REPORTS_KEPT"
LOCK: Final = ".lock"

INTERVAL_SECONDS_DEFAULT: Final = 300
SETTLE_SECONDS_DEFAULT: Final = Decimal(1)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says, beside the thresholds."""

    places: Places
    alerting: Alerting
    options: Options
    interval_seconds: int
    reports_kept: int
    """0: all."""


@dataclass(frozen=True, slots=True)
class Done:
    """A cycle that is written down."""

    report: Report
    path: Path
    notes: tuple[str, ...]
    """For people: about the webhook, the state, the thresholds."""


def read_settings(environment: Mapping[str, str] | None = None, *, synthetic_drift: bool = False) -> Settings:
    """Return the settings.

    Raises:
        UsageError: a variable is wrong; the message names it.
    """
    given = os.environ if environment is None else environment
    reset: Reset = _one_of(given, RESET_VARIABLE)
    options = Options(
        settle_seconds=float(_number(given, SETTLE_VARIABLE, SETTLE_SECONDS_DEFAULT, most=60)),
        reset=reset,
        zone=given.get(ZONE_VARIABLE, "").strip() or "UTC",
        synthetic_drift=synthetic_drift,
    )
    try:
        rules_of(Thresholds(), reset=options.reset, zone=options.zone)
    except RulesInvalid:
        raise UsageError(
            f"{ZONE_VARIABLE}: {options.zone!r} is no time zone; use a name such as Europe/Berlin"
        ) from None
    return Settings(
        places=read_places(given),
        alerting=read_alerting(given),
        options=options,
        interval_seconds=int(
            _number(given, INTERVAL_VARIABLE, Decimal(INTERVAL_SECONDS_DEFAULT), least=1, most=86_400)
        ),
        reports_kept=int(_number(given, KEPT_VARIABLE, Decimal(0), most=10_000_000)),
    )


def reconcile(settings: Settings, file: ThresholdsFile, *, now: datetime | None = None) -> Done:
    """Run one cycle and write it down: first the report, then the alert, then what the next cycle has to know.

    Raises:
        UsageError: another cycle runs on the same reports, or they cannot be written.
    """
    reports = settings.places.reports
    with alone(reports / LOCK, "reconciliation"):
        notes, about = [], []
        in_force = file.current()
        if in_force.problem is not None:
            about.append(_about("thresholds_invalid", in_force.problem, in_force.thresholds))
            notes.append(f"thresholds: the last good ones are in force, because {in_force.problem}")
        memory, lost = _memory(reports)
        if lost:
            about.append(_about("state_lost", f"{lost}; counters and counts begin anew.", in_force.thresholds))
            notes.append(lost)
        cycle = run_cycle(settings.places, in_force.thresholds, memory, settings.options, now=now, notes=about)
        name = write_report(reports, cycle.report)
        memory.report = name
        note = tell(settings.alerting, reports, cycle, name, memory)
        save_memory(reports, memory)
        drop_old(reports, settings.reports_kept)
        return Done(cycle.report, reports / name, (*notes, note) if note is not None else tuple(notes))


def _memory(reports: Path) -> tuple[Memory, str]:
    """Return the last cycle's memory; a broken one is put aside and told."""
    try:
        return load_memory(reports), ""
    except MemoryLost as error:
        aside = reports / f"{FILE}.broken-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        (reports / FILE).replace(aside)
        return Memory(), f"{error}; it was put aside as {aside.name}"


def _about(code: str, message: str, thresholds: Thresholds) -> Finding:
    return named(EVERYBODY, code, "warning", message, thresholds)


def _one_of(given: Mapping[str, str], variable: str) -> Reset:
    word = given.get(variable, "").strip().lower() or "never"
    if word == "never":
        return "never"
    if word == "daily":
        return "daily"
    if word == "monthly":
        return "monthly"
    raise UsageError(f"{variable}: must be never, daily or monthly (got {word[:40]!r})")


def _number(given: Mapping[str, str], variable: str, default: Decimal, *, least: int = 0, most: int) -> Decimal:
    text = given.get(variable, "").strip()
    try:
        number = Decimal(text) if text else default
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or not least <= number <= most:
        raise UsageError(f"{variable}: must be a number from {least} to {most} (got {text[:40]!r})")
    return number

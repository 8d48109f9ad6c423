"""One reconciliation of all bots in one process: files -> events -> the matcher's core -> findings -> report.

The core's state goes from cycle to cycle, so counters that fall between two of them are seen. Fills are counted by the
tail that reads them: a cycle gives the engine the count so far as the opening of the parity rule, and reads no line twice.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final

from msgspec import structs

from shared.contracts.discrepancy import Check, Discrepancy
from shared.contracts.event import EventRefused, PostedEvent, accept, milliseconds
from shared.money import EXACT
from shared.packs.bots.events import NOT_ASKED, fills_event, input_event, snapshot_event
from shared.packs.bots.findings import (
    Finding,
    check_of,
    findings_of,
    in_order,
    instant,
    named,
    status_of,
)
from shared.packs.bots.names import CHECKS, EXTERNAL, INPUT_RULE, PARITY_RULE, STATE_RULE
from shared.packs.bots.places import Places
from shared.packs.bots.rules import SWITCH_OF, Reset, rules_of
from shared.packs.bots.thresholds import BotThresholds, Thresholds
from tieout.bots.memory import Memory, Seen
from tieout.bots.reading import EVERYBODY, BotInput, Inputs, Problem, Reader
from tieout.bots.report import AccountingSnapshot, BotStatus, Report, as_number, finding_line
from tieout.offline.engine import OfflineEngine

ORG: Final = "local"
PACK: Final = "bots"
SYNTHETIC_BOT: Final = "synthetic-drift"
SYNTHETIC: Final = {
    "equity_quote": "1000",
    "base_pct": "0.95",
    "target_base_pct": "0.05",
    "fees_paid": "1",
    "turnover": "1",
}
"""A bot that holds nearly everything in the base currency, and should hold nearly nothing."""
SETTLE_MS: Final = 3_600_000
"""More than any `settle`: both files have been read, so nothing more is waited for."""
CLOCK_SLACK: Final = timedelta(seconds=60)
"""Clocks are set by seconds; a machine's clock that goes back further is told."""


@dataclass(frozen=True, slots=True)
class Options:
    """How cycles are run."""

    settle_seconds: float = 1.0
    """How long a file that looks half-written is given before it is looked at again."""
    reset: Reset = "never"
    """When the bots' counters begin again at zero."""
    zone: str = "UTC"
    """Whose midnight that is."""
    synthetic_drift: bool = False


@dataclass(frozen=True, slots=True)
class Cycle:
    """What one cycle made; the memory it was given has been moved on."""

    report: Report
    findings: list[Finding]
    """Real ones."""
    synthetic: list[Finding]


def run_cycle(
    places: Places,
    thresholds: Thresholds,
    memory: Memory,
    options: Options,
    *,
    now: datetime | None = None,
    notes: Iterable[Finding] = (),
) -> Cycle:
    """Look at every bot once.

    Args:
        places: where the files lie.
        thresholds: in force.
        memory: what the last cycle left; it is moved on.
        options: how.
        now: the time of the cycle; the clock's where left out.
        notes: findings that are known already, about the cycle itself.
    """
    begun = time.monotonic()
    started = now or datetime.now(UTC)
    before = dict(memory.snapshots)
    clock = _clock(now, memory.at)
    inputs = Reader(places, memory, settle_seconds=options.settle_seconds, clock=clock).read()
    at = clock()
    bots = sorted({*inputs.bots, *memory.bots, *thresholds.bots})
    found = [*notes, *_about_the_cycle(places, inputs, memory, thresholds, started, bots)]
    stale = _judge_states(inputs, thresholds, memory, options, at, bots)
    parity = _judge_parity(inputs, thresholds, at, bots)
    verdicts = [*memory.checks.values(), *stale, *parity.checks]
    found += findings_of([*memory.open.values(), *parity.open], _asked(verdicts, inputs), thresholds)
    findings = in_order(_with_since(found, memory, at))
    synthetic = _synthetic(at) if options.synthetic_drift else []
    memory.at = at
    report = _report(
        started, thresholds, inputs, memory, before, findings, synthetic, bots, Decimal(time.monotonic() - begun)
    )
    return Cycle(report, findings, synthetic)


def _clock(now: datetime | None, last: datetime | None) -> Callable[[], datetime]:
    """Return the clock of a cycle, in whole milliseconds: the log's time never falls, whatever this machine's does."""
    least = last + timedelta(milliseconds=1) if last is not None else datetime.min.replace(tzinfo=UTC)

    def read() -> datetime:
        at = now or datetime.now(UTC)
        return max(at.replace(microsecond=at.microsecond // 1000 * 1000), least)

    return read


# ---- the engine


def _judge_states(
    inputs: Inputs, thresholds: Thresholds, memory: Memory, options: Options, at: datetime, bots: list[str]
) -> list[Check]:
    """Put snapshots, and how well files could be read, to the engine; return the verdicts that say `stale`."""
    rules = rules_of(thresholds, bots, reset=options.reset, zone=options.zone).rules
    engine = OfflineEngine({PACK: [rule for rule in rules if rule.name in (STATE_RULE, INPUT_RULE)]})
    engine.restore(memory.core)
    for bot in bots:
        one = inputs.of(bot)
        for snapshot in one.snapshots:
            _feed_snapshot(engine, snapshot, one, memory, at)
        seen = memory.snapshots.get(bot)
        read = inputs.read_of(bot, knows_by_event=seen is not None and seen.by_event)
        if one.snapshot_problem:
            inputs.problems.append(Problem(bot, one.snapshot_file, None, one.snapshot_problem))
        engine.feed(accept(input_event(bot, read, read_at=at), org=ORG, received_at=at))
    memory.core = engine.snapshot()
    for revision in engine.revisions:
        memory.open.pop(revision.id, None)
        if revision.state == "raised" and not revision.expired:
            memory.open[revision.id] = revision
    stale = [check for check in engine.checks if check.result == "stale"]
    for check in engine.checks:
        if check.code is not None and check.result != "stale":
            memory.checks[f"{check.rule}/{check.key}/{check.code}"] = check
    return stale


def _feed_snapshot(engine: OfflineEngine, snapshot: PostedEvent, one: BotInput, memory: Memory, at: datetime) -> None:
    try:
        engine.feed(accept(snapshot, org=ORG, received_at=at))
    except EventRefused as error:
        one.snapshot_problem = str(error)
        return
    seen, rank = memory.snapshots.get(one.bot), (snapshot.occurred_at, snapshot.sequence or 0)
    if seen is None or (seen.at, seen.sequence) <= rank:
        memory.snapshots[one.bot] = Seen(*rank, dict(snapshot.attrs), by_event=not one.has_file)


@dataclass(frozen=True, slots=True)
class _Parity:
    open: list[Discrepancy]
    checks: list[Check]


def _judge_parity(inputs: Inputs, thresholds: Thresholds, at: datetime, bots: list[str]) -> _Parity:
    """Put the counts to the engine."""
    openings = {bot: inputs.of(bot).filled for bot in bots}
    rules = rules_of(thresholds, bots, openings=openings).rules
    engine = OfflineEngine({PACK: [rule for rule in rules if rule.name == PARITY_RULE]})
    for bot in bots:
        if inputs.of(bot).fills_files:
            engine.feed(accept(fills_event(bot, inputs.of(bot).rows, read_at=at), org=ORG, received_at=at))
    engine.advance(milliseconds(at) + SETTLE_MS)
    return _Parity([one for one in engine.last_revisions() if one.state == "raised"], engine.last_checks())


def _synthetic(at: datetime) -> list[Finding]:
    """Return what the engine finds in a bot that drifts, under the built-in thresholds: the whole way is exercised."""
    thresholds = Thresholds(bots={SYNTHETIC_BOT: BotThresholds()})
    engine = OfflineEngine({PACK: [rule for rule in rules_of(thresholds).rules if rule.name == STATE_RULE]})
    event = snapshot_event(SYNTHETIC_BOT, SYNTHETIC, read_at=at)
    engine.feed(accept(event, org=ORG, received_at=at))
    return findings_of(engine.last_revisions(), (), thresholds)


# ---- findings


def _asked(checks: Iterable[Check], inputs: Inputs) -> list[Check]:
    """Leave out the exchange where it says nothing of a bot."""
    return [one for one in checks if one.code != "exchange_drift" or str(one.key) in inputs.exchanges]


def _about_the_cycle(
    places: Places, inputs: Inputs, memory: Memory, thresholds: Thresholds, started: datetime, bots: list[str]
) -> list[Finding]:
    """Return what is wrong with no single bot."""
    found = []

    def say(code: str, message: str) -> None:
        found.append(named(EVERYBODY, code, "warning", message, thresholds))

    if not bots:
        patterns = ", ".join((*places.snapshots, *places.fills, *places.events))
        say("no_bots", f"No bot was found, so nothing was checked; looked for {patterns} in {Path.cwd()}.")
    if inputs.exchange_problem:
        say("exchange_snapshot_missing", f"The exchange's snapshot could not be used: {inputs.exchange_problem}.")
    if inputs.unreadable:
        say("lines_unreadable", f"{inputs.unreadable} lines of shared event stores could not be read; see problems.")
    if incomplete := [path for path, whose in inputs.incomplete.items() if whose == EVERYBODY]:
        say("line_incomplete", f"The last line is not whole in {', '.join(sorted(incomplete))}.")
    if inputs.lost:
        say("lines_lost", "A shared event store was replaced, and its old file is not there to be read to its end.")
    if memory.at is not None and started < memory.at - CLOCK_SLACK:
        say(
            "clock_went_back",
            f"This machine's clock says {instant(started)}, the last cycle was at {instant(memory.at)}.",
        )
    return found


def _with_since(found: Iterable[Finding], memory: Memory, at: datetime) -> list[Finding]:
    """Date findings by when they were first seen, and forget those that are gone."""
    dated: dict[str, Finding] = {}
    for one in found:
        since = memory.since.get(one.place) or one.since or instant(at)
        dated.setdefault(one.place, structs.replace(one, since=since))
    memory.since = {place: one.since or "" for place, one in dated.items()}
    return list(dated.values())


# ---- the report


def _report(
    started: datetime,
    thresholds: Thresholds,
    inputs: Inputs,
    memory: Memory,
    before: Mapping[str, Seen],
    findings: list[Finding],
    synthetic: list[Finding],
    bots: list[str],
    seconds: Decimal,
) -> Report:
    everything = in_order([*findings, *synthetic])
    checked = [bot for bot in bots if thresholds.of(bot).enabled]
    return Report(
        ts_utc=started,
        status=status_of(everything),
        critical_count=sum(1 for one in everything if one.severity == "critical"),
        warning_count=sum(1 for one in everything if one.severity == "warning"),
        checked_bots=len(checked),
        synthetic_drift=bool(synthetic),
        bots=[_bot_status(bot, thresholds, [one for one in findings if one.bot == bot], inputs) for bot in checked],
        findings=[finding_line(one, is_synthetic=one in synthetic) for one in everything],
        accounting_snapshots=[
            _accounting(bot, memory.snapshots[bot], before.get(bot), inputs)
            for bot in checked
            if bot in memory.snapshots
        ],
        problems=inputs.problems,
        lines_read=inputs.lines,
        previous_report=memory.report or None,
        duration_seconds=round(seconds, 3),
    )


def _bot_status(bot: str, thresholds: Thresholds, findings: list[Finding], inputs: Inputs) -> BotStatus:
    own = thresholds.of(bot)
    unjudged = {check for one in findings for check in one.unjudged}
    checks = {check: _standing(check, findings, is_judged=check not in unjudged) for check in CHECKS}
    for code, switch in SWITCH_OF.items():
        check = check_of(code)
        if check in checks and check != "input" and getattr(own, switch) is False:
            checks[check] = "disabled"
    exchange = inputs.exchanges.get(bot)
    if exchange.status in NOT_ASKED if exchange is not None else own.exchange_check_enabled is None:
        checks["exchange"] = "disabled"
    return BotStatus(bot=bot, status=status_of(findings), checks=checks)


def _standing(check: str, findings: list[Finding], *, is_judged: bool) -> str:
    """Return the worst finding of a check; `unknown` where there is none and it could not be judged."""
    worst = status_of(one for one in findings if one.check == check)
    return worst if is_judged or worst != "ok" else "unknown"


def _accounting(bot: str, seen: Seen, before: Seen | None, inputs: Inputs) -> AccountingSnapshot:
    """Return what a bot's books say, beside the cycle before."""
    now, then = seen.values, before.values if before is not None else {}
    exchange, one = inputs.exchanges.get(bot), inputs.of(bot)
    return AccountingSnapshot(
        bot=bot,
        as_of=seen.at,
        equity_quote=as_number(now.get("equity_quote")),
        base_pct=as_number(now.get("base_pct")),
        target_base_pct=as_number(now.get("target_base_pct")),
        external_base_pct=as_number(now.get(EXTERNAL)),
        fees_paid=as_number(now.get("fees_paid")),
        turnover=as_number(now.get("turnover")),
        previous_as_of=before.at if before is not None else None,
        previous_fees_paid=as_number(then.get("fees_paid")),
        previous_turnover=as_number(then.get("turnover")),
        fees_paid_delta=_delta(now.get("fees_paid"), then.get("fees_paid")),
        turnover_delta=_delta(now.get("turnover"), then.get("turnover")),
        fills=one.rows,
        order_filled=one.filled,
        account_probe_status=exchange.status if exchange is not None else None,
    )


def _delta(now: str | None, then: str | None) -> Decimal | None:
    a, b = as_number(now), as_number(then)
    return EXACT.subtract(a, b) if isinstance(a, Decimal) and isinstance(b, Decimal) else None

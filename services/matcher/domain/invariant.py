"""Kind `invariant`: every snapshot of an account is held against the rule's checks, counters also against earlier ones.

A snapshot is judged at once; one that is not newer than the last judged one is not judged. Work per record is bounded
by the checks of the rule (`CHECKS_MAX`) and the closing readings that are remembered (`CLOSINGS_MAX`).
"""

from decimal import Decimal
from typing import NamedTuple

from services.matcher.domain.checks import (
    NotANumber,
    Verdict,
    Wrong,
    count,
    currency_of,
    follow,
    judge_bounds,
    judge_counter,
    judge_growth,
    names_period,
    number,
    period_of,
    reached,
)
from services.matcher.domain.explain_check import explain_check
from services.matcher.domain.finding import NO_SIDE, Finding
from services.matcher.domain.group import Raised
from services.matcher.domain.match import id_reused
from services.matcher.domain.moment import Moment
from services.matcher.domain.revision import bring_in_line, expire, is_open, printed_key
from services.matcher.domain.set_aside import set_aside
from services.matcher.domain.state import Codec, State
from services.matcher.domain.watched import (
    WATCHED,
    Closing,
    Counter,
    Snapshot,
    Watched,
    snapshot_of,
)
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.discrepancy import Check, CheckResult, Resolution, SideEvidence
from shared.contracts.event import from_microseconds
from shared.contracts.leg import Cut, GroupName, Leg, Withdraw, read_group_key
from shared.money import EXACT, format_amount
from shared.rules.invariant_rule import SNAPSHOTS, CheckRule, InvariantRule


class Told(NamedTuple):
    """What a check says of a snapshot, and the finding that is true after it."""

    check: CheckRule
    result: CheckResult
    verdict: Verdict | None = None
    expected: Decimal | None = None
    """Of one that failed."""
    finding: Finding | None = None
    """A new one, or the one that is open as it was."""


class Invariant:
    """Accounts of `invariant` rules."""

    codec: Codec | None = WATCHED

    def __init__(self, state: State) -> None:
        self._state = state

    def apply(self, key: bytes, leg: Leg, rule: InvariantRule, offset: int) -> None:
        """Judge a snapshot, or note a closing reading."""
        state, name = self._state, read_group_key(key)
        checks = rule.checks_of(name.key)
        if checks is None:
            return
        account: Watched | None = state.get(key)
        if account is None:
            account = Watched(rule.generation, leg.id, leg.received_at, leg.received_at + rule.keep_ms)
        snapshot = snapshot_of(leg)
        if _is_other_content(account, snapshot):
            state.changes.dead_letters.append(id_reused(key, leg))
            return
        desk = _Desk(state, key, name, account, rule, state.moment(leg.received_at, offset))
        if snapshot.closing:
            problems = desk.close_period(checks, snapshot)
        elif account.last is not None and snapshot.rank <= account.last.rank:
            desk.say_stale(snapshot)
            return
        else:
            problems = desk.judge(checks, snapshot)
        if problems:
            state.changes.dead_letters.append(_not_a_number(key, leg, problems))
            if snapshot.closing:
                return
        account.touched_at = max(account.touched_at, leg.received_at)
        state.schedule(key, account, _due(account, rule))
        state.put(key, account, settled=self.is_settled(account))

    def fire(self, key: bytes, cell: Watched, rule: InvariantRule, due: int, offset: int) -> None:
        """Expire what is open in an account that says nothing more; forget one that has said nothing for long."""
        state = self._state
        cell.due_at = _due(cell, rule)
        if cell.due_at > due:
            state.timers.set(cell.due_at, key)
            state.put(key, cell, settled=self.is_settled(cell))
            return
        subject = _Subject(cell, rule, read_group_key(key))
        moment = Moment(due + 1, due + 1, state.position(offset))
        standing = [_as_it_was(raised) for raised in cell.raised if raised.open]
        state.changes.discrepancies += expire(cell.raised, standing, subject, rule.expire_ms, moment)
        state.forget(key)

    def rejudge(self, key: bytes, cell: Watched, rule: InvariantRule, offset: int) -> None:
        """Judge the last snapshot under the checks of now; counters keep what they have seen of the same field."""
        state, name = self._state, read_group_key(key)
        cell.generation = rule.generation
        moment = state.moment(max(state.log_time, 0), offset)
        _Desk(state, key, name, cell, rule, moment).judge_again(rule.checks_of(name.key) or ())
        state.schedule(key, cell, _due(cell, rule))
        state.put(key, cell, settled=self.is_settled(cell))

    def close(self, key: bytes, cell: Watched, old: InvariantRule, cause: Resolution, offset: int) -> None:
        """Resolve everything that is open."""
        moment = self._state.moment(max(self._state.log_time, 0), offset)
        subject = _Subject(cell, old, read_group_key(key))
        revisions, _ = bring_in_line(cell.raised, (), subject, moment, cause)
        self._state.changes.discrepancies += revisions

    def cut(self, key: bytes, cell: Watched, rule: InvariantRule, record: Cut, offset: int) -> None:
        """Snapshots stand in no items: there is nothing to publish at a period's end."""

    def withdraw(self, key: bytes, cell: Watched, rule: InvariantRule, record: Withdraw, offset: int) -> None:
        """Take nothing back: a snapshot without an account was never held."""

    def is_settled(self, cell: Watched) -> bool:
        """Tell whether nothing is open: accounts wait for nothing."""
        return not is_open(cell.raised)

    def restored(self, key: bytes, cell: Watched | None) -> None:
        """Accounts need no index."""


class _Desk:
    """One account at one moment: judges, and publishes what it finds."""

    def __init__(
        self, state: State, key: bytes, name: GroupName, account: Watched, rule: InvariantRule, moment: Moment
    ) -> None:
        self._state = state
        self._key = key
        self._name = name
        self._account = account
        self._rule = rule
        self._moment = moment

    def judge(self, checks: tuple[CheckRule, ...], snapshot: Snapshot) -> list[str]:
        """Judge a snapshot by every check; return which fields hold no number."""
        problems: list[str] = []
        told = [self._judge_one(check, snapshot, problems) for check in checks]
        self._account.last = snapshot
        self._align(told, "corrected")
        for one in told:
            self._publish(one, snapshot)
        return problems

    def judge_again(self, checks: tuple[CheckRule, ...]) -> None:
        """Judge the last snapshot again; publish only what another verdict made of it."""
        account = self._account
        fields = {check.code: check.field for check in checks}
        account.counters = [one for one in account.counters if fields.get(one.code) == one.field]
        last = account.last
        told = [] if last is None else [self._judge_again_one(check, last) for check in checks]
        changed = self._align(told, "rule_changed")
        for one in told:
            if last is not None and one.check.code in changed:
                self._publish(one, last)

    def close_period(self, checks: tuple[CheckRule, ...], snapshot: Snapshot) -> list[str]:
        """Note what a period's last reading says; return which fields hold no number, then nothing is noted."""
        account, word = self._account, snapshot.closing
        if any(one.id == snapshot.id for one in account.closings):
            return []
        counters = [check for check in checks if check.has_usage]
        problems: list[str] = []
        readings: dict[str, str] = {}
        for field in sorted({check.field for check in counters}):
            try:
                value = number(snapshot, field)
            except NotANumber as error:
                problems.append(str(error))
                continue
            if value is not None:
                readings[field] = str(value)
        if problems:
            return problems
        account.remember(
            Closing(
                word,
                snapshot.id,
                snapshot.content,
                snapshot.occurred_at,
                snapshot.sequence,
                snapshot.currency,
                readings,
            )
        )
        for check in counters:
            newest = account.closing_of(word, check.field) if names_period(check, word) else None
            if newest is not None and newest.id == snapshot.id:
                read = Decimal(readings[check.field])
                self._say(snapshot, check, "usage", actual=read, period=word, usage=newest)
        return []

    def say_stale(self, snapshot: Snapshot) -> None:
        """Publish that a snapshot came too late to be judged; the last one again says nothing."""
        last = self._account.last
        if last is not None and snapshot.rank < last.rank:
            self._say(snapshot, None, "stale")

    # ---- one check

    def _judge_one(self, check: CheckRule, snapshot: Snapshot, problems: list[str]) -> Told:
        standing = self._standing(check)
        try:
            values = _values(check, snapshot)
        except NotANumber as error:
            if str(error) not in problems:
                problems.append(str(error))
            return Told(check, "error", finding=standing)
        if values is None:
            return Told(check, "skipped", finding=standing)
        value, other = values
        if check.never_decreases:
            return self._told_counter(check, self._count(check, snapshot, value), standing)
        if check.grows_without is not None:
            assert other is not None, "a check of two fields has two values"
            seen = self._follow(check, snapshot, (value, other))
            return _told(check, judge_growth(check, value, seen), snapshot)
        return _told(check, judge_bounds(check, value, other), snapshot)

    def _judge_again_one(self, check: CheckRule, last: Snapshot) -> Told:
        """A counter is judged by what it has seen, everything else by the snapshot."""
        standing, seen = self._standing(check), self._account.counter(check.code)
        if not check.never_decreases and (check.grows_without is None or seen is not None):
            try:
                values = _values(check, last)
            except NotANumber:
                values = None
            if values is None:
                return Told(check, "skipped", finding=standing)
            value, other = values
            verdict = judge_bounds(check, value, other) if seen is None else judge_growth(check, value, seen)
            return _told(check, verdict, last)
        if seen is None:
            return Told(check, "skipped")
        fall = (Decimal(seen.mark), Decimal(seen.last))
        if standing is not None:
            fall = (Decimal(standing.expected or 0), Decimal(standing.actual or 0))
        wrong = reached(check, *fall) if fall[1] < fall[0] else None
        return _told(check, Verdict(Decimal(seen.last), wrong), last)

    def _told_counter(self, check: CheckRule, verdict: Verdict, standing: Finding | None) -> Told:
        """A fall is a finding until the counter is back at the value it fell from."""
        last, top = self._account.counter(check.code), verdict.top
        assert last is not None, "the reading has been counted"
        assert top is not None, "a counter has one"
        if verdict.wrong is not None:
            return _failed(check, verdict, verdict.wrong, last.currency)
        if standing is None or (
            verdict.actual >= Decimal(standing.expected or 0) and last.currency == standing.currency
        ):
            return Told(check, "passed", verdict)
        if verdict.actual < top:
            return Told(check, "failed", verdict, top, standing)
        return Told(check, "passed", verdict, finding=standing)

    def _count(self, check: CheckRule, snapshot: Snapshot, value: Decimal) -> Verdict:
        currency = currency_of(check, snapshot.currency)
        period = period_of(check, snapshot, self._rule.zone)
        seen = self._account.counter(check.code)
        if seen is not None and (seen.period, seen.currency) != (period, currency):
            seen = None
        self._remember(count(check, currency, period, value, seen))
        return judge_counter(check, value, seen)

    def _follow(self, check: CheckRule, snapshot: Snapshot, pair: tuple[Decimal, Decimal]) -> Counter:
        currency = currency_of(check, snapshot.currency)
        period = period_of(check, snapshot, self._rule.zone)
        seen = self._account.counter(check.code)
        if seen is not None and seen.currency != currency:
            seen = None
        now = follow(check, currency, period, pair, seen)
        self._remember(now)
        return now

    def _remember(self, counter: Counter) -> None:
        kept = [one for one in self._account.counters if one.code != counter.code]
        self._account.counters = [*kept, counter]

    def _standing(self, check: CheckRule) -> Finding | None:
        """Return what is open of a check, as it was said."""
        raised = next((one for one in self._account.raised if one.name == check.code and one.open), None)
        return None if raised is None else _as_it_was(raised)

    # ---- what is published

    def _align(self, told: list[Told], cause: Resolution) -> set[str]:
        """Publish new revisions; return the codes that have one."""
        account = self._account
        subject = _Subject(account, self._rule, self._name)
        findings = [one.finding for one in told if one.finding is not None]
        revisions, account.raised = bring_in_line(account.raised, findings, subject, self._moment, cause)
        self._state.changes.discrepancies += revisions
        return {revision.type for revision in revisions}

    def _publish(self, told: Told, snapshot: Snapshot) -> None:
        check, verdict = told.check, told.verdict
        if verdict is None:
            self._say(snapshot, check, told.result)
            return
        period = period_of(check, snapshot, self._rule.zone) if check.has_usage else None
        closing = None if period is None else self._account.closing_of(period, check.field)
        self._say(
            snapshot, check, told.result, expected=told.expected, actual=verdict.actual, period=period, usage=closing
        )

    def _say(
        self,
        snapshot: Snapshot,
        check: CheckRule | None,
        result: CheckResult,
        *,
        expected: Decimal | None = None,
        actual: Decimal | None = None,
        period: str | None = None,
        usage: Closing | None = None,
    ) -> None:
        """Publish a verdict; without a closing reading, usage of a period is the reading itself."""
        currency = None if check is None else currency_of(check, snapshot.currency)
        difference = None if expected is None or actual is None else EXACT.subtract(actual, expected)
        self._state.changes.checks.append(
            (
                self._key,
                Check(
                    org=self._name.org,
                    rule=self._name.rule,
                    pack=self._rule.pack,
                    key=printed_key(self._name.key),
                    code=None if check is None else check.code,
                    result=result,
                    currency=currency,
                    as_of=from_microseconds(snapshot.occurred_at),
                    expected=_printed(expected, currency),
                    actual=_printed(actual, currency),
                    difference=_printed(difference, currency),
                    log=self._moment.log,
                    reason="not a number" if result == "error" else None,
                    period=period,
                    usage=_usage(check, usage, actual, currency) if period is not None else None,
                    partial=usage is None if period is not None else None,
                    shadow=self._rule.shadow,
                ),
            )
        )


class _Subject(NamedTuple):
    """An account as the subject of its discrepancies."""

    watched: Watched
    rule: InvariantRule
    name: GroupName

    @property
    def opener(self) -> str:
        return self.watched.opener

    @property
    def account(self) -> str | None:
        at = self.rule.account_at
        return None if at is None else self.name.key[at]

    def side_name(self, _side: int, /) -> str:
        return SNAPSHOTS

    def evidence(self, _raised: Raised, _finding: Finding | None, /) -> dict[str, SideEvidence | None]:
        """Return the last judged snapshot."""
        last = self.watched.last
        if last is None:
            return {SNAPSHOTS: None}
        return {
            SNAPSHOTS: SideEvidence(
                id=last.id,
                source=last.source,
                record=last.record,
                amount=None if last.amount is None else format_amount(Decimal(last.amount), last.currency),
                currency=last.currency,
                status=last.status,
                occurred_at=from_microseconds(last.occurred_at),
            )
        }

    def explain(self, finding: Finding) -> str:
        """Say which value breaks which check."""
        checks = self.rule.checks_of(self.name.key) or self.rule.checks
        check = next((one for one in checks if one.code == finding.name), None)
        who = " ".join(self.name.key)
        return f"{who}: {finding.name}." if check is None else explain_check(who, check, finding)


def _due(account: Watched, rule: InvariantRule) -> int:
    return account.touched_at + (rule.expire_ms if is_open(account.raised) else rule.keep_ms)


def _values(check: CheckRule, snapshot: Snapshot) -> tuple[Decimal, Decimal | None] | None:
    """Return what a check reads: its field and the one beside it; None where one is absent."""
    values = [number(snapshot, field) for field in check.fields]
    if any(value is None for value in values):
        return None
    value, *others = values
    assert value is not None
    return value, others[0] if others else None


def _told(check: CheckRule, verdict: Verdict, snapshot: Snapshot) -> Told:
    if verdict.wrong is None:
        return Told(check, "passed", verdict)
    return _failed(check, verdict, verdict.wrong, currency_of(check, snapshot.currency))


def _failed(check: CheckRule, verdict: Verdict, wrong: Wrong, currency: str | None) -> Told:
    finding = Finding(
        name=check.code,
        type=check.code,
        side=NO_SIDE,
        expected=format_amount(wrong.expected, currency),
        actual=format_amount(wrong.actual, currency),
        difference=EXACT.subtract(wrong.actual, wrong.expected),
        currency=currency,
        severity=wrong.severity,
    )
    return Told(check, "failed", verdict, wrong.expected, finding)


def _as_it_was(raised: Raised) -> Finding:
    """Return what is open as it was last said: it stays true and is nothing new."""
    return Finding(
        name=raised.name,
        type=raised.type,
        side=raised.side,
        expected=raised.expected,
        actual=raised.actual,
        difference=EXACT.subtract(Decimal(raised.actual or 0), Decimal(raised.expected or 0)),
        currency=raised.currency,
        severity=raised.severity,  # type: ignore[arg-type]  # kept as text in packed state
    )


def _is_other_content(account: Watched, snapshot: Snapshot) -> bool:
    """Tell whether the id stands for something else that is remembered: the last snapshot, or a closing reading."""
    held = [] if account.last is None else [(account.last.id, account.last.content)]
    held += [(one.id, one.content) for one in account.closings]
    return any(id_ == snapshot.id and content != snapshot.content for id_, content in held)


def _printed(value: Decimal | None, currency: str | None) -> str | None:
    return None if value is None else format_amount(value, currency)


def _usage(
    check: CheckRule | None, closing: Closing | None, actual: Decimal | None, currency: str | None
) -> str | None:
    if closing is None or check is None:
        return _printed(actual, currency)
    return format_amount(Decimal(closing.readings[check.field]), currency_of(check, closing.currency))


def _not_a_number(key: bytes, leg: Leg, problems: list[str]) -> DeadLetter:
    return set_aside(
        key,
        leg,
        "not a number",
        f"{leg.source} event {leg.id}: {', '.join(problems)}, which cannot be checked",
        "Write plain decimals, e.g. 0.05; fix the producer and send the reading again under a new id.",
    )

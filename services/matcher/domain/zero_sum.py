"""Kind `zero_sum`: one group is one transaction, whose entries add up to nothing in every currency.

A transaction is judged once it has as many live entries as one of them states, else from its deadline on. Work per
record is bounded by the entries of one transaction.
"""

from decimal import Decimal
from typing import NamedTuple

import msgspec

from services.matcher.domain import explain
from services.matcher.domain.finding import NO_SIDE, Finding
from services.matcher.domain.group import Group, Raised, Record, hold, is_settled, supersede
from services.matcher.domain.match import CAUSES, id_reused
from services.matcher.domain.moment import UNKNOWN, Moment
from services.matcher.domain.revise import evidence_of, sum_evidence
from services.matcher.domain.revision import bring_in_line, expire, is_open, printed_key
from services.matcher.domain.state import Codec, State
from shared.contracts.discrepancy import Check, Discrepancy, Resolution, SideEvidence
from shared.contracts.event import from_milliseconds
from shared.contracts.leg import Cut, GroupName, Leg, Withdraw, read_group_key
from shared.likeness import Money
from shared.money import EXACT, exact_sum, format_amount
from shared.rules.extract.zero_sum import LEAVES, STATED
from shared.rules.zero_sum_rule import ENTRIES, IMBALANCE, ZeroSumRule

ZERO = Decimal(0)
INCOMPLETE = "incomplete"
UNBALANCED = "unbalanced"


class Judged(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """The last verdict that was published of one currency of a transaction."""

    currency: str
    sum: str
    reason: str | None
    entries: int
    of: int | None


class Transaction(Group):
    """A group of entries, with what was last said of each of its currencies."""

    judged: list[Judged] | None = None


TRANSACTIONS = Codec(1, Transaction)


class Sum(NamedTuple):
    """What a transaction has in one currency."""

    currency: str
    amount: Decimal
    records: tuple[Record, ...]
    """Live entries; adjustments are in the amount only."""
    reason: str | None
    """Why it is wrong; None: it is not."""


class ZeroSum:
    """Groups of `zero_sum` rules."""

    codec = TRANSACTIONS

    def __init__(self, state: State) -> None:
        self._state = state

    def apply(self, key: bytes, leg: Leg, rule: ZeroSumRule, offset: int) -> None:
        """Hold an entry in its transaction and judge that again when it changed something."""
        state = self._state
        group: Transaction | None = state.get(key)
        if leg.values is not None and LEAVES in leg.values:
            if group is not None:
                self._leave(key, group, rule, (leg.source, leg.record), state.moment(leg.received_at, offset))
            return
        if group is None:
            group = Transaction(rule.generation, leg.id, leg.received_at, leg.received_at + rule.keep_ms, UNKNOWN, [])
        superseded_before = len(group.superseded or ())
        effect = hold(group, leg, rule.entries.is_live)
        if effect == "id reused":
            state.changes.dead_letters.append(id_reused(key, leg))
            return
        if effect in {"no-op", "older event"}:
            # An entry's first date decides nothing here; what it supersedes does.
            if len(group.superseded or ()) == superseded_before:
                if effect == "older event":
                    state.put(key, group, settled=is_settled(group))
                return
            effect = "older event"
        if group.armed_at == UNKNOWN and _live(group, rule):
            group.armed_at = leg.received_at
        group.touched_at = max(group.touched_at, leg.received_at)
        self._judge(key, group, rule, state.moment(leg.received_at, offset), CAUSES[effect])

    def fire(self, key: bytes, cell: Transaction, rule: ZeroSumRule, due: int, offset: int) -> None:
        """Judge at the deadline; expire what was open too long; forget what was settled long enough."""
        state = self._state
        moment = Moment(due + 1, due + 1, state.position(offset))
        sums = judge(cell, rule, moment.log_time)
        revisions = self._say(key, cell, rule, sums, moment, "corrected")
        if not revisions and not cell.waits:
            if is_open(cell.raised) and cell.touched_at + rule.expire_ms <= due:
                subject, findings = _Entries(cell, rule, read_group_key(key)), _findings(sums)
                state.changes.discrepancies += expire(cell.raised or (), findings, subject, rule.expire_ms, moment)
                state.forget(key)
                return
            if not is_open(cell.raised) and cell.touched_at + rule.keep_ms <= due:
                state.forget(key)
                return
        cell.due_at = _next_due(cell, rule)
        state.timers.set(cell.due_at, key)
        state.put(key, cell, settled=is_settled(cell))

    def rejudge(self, key: bytes, cell: Transaction, rule: ZeroSumRule, offset: int) -> None:
        """Judge a transaction under a new generation, in place; its deadline is counted from its first live entry."""
        cell.generation = rule.generation
        if cell.armed_at == UNKNOWN and _live(cell, rule):
            cell.armed_at = max(self._state.log_time, 0)
        self._judge(key, cell, rule, self._state.moment(max(self._state.log_time, 0), offset), "rule_changed")

    def close(self, key: bytes, cell: Transaction, old: ZeroSumRule, cause: Resolution, offset: int) -> None:
        """Resolve everything that is open."""
        state = self._state
        moment = state.moment(max(state.log_time, 0), offset)
        subject = _Entries(cell, old, read_group_key(key))
        revisions, _ = bring_in_line(cell.raised or (), (), subject, moment, cause)
        state.changes.discrepancies += revisions

    def cut(self, key: bytes, cell: Transaction, rule: ZeroSumRule, record: Cut, offset: int) -> None:
        """Entries stand in no items: there is nothing to publish at a period's end."""

    def withdraw(self, key: bytes, cell: Transaction, rule: ZeroSumRule, record: Withdraw, offset: int) -> None:
        """Let an entry never count again here."""
        moment = self._state.moment(record.received_at, offset)
        self._leave(key, cell, rule, (record.source, record.record), moment)

    def _leave(
        self, key: bytes, group: Transaction, rule: ZeroSumRule, record: tuple[str, str], moment: Moment
    ) -> None:
        if supersede(group, *record):
            group.touched_at = max(group.touched_at, moment.at)
            self._judge(key, group, rule, moment, "superseded")
        else:
            self._state.put(key, group, settled=is_settled(group))

    def is_settled(self, cell: Transaction) -> bool:
        """Tell whether a transaction waits for nothing but `keep`."""
        return is_settled(cell)

    def restored(self, key: bytes, cell: Transaction | None) -> None:
        """Transactions need no index."""

    def _judge(self, key: bytes, group: Transaction, rule: ZeroSumRule, moment: Moment, cause: Resolution) -> None:
        """Judge the transaction, publish what changed, set its timer."""
        self._say(key, group, rule, judge(group, rule, moment.log_time), moment, cause)
        self._state.schedule(key, group, _next_due(group, rule))
        self._state.put(key, group, settled=is_settled(group))

    def _say(
        self,
        key: bytes,
        group: Transaction,
        rule: ZeroSumRule,
        sums: list[Sum] | None,
        moment: Moment,
        cause: Resolution,
    ) -> list[Discrepancy]:
        """Publish verdicts and discrepancies as far as they are new; note whether the deadline is waited for."""
        name = read_group_key(key)
        group.waits = sums is None and group.armed_at != UNKNOWN
        self._publish_checks(key, name, group, rule, sums, moment)
        subject = _Entries(group, rule, name)
        revisions, kept = bring_in_line(group.raised or (), _findings(sums), subject, moment, cause)
        group.raised = kept or None
        if revisions:
            group.touched_at = max(group.touched_at, moment.at)
        self._state.changes.discrepancies += revisions
        return revisions

    def _publish_checks(
        self,
        key: bytes,
        name: GroupName,
        group: Transaction,
        rule: ZeroSumRule,
        sums: list[Sum] | None,
        moment: Moment,
    ) -> None:
        """Publish the verdict of each currency that is another one than before."""
        if sums is None:
            return
        before = {judged.currency: judged for judged in group.judged or ()}
        entries, of = len(_live(group, rule)), _stated(group, rule)
        for one in sums:
            text = format_amount(one.amount, one.currency)
            judged = Judged(one.currency, text, one.reason, entries, of)
            if before.get(one.currency) == judged:
                continue
            before[one.currency] = judged
            check = Check(
                org=name.org,
                rule=name.rule,
                pack=rule.pack,
                key=printed_key(name.key),
                code=None,
                result="failed" if one.reason else "passed",
                currency=one.currency,
                as_of=from_milliseconds(group.armed_at),
                expected=format_amount(ZERO, one.currency),
                actual=text,
                difference=text,
                log=moment.log,
                reason=one.reason,
                entries=entries,
                of=of,
                shadow=rule.shadow,
            )
            self._state.changes.checks.append((key, check))
        group.judged = list(before.values()) or None


def judge(group: Transaction, rule: ZeroSumRule, log_time: int) -> list[Sum] | None:
    """Return what the transaction has in each currency, now or when it was last judged; None: it is not judged yet."""
    live, stated = _live(group, rule), _stated(group, rule)
    is_complete = stated is not None and len(live) >= stated
    if not is_complete and (group.armed_at == UNKNOWN or log_time <= _deadline(group, rule)):
        return None
    records: dict[str, list[Record]] = {}
    amounts: dict[str, list[Decimal]] = {judged.currency: [] for judged in group.judged or ()}
    for record in live:
        records.setdefault(record.currency or "", []).append(record)
    for record in [*live, *(_adjustments(group, rule) if live else ())]:
        amounts.setdefault(record.currency or "", []).append(Decimal(record.amount or 0))
    present = {record.currency or "" for record in [*live, *(_adjustments(group, rule) if live else ())]}
    sums = []
    for currency in sorted(amounts):
        amount = exact_sum(amounts[currency])
        too_few = stated is not None and not is_complete and currency in present
        reason = INCOMPLETE if too_few else UNBALANCED if amount else None
        sums.append(Sum(currency, amount, tuple(records.get(currency, ())), reason))
    return sums


def _live(group: Transaction, rule: ZeroSumRule) -> list[Record]:
    is_live = rule.entries.is_live
    return [record for record in group.records if is_live(record.status) and record.amount is not None]


def _adjustments(group: Transaction, rule: ZeroSumRule) -> list[Record]:
    is_live = rule.entries.is_live
    return [entry for entry in group.adjustments or () if is_live(entry.status) and entry.amount is not None]


def _stated(group: Transaction, rule: ZeroSumRule) -> int | None:
    """Return the greatest number of entries that a live one states."""
    stated = [int(record.values[STATED]) for record in _live(group, rule) if record.values]
    return max(stated, default=None)


def _deadline(group: Transaction, rule: ZeroSumRule) -> int:
    return rule.entries.deadline.after(group.armed_at)


def _next_due(group: Transaction, rule: ZeroSumRule) -> int:
    """Return when the transaction has to be looked at again: its deadline, else `expire`, else `keep`."""
    if group.waits:
        return _deadline(group, rule)
    return group.touched_at + (rule.expire_ms if is_open(group.raised) else rule.keep_ms)


def _findings(sums: list[Sum] | None) -> list[Finding]:
    return [
        Finding(
            name=one.currency,
            type=IMBALANCE,
            side=NO_SIDE,
            expected=format_amount(ZERO, one.currency),
            actual=format_amount(one.amount, one.currency),
            difference=one.amount,
            currency=one.currency,
            records=one.records,
            by_currency=True,
            reason=one.reason,
        )
        for one in sums or ()
        if one.reason
    ]


class _Entries(NamedTuple):
    """A transaction as the subject of its discrepancies."""

    group: Transaction
    rule: ZeroSumRule
    name: GroupName
    account: str | None = None

    @property
    def opener(self) -> str:
        return self.group.opener

    def side_name(self, side: int) -> str:
        return self.rule.sides[side].name

    def evidence(self, raised: Raised, _finding: Finding | None, /) -> dict[str, SideEvidence | None]:
        """Return the live entries of the currency, with their sum."""
        live = [record for record in _live(self.group, self.rule) if record.currency == raised.currency]
        adjusting = [entry for entry in _adjustments(self.group, self.rule) if entry.currency == raised.currency]
        if not live and not adjusting:
            return {ENTRIES: None}
        return {ENTRIES: sum_evidence(live, [evidence_of(entry) for entry in adjusting])}

    def explain(self, finding: Finding) -> str:
        """Say what is missing, or by how much the entries differ."""
        live = _live(self.group, self.rule)
        money = f"{finding.actual} {finding.currency}"
        what = f"transaction {' '.join(self.name.key)}"
        if finding.reason == INCOMPLETE:
            waited = explain.waited(self.rule.entries.deadline)
            there = f"{len(live)} of {_stated(self.group, self.rule)} entries"
            return f"{explain.title(what)} has {there} after {waited}; those in {finding.currency} add up to {money}."
        entries = "1 entry" if len(finding.records) == 1 else f"{len(finding.records)} entries"
        return (
            f"{explain.title(what)} does not balance: its {entries} in {finding.currency} add up to {money} "
            f"instead of {finding.expected}{_likely(finding)}."
        )


def _likely(finding: Finding) -> str:
    """A clause about the likely cause, where one debit stands against one credit."""
    if len(finding.records) != 2:
        return ""
    one, other = (Decimal(record.amount or 0) for record in finding.records)
    if not (one < ZERO < other or other < ZERO < one) or EXACT.add(one, other) != finding.difference:
        return ""
    return explain.likely_clause(Money(abs(one), finding.currency, None), Money(abs(other), finding.currency, None))

"""Kind `balance`: what an account should hold by its movements, against what readings say it holds.

A reading is judged `settle` after its receipt; a change of what counts in the latest judged one judges it again. Work
per record: one page of movements is written, and one verdict made of sums that are kept; see `ledger`.
"""

from decimal import Decimal
from typing import NamedTuple

from services.matcher.domain.account import (
    ACCOUNTS,
    GONE,
    MOVEMENT,
    Account,
    AccountCell,
    Book,
    Entry,
    Reading,
    Total,
    head_key,
    is_settled,
)
from services.matcher.domain.drift import Drift, Verdict, findings, judge
from services.matcher.domain.explain import lasting
from services.matcher.domain.group import Raised
from services.matcher.domain.ledger import Ledger, gone, record_name
from services.matcher.domain.moment import UNKNOWN, Moment
from services.matcher.domain.reads import Reads
from services.matcher.domain.revision import bring_in_line, printed_key
from services.matcher.domain.set_aside import set_aside
from services.matcher.domain.state import State
from services.matcher.domain.timers import NEVER
from shared.contracts.dead_letter import Reason
from shared.contracts.discrepancy import Check, CheckResult, LogPosition, Resolution
from shared.contracts.event import from_microseconds
from shared.contracts.leg import Cut, GroupName, Leg, Withdraw, group_key, read_group_key
from shared.money import EXACT, format_amount
from shared.rules.balance_rule import PARTS_JOINED_BY, BalanceRule
from shared.rules.extract.balance import ERROR, READING

LEDGERS_MAX = 4096
"""Accounts whose index is held; that of another one is built from its pages when it is needed."""


class _Change(NamedTuple):
    """What a leg did to one record."""

    before: Entry | None
    after: Entry | None


class Balance:
    """Accounts of `balance` rules."""

    codec = ACCOUNTS

    def __init__(self, state: State) -> None:
        self._state = state
        self._ledgers: dict[bytes, Ledger] = {}
        """Least recently used first."""
        self._reads: dict[bytes, Reads] = {}

    # ---- what the core asks

    def apply(self, key: bytes, leg: Leg, rule: BalanceRule, offset: int) -> None:
        """Hold a movement, or judge by a reading."""
        cell: AccountCell | None = self._state.get(key)
        if cell is None:
            cell = AccountCell(rule.generation, account=Account(leg.id))
        held = _Held(self, key, cell, rule)
        if leg.side == READING:
            _read(held, leg, offset)
        else:
            _move(held, leg, offset)

    def fire(self, key: bytes, cell: AccountCell, rule: BalanceRule, due: int, offset: int) -> None:
        """Judge readings that have settled; fold what is older than `keep`; forget the names of what was folded."""
        if cell.account is None:
            return
        state, account = self._state, cell.account
        held = _Held(self, key, cell, rule)
        now = due + 1
        moment = Moment(now, now, state.position(offset))
        for book in account.books:
            while book.waiting and book.waiting[0].read_at + rule.settle_ms <= due:
                held.judge_next(book, moment)
        if account.look_at <= due:
            held.ledger.fold(account, now, rule.generation)
        if account.forget_at <= due:
            held.ledger.forget(account, now)
        if account.unread_at <= due:
            held.reads.forget(account, now)
        cell.due_at = _next_due(account, rule)
        state.timers.set(cell.due_at, key)
        state.put(key, cell, settled=is_settled(cell))

    def rejudge(self, key: bytes, cell: AccountCell, rule: BalanceRule, offset: int) -> None:
        """Judge the latest judged reading of each currency under a new generation, in place."""
        account = cell.account
        if account is None:
            return
        self._ledgers.pop(key, None)
        self._reads.pop(key, None)
        cell.generation = rule.generation
        now = max(self._state.log_time, 0)
        moment = self._state.moment(now, offset)
        held = _Held(self, key, cell, rule)
        for book in account.books:
            held.take_opening_of_rule(book, moment)
        if account.moved.first < account.moved.next:
            account.look_at = min(account.look_at, now)
        if account.reads.first < account.reads.next:
            account.unread_at = min(account.unread_at, now)
        for book in account.books:
            held.say(book, moment, "rule_changed")
        held.store()

    def close(self, key: bytes, cell: AccountCell, old: BalanceRule, cause: Resolution, offset: int) -> None:
        """Resolve everything that is open."""
        if cell.account is None:
            return
        state = self._state
        moment = state.moment(max(state.log_time, 0), offset)
        held = _Held(self, key, cell, old)
        for book in cell.account.books:
            revisions, _ = bring_in_line(book.raised or (), (), held.drift(book), moment, cause)
            state.changes.discrepancies += revisions

    def cut(self, key: bytes, cell: AccountCell, rule: BalanceRule, record: Cut, offset: int) -> None:
        """Movements stand in no items: there is nothing to publish at a period's end."""

    def withdraw(self, key: bytes, cell: AccountCell, rule: BalanceRule, record: Withdraw, offset: int) -> None:
        """Movements without an account are held nowhere."""

    def is_settled(self, cell: AccountCell) -> bool:
        """Tell whether a cell waits for nothing; an account is never forgotten, or its opening balance would be lost."""
        return is_settled(cell)

    def restored(self, key: bytes, cell: AccountCell | None) -> None:  # noqa: ARG002 - protocol
        """Drop the index of the account: it is built again from the pages."""
        if self._ledgers or self._reads:
            self._ledgers.pop(head_key(key), None)
            self._reads.pop(head_key(key), None)

    # ---- for `_Held`

    @property
    def state(self) -> State:
        """The state that accounts stand in."""
        return self._state

    def ledger(self, key: bytes, account: Account, rule: BalanceRule, name: str) -> Ledger:
        """Return the index of an account's movements."""
        ledger = self._ledgers.pop(key, None)
        if ledger is None:
            ledger = Ledger(self._state, key, account, rule, name)
            if len(self._ledgers) >= LEDGERS_MAX:
                del self._ledgers[next(iter(self._ledgers))]
        self._ledgers[key] = ledger
        return ledger

    def reads(self, key: bytes, account: Account, rule: BalanceRule) -> Reads:
        """Return what is remembered of an account's readings."""
        reads = self._reads.pop(key, None)
        if reads is None:
            reads = Reads(self._state, key, account, rule)
            if len(self._reads) >= LEDGERS_MAX:
                del self._reads[next(iter(self._reads))]
        self._reads[key] = reads
        return reads

    def drop_ledger(self, key: bytes) -> None:
        """Let the index of an account be built again: what counts is another set of movements."""
        self._ledgers.pop(key, None)


class _Held:
    """One account while a record is applied to it."""

    def __init__(self, kind: Balance, key: bytes, cell: AccountCell, rule: BalanceRule) -> None:
        assert cell.account is not None, "a head"
        self.kind = kind
        self.state = kind.state
        self.key = key
        self.cell = cell
        self.account = cell.account
        self.rule = rule
        self.name: GroupName = read_group_key(key)
        self.account_name = PARTS_JOINED_BY.join(self.name.key)
        self.watch = rule.watch_of(self.account_name)
        self._ledger: Ledger | None = None

    @property
    def ledger(self) -> Ledger:
        """Its movements."""
        if self._ledger is None:
            self._ledger = self.kind.ledger(self.key, self.account, self.rule, self.account_name)
        return self._ledger

    @property
    def reads(self) -> Reads:
        """Its readings."""
        return self.kind.reads(self.key, self.account, self.rule)

    def given(self, book: Book) -> Decimal | None:
        """Return the opening balance that the rule gives."""
        return self.rule.given_opening(self.account_name, book.currency)

    def drift(self, book: Book) -> Drift:
        """Return a balance as the subject of its mismatch."""
        return Drift(self.account, book, self.rule, self.name, self.account_name, self.ledger)

    def store(self) -> None:
        """Put the head into the state and set its timer."""
        self.state.schedule(self.key, self.cell, _next_due(self.account, self.rule))
        self.state.put(self.key, self.cell, settled=is_settled(self.cell))

    def dead_letter(self, reason: Reason, leg: Leg, detail: str, hint: str) -> None:
        """Set a leg aside; an account that is not watched has nothing to complain about."""
        if not self.watch.enabled:
            return
        self.state.changes.dead_letters.append(
            set_aside(self.key, leg, reason, f"{leg.source} event {leg.id} {detail}", hint)
        )

    def id_reused(self, leg: Leg) -> None:
        """Set aside an event whose id is held with other content."""
        self.dead_letter(
            "id reused",
            leg,
            f"came again with other content for {self.rule.noun} {self.account_name}; the first one counts",
            "Give every notification an id of its own and send the correction again under a new id.",
        )

    def is_old(self, occurred_at: int, limit_ms: int) -> bool:
        """Tell whether a time (microseconds) lies further back than a limit before log time."""
        log_time = self.state.log_time
        return log_time != UNKNOWN and occurred_at < (log_time - limit_ms) * 1000

    # ---- verdicts

    def take_opening_of_rule(self, book: Book, moment: Moment) -> None:
        """Under a changed rule: the latest judged reading becomes the opening, or the opening one is judged."""
        if self.given(book) is not None:
            book.judged = book.judged or book.opening
        elif book.opening is None and book.judged is not None:
            self.open(book, book.judged, moment.log)
            book.raised = self.resolve(book, moment, "rule_changed")
        elif book.opening is not None and book.judged is not None and book.judged.as_of <= book.opening.as_of:
            book.judged = None

    def open(self, book: Book, reading: Reading, log: LogPosition) -> None:
        """Let a reading be the opening balance: what is dated at or before it counts no longer."""
        book.ignored = _joined(book.ignored, book.counted, book.later)
        book.counted, book.later = Total(), Total()
        book.opening, book.judged, book.said = reading, None, None
        self.kind.drop_ledger(self.key)
        self._ledger = None
        self.publish(book.currency, reading.as_of, "opening", log, actual=reading.amount)

    def judge_next(self, book: Book, moment: Moment) -> None:
        """Judge the reading that has waited longest."""
        reading = book.waiting[0]
        book.waiting = book.waiting[1:]
        self.ledger.advance(self.account, book.currency, reading.as_of)
        book.counted = _joined(book.counted, book.later)
        book.later = Total()
        book.judged, book.said = reading, None
        if self.account.is_blocked:
            self.account.look_at = min(self.account.look_at, moment.log_time)
        self.say(book, moment, "corrected")

    def say(self, book: Book, moment: Moment, cause: Resolution) -> None:
        """Publish the verdict on the latest judged reading as far as it is new; `cause` is what made a mismatch untrue."""
        drift = self.drift(book)
        verdict = judge(drift) if self.watch.enabled else None
        if verdict is not None and book.judged is not None:
            self._publish_verdict(book, book.judged, verdict, moment)
        found = findings(drift, verdict)
        revisions, kept = bring_in_line(book.raised or (), found, drift, moment, cause)
        book.raised = kept or None
        self.state.changes.discrepancies += revisions

    def resolve(self, book: Book, moment: Moment, cause: Resolution) -> list[Raised] | None:
        """Resolve what is open; return what is kept of it."""
        revisions, kept = bring_in_line(book.raised or (), (), self.drift(book), moment, cause)
        self.state.changes.discrepancies += revisions
        return kept or None

    def _publish_verdict(self, book: Book, reading: Reading, verdict: Verdict, moment: Moment) -> None:
        currency = book.currency
        result: CheckResult = "passed" if verdict.passed else "failed"
        expected = format_amount(verdict.expected, currency)
        explained = format_amount(verdict.explained, currency)
        if book.said == (result, expected, explained):
            return
        book.said = (result, expected, explained)
        self.publish(
            currency,
            reading.as_of,
            result,
            moment.log,
            actual=reading.amount,
            expected=expected,
            difference=format_amount(verdict.drift, currency),
            explained=explained,
            unexplained=format_amount(EXACT.subtract(verdict.drift, verdict.explained), currency),
        )

    def publish(
        self,
        currency: str | None,
        as_of: int,
        result: CheckResult,
        log: LogPosition,
        *,
        actual: str | None = None,
        expected: str | None = None,
        difference: str | None = None,
        explained: str | None = None,
        unexplained: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Publish a verdict on a reading under a key of its currency; `as_of` in microseconds."""
        if not self.watch.enabled:
            return
        check = Check(
            org=self.name.org,
            rule=self.name.rule,
            pack=self.rule.pack,
            key=printed_key(self.name.key),
            code=None,
            result=result,
            currency=currency,
            as_of=from_microseconds(as_of),
            expected=expected,
            actual=None if actual is None else format_amount(Decimal(actual), currency),
            difference=difference,
            log=log,
            reason=reason,
            explained=explained,
            unexplained=unexplained,
            shadow=self.rule.shadow,
        )
        key = self.key if currency is None else group_key(self.name.org, self.name.rule, (*self.name.key, currency))
        self.state.changes.checks.append((key, check))


# ---- readings


def _read(held: _Held, leg: Leg, offset: int) -> None:
    """Take a reading: the opening balance, one that waits to be judged, or one that is too old to be."""
    state, rule, account = held.state, held.rule, held.account
    moment = state.moment(leg.received_at, offset)
    if leg.values and ERROR in leg.values:
        held.publish(leg.currency, leg.occurred_at, "error", moment.log, reason=leg.values[ERROR])
        return
    book = account.book(leg.currency) or Book(leg.currency)
    known = book.readings()
    reading = Reading(
        leg.occurred_at,
        leg.sequence,
        leg.id,
        leg.source,
        leg.record,
        leg.amount or "0",
        leg.status,
        max([leg.received_at, *(one.read_at for one in known)]),
    )
    if any(one.id == leg.id and not _same(one, reading) for one in known):
        held.id_reused(leg)
        return
    latest = max((one.as_of for one in known), default=reading.as_of)
    if reading.as_of < latest:
        _read_late(held, reading, leg.currency, moment.log)
        return
    if any(one.as_of == reading.as_of and reading.rank <= one.rank for one in known):
        return
    if held.is_old(reading.as_of, rule.expire_ms):
        _read_too_late(held, leg, moment.log)
        return
    book = account.open_book(leg.currency)
    held.reads.remember(account, reading, leg.currency)
    if held.given(book) is None and (book.opening is None or book.opening.as_of == reading.as_of):
        held.open(book, reading, moment.log)
    else:
        book.waiting = [*(one for one in book.waiting if one.as_of != reading.as_of), reading]
        while not rule.settle_ms and book.waiting:
            held.judge_next(book, moment)
    held.store()


def _same(one: Reading, other: Reading) -> bool:
    """Tell whether two readings of one id say the same."""
    return (
        one.as_of == other.as_of
        and one.sequence == other.sequence
        and one.amount == other.amount
        and one.source == other.source
        and one.record == other.record
        and one.status == other.status
    )


def _read_late(held: _Held, reading: Reading, currency: str | None, log: LogPosition) -> None:
    """A reading older than the latest one is lost; one that has been read before is nothing.

    Nothing is known any more of readings older than `expire`: such a one says nothing that matters.
    """
    if held.is_old(reading.as_of, held.rule.expire_ms):
        return
    rank = held.reads.rank(currency, reading.as_of)
    if rank is not None and reading.rank <= rank:
        return
    held.reads.remember(held.account, reading, currency)
    held.publish(currency, reading.as_of, "stale", log, actual=reading.amount)
    held.store()


def _read_too_late(held: _Held, leg: Leg, log: LogPosition) -> None:
    """A reading older than what is held of the movements: which of the folded ones it knew cannot be told."""
    reason: Reason = "too late"
    held.dead_letter(
        reason,
        leg,
        f"reads {held.rule.noun} {held.account_name} as of {from_microseconds(leg.occurred_at):%Y-%m-%d %H:%M} UTC, "
        f"which is longer ago than movements are held",
        "Read the balance again; or give it as `opening` in the rule.",
    )
    held.publish(leg.currency, leg.occurred_at, "error", log, reason=reason)


# ---- movements


def _move(held: _Held, leg: Leg, offset: int) -> None:
    """Take a movement or an adjustment; judge again where the latest judged reading rests on it."""
    if leg.adjusts is None and held.is_old(leg.occurred_at, held.rule.keep_ms):
        _too_late(held, leg, "is dated")
        return
    own = _find(held, leg.source, leg.record)
    if _holds_other(held, leg):
        held.id_reused(leg)
        return
    victim_name = leg.supersedes if leg.supersedes not in {None, leg.record} else None
    victim = None if victim_name is None else _find(held, leg.source, victim_name)
    is_newer = own is None or (own.kind != GONE and _entry_of(leg).rank > own.rank)
    changes_own = is_newer and _counts_for_good(held, leg.source, leg.record, own)
    if changes_own or (victim_name is not None and _counts_for_good(held, leg.source, victim_name, victim)):
        _too_late(held, leg, "changes a movement that is dated")
        return
    was_live = own is not None and _counts(held, own)
    head_changed, changes = False, list[_Change]()
    superseding = False
    if victim_name is not None and (victim is None or victim.kind != GONE):
        superseding = victim is not None
        head_changed |= _supersede(held, leg, victim, victim_name, changes)
    if is_newer:
        head_changed |= _hold(held, leg, own, changes)
    if not changes:
        return
    cause = _cause(leg, own, superseding=superseding, was_live=was_live, is_live=_is_live(held, leg))
    touched = _touched(held, changes)
    moment = held.state.moment(leg.received_at, offset)
    for book in held.account.books:
        if book.currency in touched and book.judged is not None:
            held.say(book, moment, cause)
            head_changed = True
    if head_changed:
        held.store()


def _cause(leg: Leg, own: Entry | None, *, superseding: bool, was_live: bool, is_live: bool) -> Resolution:
    """Return what a leg is called that makes a mismatch untrue."""
    if leg.adjusts is not None:
        return "adjusted"
    if superseding:
        return "superseded"
    if own is None:
        return "late_arrival"
    return "voided" if was_live and not is_live else "corrected"


def _find(held: _Held, source: str, record: str) -> Entry | None:
    """Return what is held of a record, be it a movement or an adjustment."""
    found = held.ledger.find(record_name(source, record))
    if found is not None:
        return found[1]
    adjusting = next((one for one in held.account.adjustments if one.record == record and one.source == source), None)
    if adjusting is None and held.ledger.is_gone(source, record):
        return Entry(GONE, source, record, None, 0, 0)
    return adjusting


def _holds_other(held: _Held, leg: Leg) -> bool:
    """Tell whether the id of a leg is held with other content."""
    holder = held.ledger.holder(leg.source, leg.id)
    if holder is None:
        adjusting = held.account.adjustments
        holder = next(
            (one for one in adjusting if one.event == leg.id and one.source == leg.source and one.kind != GONE), None
        )
    return holder is not None and holder != _entry_of(leg)


def _counts_for_good(held: _Held, source: str, record: str, entry: Entry | None) -> bool:
    """Tell whether a record is a movement that nothing may change any more.

    It is so once it is older than `keep`, and the same whether its page has been folded already.
    """
    if entry is None:
        return held.ledger.is_folded(source, record)
    return entry.adjusts is None and _counts(held, entry) and held.is_old(entry.occurred_at, held.rule.keep_ms)


def _too_late(held: _Held, leg: Leg, what: str) -> None:
    held.dead_letter(
        "too late",
        leg,
        f"{what} further back than the {lasting(held.rule.keep_ms)} for which movements of {held.rule.noun} "
        f"{held.account_name} are taken and changed",
        "Post an adjustment that names the discrepancy, or a movement of today; a longer `keep` lets later ones in.",
    )


def _supersede(held: _Held, leg: Leg, victim: Entry | None, record: str, changes: list[_Change]) -> bool:
    """Let a record never count again; tell whether the head changed."""
    name, account = record_name(leg.source, record), held.account
    if victim is None:
        marker = Entry(GONE, leg.source, record, None, leg.occurred_at, 0)
        changes.append(_Change(None, None))
        if leg.adjusts is not None:  # likely to be about an adjustment, which may come whatever its date
            account.adjustments = [*account.adjustments, marker]
            return True
        return held.ledger.append(account, marker, name)
    changes.append(_Change(victim, None))
    if victim.adjusts is not None:
        account.adjustments = [one if one is not victim else gone(one) for one in account.adjustments]
        return True
    held.ledger.replace(account, name, gone(victim))
    return False


def _hold(held: _Held, leg: Leg, own: Entry | None, changes: list[_Change]) -> bool:
    """Hold the newest event of a record, whole; tell whether the head changed."""
    account, entry = held.account, _entry_of(leg)
    changes.append(_Change(own, entry))
    name = record_name(leg.source, leg.record)
    head_changed = False
    if own is not None and own.adjusts is not None:
        account.adjustments = [one for one in account.adjustments if one is not own]
        head_changed = True
    elif own is not None:
        held.ledger.drop(account, name)
    if entry.adjusts is None:
        return held.ledger.append(account, entry, name) or head_changed
    account.adjustments = [*account.adjustments, entry]
    return True


def _touched(held: _Held, changes: list[_Change]) -> set[str | None]:
    """Return the currencies whose latest judged reading rests on something else now."""
    touched: set[str | None] = set()
    for change in changes:
        before, after = _contribution(held, change.before), _contribution(held, change.after)
        if before != after:
            touched |= {part[0] for part in (before, after) if part is not None}
    return touched


def _contribution(held: _Held, entry: Entry | None) -> tuple[str | None, int | None, Decimal] | None:
    """Return what an entry is in the verdict on the latest judged reading of its currency; None: nothing."""
    if entry is None or not _counts(held, entry):
        return None
    if entry.adjusts is not None:
        return entry.currency, None, Decimal(entry.amount or 0)
    dated = held.ledger.dated(held.account, entry.currency)
    if not dated.start < entry.occurred_at <= dated.upto:
        return None
    return entry.currency, entry.occurred_at, Decimal(entry.amount or 0)


def _counts(held: _Held, entry: Entry) -> bool:
    return entry.kind == MOVEMENT and entry.amount is not None and held.rule.movements.is_live(entry.status)


def _is_live(held: _Held, leg: Leg) -> bool:
    return leg.amount is not None and held.rule.movements.is_live(leg.status)


def _entry_of(leg: Leg) -> Entry:
    return Entry(
        MOVEMENT,
        leg.source,
        leg.record,
        None if leg.id == leg.record else leg.id,
        leg.occurred_at,
        leg.sequence,
        leg.amount,
        leg.currency,
        leg.status,
        leg.adjusts,
    )


def _joined(*totals: Total) -> Total:
    amount = Decimal(0)
    for total in totals:
        amount = EXACT.add(amount, Decimal(total.amount))
    return Total(str(amount), sum(total.count for total in totals))


def _next_due(account: Account, rule: BalanceRule) -> int:
    """Return when the account has to be looked at again: a reading has settled, or something is old enough to leave."""
    readings = (book.waiting[0].read_at + rule.settle_ms for book in account.books if book.waiting)
    return min(account.look_at, account.forget_at, account.unread_at, min(readings, default=NEVER))

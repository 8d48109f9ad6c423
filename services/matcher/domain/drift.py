"""The verdict on a reading: what the account should hold, how far the reading is off, and how much of that is explained."""

from decimal import Decimal
from typing import NamedTuple

from services.matcher.domain.account import MOVEMENT, Account, Book, Entry, Reading
from services.matcher.domain.finding import NO_SIDE, Finding
from services.matcher.domain.group import Raised
from services.matcher.domain.ledger import ZERO, Ledger
from shared.contracts.discrepancy import RECORDS_SHOWN_MAX, RecordEvidence, SideEvidence
from shared.contracts.event import from_microseconds
from shared.contracts.leg import GroupName
from shared.money import EXACT, exact_sum, format_amount
from shared.rules.balance_rule import MISMATCH, MOVEMENTS, SNAPSHOTS, BalanceRule


class Verdict(NamedTuple):
    """What is true of the latest judged reading."""

    expected: Decimal
    actual: Decimal
    drift: Decimal
    """actual - expected."""
    explained: Decimal
    """The part of the drift that movements dated later make up for; between nothing and the drift."""
    passed: bool


class Drift(NamedTuple):
    """The balance of an account in one currency, as the subject of its mismatch."""

    held: Account
    book: Book
    rule: BalanceRule
    name: GroupName
    account: str
    ledger: Ledger

    @property
    def opener(self) -> str:
        """Id of the event that opened the account."""
        return self.held.opener

    def side_name(self, side: int) -> str:
        """A mismatch is of no side."""
        raise NotImplementedError

    def evidence(self, _raised: Raised, _finding: Finding | None, /) -> dict[str, SideEvidence | None]:
        """Return the movements that count, with the newest of them, and the reading."""
        reading = self.book.judged
        return {MOVEMENTS: self._movements(), SNAPSHOTS: None if reading is None else self._reading(reading)}

    def explain(self, finding: Finding) -> str:
        """Say what the reading says, what the movements say, and how much of the difference is explained."""
        reading = self.book.judged
        assert reading is not None, "only what was judged is found wrong"
        assert finding.difference is not None
        currency = self.book.currency
        unit = f" {currency}" if currency else ""
        off = format_amount(abs(finding.difference), currency)
        more = "more" if finding.difference > 0 else "less"
        adjusted = ", adjustments included" if any(self._is_live(one) for one in self.held.adjustments) else ""
        return (
            f"{self.rule.noun.capitalize()} {self.account} holds {finding.actual}{unit} by {self.rule.snapshots_source} at "
            f"{from_microseconds(reading.as_of):%Y-%m-%d %H:%M} UTC, {self.rule.movements.name} says {finding.expected}"
            f"{adjusted}: {off}{unit} {more} than expected{self._explained(finding)}."
        )

    def adjustments(self) -> Decimal:
        """Return what adjustments add, whatever their date."""
        currency = self.book.currency
        return exact_sum(
            Decimal(one.amount or 0) for one in self.held.adjustments if one.currency == currency and self._is_live(one)
        )

    def moved(self) -> tuple[Decimal, int]:
        """Return sum and count of the movements that count in the latest judged reading."""
        book, dated = self.book, self.ledger.dated(self.held, self.book.currency)
        amount, count = EXACT.add(dated.counted, Decimal(book.counted.amount)), dated.count + book.counted.count
        if self.rule.given_opening(self.account, book.currency) is not None:
            amount, count = EXACT.add(amount, Decimal(book.ignored.amount)), count + book.ignored.count
        return amount, count

    def _explained(self, finding: Finding) -> str:
        assert finding.explained is not None
        assert finding.unexplained is not None
        if not Decimal(finding.explained):
            return ""
        if not Decimal(finding.unexplained):
            return "; all of it is explained by movements dated later"
        part, rest = (
            format_amount(abs(Decimal(text)), self.book.currency) for text in (finding.explained, finding.unexplained)
        )
        return f"; {part} of it is explained by movements dated later, {rest} is not"

    def _is_live(self, entry: Entry) -> bool:
        return entry.kind == MOVEMENT and entry.amount is not None and self.rule.movements.is_live(entry.status)

    def _movements(self) -> SideEvidence:
        currency = self.book.currency
        amount, count = self.moved()
        dated = self.ledger.dated(self.held, currency)
        newest = [_shown(entry) for entry in self.ledger.entries(dated.newest(RECORDS_SHOWN_MAX))]
        adjusting = [_shown(one) for one in self.held.adjustments if one.currency == currency and self._is_live(one)]
        return SideEvidence(
            id=None,
            source=self.rule.movements.name,
            record=None,
            amount=format_amount(amount, currency),
            currency=currency,
            status=None,
            occurred_at=newest[0].occurred_at if newest else None,
            count=count,
            records=newest,
            adjustments=adjusting[-RECORDS_SHOWN_MAX:] or None,
        )

    def _reading(self, reading: Reading) -> SideEvidence:
        currency = self.book.currency
        return SideEvidence(
            id=reading.id,
            source=reading.source,
            record=reading.record,
            amount=format_amount(Decimal(reading.amount), currency),
            currency=currency,
            status=reading.status,
            occurred_at=from_microseconds(reading.as_of),
        )


def judge(drift: Drift) -> Verdict | None:
    """Return what is true of the latest judged reading; None: nothing is judged yet."""
    book, rule = drift.book, drift.rule
    opening = rule.given_opening(drift.account, book.currency)
    if opening is None and book.opening is not None:
        opening = Decimal(book.opening.amount)
    if book.judged is None or opening is None:
        return None
    moved, _ = drift.moved()
    expected = exact_sum((opening, moved, drift.adjustments()))
    actual = Decimal(book.judged.amount)
    off = EXACT.subtract(actual, expected)
    later = EXACT.add(drift.ledger.dated(drift.held, book.currency).later, Decimal(book.later.amount))
    explained = min(max(later, min(off, ZERO)), max(off, ZERO))
    passed = abs(off) <= rule.watch_of(drift.account).allowance(expected)
    return Verdict(expected, actual, off, explained, passed)


def findings(drift: Drift, verdict: Verdict | None) -> list[Finding]:
    """Return the mismatch where there is one."""
    if verdict is None or verdict.passed:
        return []
    currency = drift.book.currency
    watch = drift.rule.watch_of(drift.account)
    return [
        Finding(
            name=currency or "",
            type=MISMATCH,
            side=NO_SIDE,
            expected=format_amount(verdict.expected, currency),
            actual=format_amount(verdict.actual, currency),
            difference=verdict.drift,
            currency=currency,
            by_currency=True,
            explained=format_amount(verdict.explained, currency),
            unexplained=format_amount(EXACT.subtract(verdict.drift, verdict.explained), currency),
            severity=watch.severity_of(MISMATCH, verdict.drift, currency),
        )
    ]


def _shown(entry: Entry) -> RecordEvidence:
    return RecordEvidence(
        id=entry.event,
        source=entry.source,
        record=entry.record,
        amount=None if entry.amount is None else format_amount(Decimal(entry.amount), entry.currency),
        currency=entry.currency,
        status=entry.status,
        occurred_at=from_microseconds(entry.occurred_at),
    )

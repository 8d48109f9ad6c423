"""A month of a shop's own files with planted breaks: bank statement, Stripe's reports, ledger, and what has to be found.

    python -m tieout.demo.bank_and_stripe examples/bank_and_stripe

The same files every time: nothing in it is random but by its seed, and every break is labelled where it is planted.
"""

import csv
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

SEED = 20261001
BERLIN = ZoneInfo("Europe/Berlin")
FIRST_DAY, LAST_DAY = date(2026, 10, 1), date(2026, 10, 31)
FUNDS_AFTER_DAYS = 2
"""Stripe pays out what has been there for so long."""
HOLIDAYS = frozenset({date(2026, 10, 3)})
UNTIL = "2026-11-20T00:00:00Z"
"""Long enough after the month for every deadline."""


class Planted(NamedTuple):
    """A break, and the only finding that may be made of it."""

    what: str
    rule: str
    type: str
    key: str
    difference: str | None
    currency: str = "EUR"
    state: Literal["raised", "resolved"] = "raised"


@dataclass
class Transaction:
    """A row of Stripe's balance; amounts in cents."""

    id: str
    at: datetime
    category: str
    gross: int
    fee: int
    source: str
    payment: str = ""
    """The shop's own id."""
    payout: str = ""


@dataclass
class Payout:
    """A payout; amounts in cents."""

    id: str
    transaction: str
    day: date
    amount: int
    trace: str


@dataclass
class Booking:
    """A line of the ledger; amounts in cents."""

    entry: str
    at: datetime
    kind: Literal["sale", "refund"]
    payment: str
    refund: str
    amount: int
    currency: str = "EUR"


@dataclass
class BankLine:
    """A line of the bank's statement; amounts in cents, signed."""

    day: date
    name: str
    text: str
    amount: int


@dataclass
class Month:
    """Everything of the month."""

    transactions: list[Transaction] = field(default_factory=list)
    payouts: list[Payout] = field(default_factory=list)
    ledger: list[Booking] = field(default_factory=list)
    bank: list[BankLine] = field(default_factory=list)
    planted: list[Planted] = field(default_factory=list)


def month() -> Month:
    """Return the month, first in order, then with its breaks."""
    made = Month()
    random = Random(SEED)  # noqa: S311 - test data
    _trade(made, random)
    _pay_out(made)
    _book(made)
    _pass_the_bank(made)
    _plant(made)
    return made


def _trade(made: Month, random: Random) -> None:
    number = 0
    for day in _days(FIRST_DAY, LAST_DAY):
        for _ in range(random.randint(4, 9)):
            number += 1
            at = datetime.combine(day, datetime.min.time(), UTC) + timedelta(
                seconds=random.randint(6 * 3600, 20 * 3600)
            )
            gross = random.randint(490, 24_990)
            payment = f"SO-{1000 + number}"
            made.transactions.append(
                Transaction(f"txn_{number:04}", at, "charge", gross, _card_fee(gross), f"ch_{number:04}", payment)
            )
            if number % 17 == 0:
                back = gross if number % 2 else gross // 2
                made.transactions.append(
                    Transaction(
                        f"txn_r{number:04}", at + timedelta(hours=20), "refund", -back, 0, f"re_{number:04}", payment
                    )
                )
    disputed = made.transactions[40]
    made.transactions.append(
        Transaction(
            "txn_d0001", disputed.at + timedelta(days=9), "dispute", -disputed.gross, 2000, "dp_0001", disputed.payment
        )
    )
    for week in range(4):
        at = datetime(2026, 10, 5 + 7 * week, 4, 0, tzinfo=UTC)
        made.transactions.append(
            Transaction(f"txn_f{week + 1:04}", at, "fee", -(310 + 45 * week), 0, f"fee_{week + 1:04}")
        )
    made.transactions.sort(key=lambda one: (one.at, one.id))


def _card_fee(gross: int) -> int:
    """1.5 % and 25 cents, rounded half up."""
    return (gross * 15 + 500) // 1000 + 25


def _pay_out(made: Month) -> None:
    waiting = list(made.transactions)
    number = 0
    for day in _days(FIRST_DAY, LAST_DAY + timedelta(days=6)):
        ready = [one for one in waiting if one.at.date() + timedelta(days=FUNDS_AFTER_DAYS) <= day]
        amount = sum(one.gross - one.fee for one in ready)
        if not _is_business_day(day) or amount <= 0:
            continue
        number += 1
        payout = Payout(f"po_{number:03}", f"txn_p{number:04}", day, amount, f"T{260000 + 37 * number}")
        made.payouts.append(payout)
        for one in ready:
            one.payout = payout.id
            waiting.remove(one)


def _book(made: Month) -> None:
    for number, one in enumerate((t for t in made.transactions if t.category in {"charge", "refund"}), start=1):
        kind: Literal["sale", "refund"] = "sale" if one.category == "charge" else "refund"
        refund = one.source if kind == "refund" else ""
        at = one.at + timedelta(minutes=number % 7)
        made.ledger.append(Booking(f"L{number:05}", at, kind, one.payment, refund, abs(one.gross)))


def _pass_the_bank(made: Month) -> None:
    for payout in made.payouts:
        made.bank.append(_credit(payout, _business_day_after(payout.day), payout.amount))
    made.bank += [
        BankLine(date(2026, 10, 1), "Hausverwaltung Müller", "Miete Oktober Ladenlokal", -185_000),
        BankLine(date(2026, 10, 15), "Großhandel Jäger & Söhne", "RE 2026-1187", -642_318),
        BankLine(date(2026, 10, 22), "Stadtwerke Köln", "Abschlag Strom", -21_400),
        BankLine(date(2026, 10, 30), "Löhne und Gehälter", "Sammelüberweisung 10/2026", -918_077),
        BankLine(date(2026, 10, 30), "Kontoführung", "Entgelt", -1_290),
    ]
    made.bank.sort(key=lambda line: (line.day, line.text))


def _credit(payout: Payout, day: date, amount: int) -> BankLine:
    return BankLine(day, "Stripe Payments Europe", f"STRIPE {payout.trace} Auszahlung", amount)


def _plant(made: Month) -> None:
    """Break the month: each break changes one thing, and is labelled with the finding that it must make."""
    sales = [line for line in made.ledger if line.kind == "sale"]
    refunds = [line for line in made.ledger if line.kind == "refund"]
    _plant_at_the_bank(made)
    _plant_in_the_books(made, sales, refunds)
    _plant_at_stripe(made)


def _plant_at_the_bank(made: Month) -> None:
    rule = "bank.payouts"
    lines = {payout.id: _line_of(made, payout) for payout in made.payouts}
    swapped, lost, twice, short = made.payouts[3], made.payouts[7], made.payouts[11], made.payouts[15]

    wrong = swapped.amount + 900
    lines[swapped.id].amount = wrong
    made.planted.append(
        Planted("The bank credits 9.00 more than was paid out.", rule, "AmountMismatch", swapped.trace, "9.00")
    )
    lines[short.id].amount -= 1
    made.planted.append(Planted("The bank credits one cent less.", rule, "AmountMismatch", short.trace, "-0.01"))

    made.bank.remove(lines[lost.id])
    made.planted.append(
        Planted("A payout never reaches the bank.", rule, "MissingRecord", lost.trace, _euros(-lost.amount))
    )
    # The same line a second time, to the letter: the bank gives its lines no ids.
    made.bank.insert(made.bank.index(lines[twice.id]), _credit(twice, lines[twice.id].day, twice.amount))
    made.planted.append(
        Planted("A payout is credited twice.", rule, "DuplicateChargeSuspected", twice.trace, _euros(twice.amount))
    )
    stranger = Payout("", "", date(2026, 10, 20), 12_345, "T999999")
    made.bank.append(_credit(stranger, stranger.day, stranger.amount))
    made.planted.append(
        Planted("The bank credits a payout that Stripe does not know.", rule, "MissingRecord", "T999999", "123.45")
    )
    made.bank.sort(key=lambda line: line.day)


def _plant_in_the_books(made: Month, sales: list[Booking], refunds: list[Booking]) -> None:
    rule = "books.payments"
    unpaid = Booking("L90001", datetime(2026, 10, 12, 9, 30, tzinfo=UTC), "sale", "SO-9001", "", 7_990)
    made.ledger.append(unpaid)
    made.planted.append(
        Planted("A sale is booked that Stripe never took.", rule, "MissingProviderRecord", "SO-9001", "-79.90")
    )
    forgotten = sales[21]
    made.ledger.remove(forgotten)
    made.planted.append(
        Planted("A charge is not booked.", rule, "MissingInternalRecord", forgotten.payment, _euros(forgotten.amount))
    )
    wrong = sales[55]
    wrong.amount += 1_000
    made.planted.append(Planted("A sale is booked 10.00 too high.", rule, "AmountMismatch", wrong.payment, "-10.00"))
    foreign = sales[77]
    foreign.currency = "USD"
    made.planted.append(
        Planted("A sale is booked in another currency.", rule, "CurrencyMismatch", foreign.payment, None, "USD")
    )
    again = sales[99]
    made.ledger.append(Booking("L90002", again.at + timedelta(hours=2), "sale", again.payment, "", again.amount))
    made.planted.append(
        Planted("A sale is booked twice.", rule, "DuplicateChargeSuspected", again.payment, _euros(-again.amount))
    )
    late = sales[120]
    late.at += timedelta(days=5)
    made.planted.append(
        Planted(
            "A sale is booked five days late: found, and taken back when it comes.",
            rule,
            "MissingInternalRecord",
            late.payment,
            _euros(late.amount),
            state="resolved",
        )
    )
    refund = refunds[4]
    made.ledger.remove(refund)
    made.planted.append(
        Planted(
            "A refund is not booked.", "books.refunds", "MissingInternalRecord", refund.refund, _euros(refund.amount)
        )
    )
    made.ledger.sort(key=lambda line: (line.at, line.entry))


def _plant_at_stripe(made: Month) -> None:
    payout = made.payouts[18]
    line = _line_of(made, payout)
    payout.amount -= 500
    line.amount -= 500
    made.planted.append(
        Planted(
            "A payout is 5.00 less than its charges, refunds and fees, and so is the bank's line.",
            "stripe.payouts",
            "AmountMismatch",
            payout.id,
            "5.00",
        )
    )


def _line_of(made: Month, payout: Payout) -> BankLine:
    return next(line for line in made.bank if payout.trace in line.text)


def _days(first: date, last: date) -> Iterator[date]:
    for number in range((last - first).days + 1):
        yield first + timedelta(days=number)


def _is_business_day(day: date) -> bool:
    return day.weekday() < 5 and day not in HOLIDAYS


def _business_day_after(day: date) -> date:
    day += timedelta(days=1)
    while not _is_business_day(day):
        day += timedelta(days=1)
    return day


def _euros(cents: int) -> str:
    return f"{'-' if cents < 0 else ''}{abs(cents) // 100}.{abs(cents) % 100:02}"


def files(made: Month) -> dict[str, bytes]:
    """Return the files by name, as the shop has them."""
    return {
        "bank.csv": _bank_csv(made),
        "ledger.csv": _ledger_csv(made),
        "stripe_activity.csv": _activity_csv(made),
        "stripe_payouts.csv": _payouts_csv(made),
        "planted.jsonl": "".join(json.dumps(one._asdict()) + "\n" for one in made.planted).encode(),
    }


def _bank_csv(made: Month) -> bytes:
    """As a German bank exports it: cp1252, semicolons, decimal comma, a preamble and a line of totals, no ids."""
    text = io.StringIO()
    out = csv.writer(text, delimiter=";", lineterminator="\r\n", quoting=csv.QUOTE_ALL)
    text.write("Umsätze Geschäftskonto;DE02120300000000202051\r\nZeitraum;01.10.2026 - 06.11.2026\r\n\r\n")
    out.writerow(["Buchungstag", "Empfänger/Auftraggeber", "Verwendungszweck", "Betrag", "Währung"])
    for line in made.bank:
        out.writerow([f"{line.day:%d.%m.%Y}", line.name, line.text, _german(line.amount), "EUR"])
    out.writerow(["Summe", "", "", _german(sum(line.amount for line in made.bank)), "EUR"])
    return text.getvalue().encode("cp1252")


def _german(cents: int) -> str:
    whole = f"{abs(cents) // 100:,}".replace(",", ".")
    return f"{'-' if cents < 0 else ''}{whole},{abs(cents) % 100:02}"


def _ledger_csv(made: Month) -> bytes:
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(["entry", "booked_at", "kind", "order", "stripe_refund", "amount", "currency"])
    for line in made.ledger:
        at = line.at.astimezone(BERLIN).isoformat()
        out.writerow([line.entry, at, line.kind, line.payment, line.refund, _euros(line.amount), line.currency])
    return text.getvalue().encode()


def _activity_csv(made: Month) -> bytes:
    """Itemised balance change from activity, with payout ids and the shop's own id from the metadata."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    columns = ["balance_transaction_id", "created_utc", "available_on_utc", "currency", "gross", "fee", "net"]
    columns += ["reporting_category", "source_id", "description", "automatic_payout_id", "charge_id"]
    out.writerow([*columns, "payment_intent_id", "payment_metadata[payment_id]"])
    for one in made.transactions:
        available = one.at.date() + timedelta(days=FUNDS_AFTER_DAYS)
        charge = "" if one.category == "fee" else f"ch_{one.payment[3:]}"
        intent = "" if one.category == "fee" else f"pi_{one.payment[3:]}"
        money = [_euros(one.gross), _euros(one.fee), _euros(one.gross - one.fee)]
        row = [one.id, f"{one.at:%Y-%m-%d %H:%M:%S}", f"{available} 00:00:00", "eur", *money, one.category, one.source]
        out.writerow(
            [*row, f"Order {one.payment}" if one.payment else "Billing", one.payout, charge, intent, one.payment]
        )
    return text.getvalue().encode()


def _payouts_csv(made: Month) -> bytes:
    """Itemised payouts."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    columns = ["payout_id", "effective_at_utc", "balance_transaction_id", "currency", "gross", "fee", "net"]
    out.writerow([*columns, "reporting_category", "payout_status", "payout_type", "trace_id", "trace_id_status"])
    for one in made.payouts:
        money = [_euros(-one.amount), "0.00", _euros(-one.amount)]
        row = [one.id, f"{one.day} 00:00:00", one.transaction, "eur", *money, "payout", "paid", "bank_account"]
        out.writerow([*row, one.trace, "supported"])
    return text.getvalue().encode()


def main(folder: Path) -> None:
    """Write the files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files(month()).items():
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tieout.demo.bank_and_stripe FOLDER")
    main(Path(sys.argv[1]))

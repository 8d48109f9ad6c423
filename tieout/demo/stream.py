"""A made-up morning of a shop: ledger events and Stripe webhooks, with every type of discrepancy planted.

Deterministic by seed. Nothing here knows the rules: what is planted is what producers get wrong in life.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

CURRENCIES = (("EUR", 2), ("EUR", 2), ("EUR", 2), ("USD", 2), ("GBP", 2), ("JPY", 0))
FAULT_EVERY = 29
"""One payment in so many goes wrong in one of the ways below, in turn."""
HEAL_AFTER_S = 9.0
"""When a fault that heals is put right, after the payment: later than the demo's deadlines, so that it shows."""
REFUND_EVERY = 12
DISPUTE_EVERY = 211
PAYOUT_EVERY = 300
INVOICE_EVERY = 40


@dataclass(frozen=True, slots=True)
class Post:
    """One thing to send: a Stripe event for the webhook, or a ledger event."""

    at_s: float
    """Seconds after the start."""
    channel: Literal["ledger", "stripe"]
    body: dict[str, Any]


@dataclass(slots=True)
class Stream:
    """Makes the posts, in order of time."""

    start: datetime
    payments: int = 2000
    per_second: float = 250.0
    seed: int = 7
    _random: random.Random = field(init=False)
    _sent: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - made-up payments, no secrets

    def posts(self) -> list[Post]:
        """Return everything to send, in order of time."""
        made = [post for number in range(self.payments) for post in self._payment(number)]
        return sorted(made, key=lambda post: post.at_s)

    def _payment(self, number: int) -> Iterator[Post]:
        at = number / self.per_second
        currency, decimals = self._random.choice(CURRENCIES)
        amount = self._random.randrange(500, 40_000)
        payment = _Payment(self, number, at, amount, currency, decimals)
        if number % FAULT_EVERY == FAULT_EVERY - 1:
            yield from payment.faulty((number // FAULT_EVERY) % len(FAULTS))
            return
        if number % 17 == 0:
            yield payment.intent("requires_payment_method", "payment_failed", delay=0.0)
        paid_after = self._random.uniform(0.1, 1.5)
        yield payment.intent("succeeded", "succeeded", delay=paid_after)
        # Most shops book before the webhook comes; after a decline they book what was paid in the end.
        yield payment.ledger(delay=paid_after + 0.2 if number % 17 == 0 else 0.0)
        if number % REFUND_EVERY == 0:
            yield from payment.refund(short=number % (REFUND_EVERY * 20) == 0)
        if number % DISPUTE_EVERY == DISPUTE_EVERY - 1:
            yield payment.dispute()
        if number % PAYOUT_EVERY == 0:
            yield from payment.payout()
        if number % INVOICE_EVERY == 0:
            yield from payment.invoice()

    def next_event(self) -> str:
        self._sent += 1
        return f"evt_{self.seed}{self._sent:07d}"


FAULTS = (
    "booked twice at the provider",
    "wrong amount, corrected later",
    "wrong amount",
    "never reached the provider",
    "reached the provider late",
    "not booked",
    "booked late",
    "wrong currency",
    "declined, yet booked as paid",
    "declined first, paid on a late retry",
)
"""What goes wrong, in turn."""


@dataclass(frozen=True, slots=True)
class _Payment:
    stream: Stream
    number: int
    at: float
    minor: int
    currency: str
    decimals: int

    @property
    def id(self) -> str:
        return f"pay_{self.number:05d}"

    def major(self, minor: int) -> str:
        return format(Decimal(minor).scaleb(-self.decimals), "f")

    def faulty(self, fault: int) -> Iterator[Post]:
        match FAULTS[fault]:
            case "booked twice at the provider":
                yield from (self.ledger(), self.intent("succeeded", "succeeded"))
                yield self.intent("succeeded", "succeeded", delay=1.0, record="again")
            case "wrong amount, corrected later":
                yield from (self.ledger(minor=self.minor + 900), self.intent("succeeded", "succeeded"))
                yield self.ledger(delay=HEAL_AFTER_S, notice="correction")
            case "wrong amount":
                yield from (self.ledger(), self.intent("succeeded", "succeeded", minor=self.minor - 250))
            case "never reached the provider":
                yield self.ledger()
            case "reached the provider late":
                yield from (self.ledger(), self.intent("succeeded", "succeeded", delay=HEAL_AFTER_S))
            case "not booked":
                yield self.intent("succeeded", "succeeded")
            case "booked late":
                yield from (self.intent("succeeded", "succeeded"), self.ledger(delay=HEAL_AFTER_S))
            case "wrong currency":
                other = "USD" if self.currency != "USD" else "EUR"
                yield from (self.ledger(), self.intent("succeeded", "succeeded", currency=other))
            case "declined, yet booked as paid":
                yield from (self.ledger(), self.intent("requires_payment_method", "payment_failed"))
            case _:
                yield from (self.ledger(), self.intent("requires_payment_method", "payment_failed"))
                yield self.intent("succeeded", "succeeded", delay=HEAL_AFTER_S)

    def _time(self, delay: float) -> datetime:
        return self.stream.start + timedelta(seconds=self.at + delay)

    def ledger(self, *, delay: float = 0.0, minor: int | None = None, notice: str = "booked") -> Post:
        return self._book("payment", notice, self.id, self.minor if minor is None else minor, delay, payment_id=self.id)

    def _book(self, kind: str, notice: str, record: str, minor: int, delay: float, **refs: str) -> Post:
        body = {
            "source": "ledger",
            "type": f"{kind}.{notice}",
            "id": f"led_{record}_{notice}",
            "record": record,
            "occurred_at": self._time(delay).isoformat(),
            "amount": self.major(minor),
            "currency": self.currency,
            "status": {"payout": "paid", "dispute": "needs_response", "invoice": "paid"}.get(kind, "succeeded"),
            "refs": refs,
        }
        return Post(self.at + delay, "ledger", body)

    def intent(
        self,
        status: str,
        event: str,
        *,
        delay: float = 0.4,
        minor: int | None = None,
        currency: str | None = None,
        record: str = "",
    ) -> Post:
        amount = self.minor if minor is None else minor
        intent = {
            "id": f"pi_{self.number:05d}{record}",
            "object": "payment_intent",
            "amount": amount,
            "amount_received": amount if status == "succeeded" else 0,
            "currency": (currency or self.currency).lower(),
            "status": status,
            "metadata": {"payment_id": self.id},
            "created": int(self._time(0).timestamp()),
        }
        return self._event(f"payment_intent.{event}", intent, delay)

    def _event(self, type_: str, subject: dict[str, Any], delay: float) -> Post:
        event = {
            "id": self.stream.next_event(),
            "object": "event",
            "type": type_,
            "created": int(self._time(delay).timestamp()),
            "data": {"object": subject},
        }
        return Post(self.at + delay, "stripe", event)

    def refund(self, *, short: bool) -> Iterator[Post]:
        """Refund a part; a short one comes back from the provider with less than was booked."""
        minor = self.minor // 2
        intent, refund = f"pi_{self.number:05d}", f"re_{self.number:05d}"
        yield self._book("refund", "booked", refund, minor, 2.0, provider_payment_id=intent, payment_id=self.id)
        subject = {
            "id": refund,
            "object": "refund",
            "amount": minor - 100 if short else minor,
            "currency": self.currency.lower(),
            "status": "succeeded",
            "payment_intent": intent,
            "created": int(self._time(2.2).timestamp()),
            "metadata": {},
        }
        yield self._event("refund.created", subject, 2.3)

    def dispute(self) -> Post:
        """A dispute that nobody booked."""
        subject = {
            "id": f"du_{self.number:05d}",
            "object": "dispute",
            "amount": self.minor,
            "currency": self.currency.lower(),
            "status": "needs_response",
            "payment_intent": f"pi_{self.number:05d}",
            "created": int(self._time(3).timestamp()),
            "metadata": {},
        }
        return self._event("charge.dispute.created", subject, 3.0)

    def payout(self) -> Iterator[Post]:
        payout = f"po_{self.number:05d}"
        yield self._book("payout", "booked", payout, self.minor * 9, 0.5, payout_id=payout)
        subject = {
            "id": payout,
            "object": "payout",
            "amount": self.minor * 9,
            "currency": self.currency.lower(),
            "status": "paid",
            "created": int(self._time(1).timestamp()),
            "arrival_date": int(self._time(1).timestamp()),
            "metadata": {},
        }
        yield self._event("payout.paid", subject, 1.2)

    def invoice(self) -> Iterator[Post]:
        invoice = f"in_{self.number:05d}"
        yield self._book("invoice", "booked", invoice, self.minor, 0.1, invoice_id=invoice)
        subject = {
            "id": invoice,
            "object": "invoice",
            "amount_due": self.minor,
            "amount_paid": self.minor,
            "total": self.minor,
            "currency": self.currency.lower(),
            "status": "paid",
            "created": int(self._time(0).timestamp()),
            "metadata": {},
        }
        yield self._event("invoice.paid", subject, 0.9)


def now() -> datetime:
    """Return the demo's start: a little in the past, so that no event is ahead of its receipt."""
    return datetime.now(UTC)

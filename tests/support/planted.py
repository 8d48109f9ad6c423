"""A stream of billing events with planted faults, and what must be left of it: known by construction.

Nothing here is computed from the product's code, nor by its rules: each scenario writes down the events that tell a
story, and beside them the discrepancies that the story leaves open. Amounts are whole minor units throughout.
"""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

PAYMENTS, REFUNDS = "billing.payments", "billing.refunds"
CURRENCIES = {"EUR": 2, "USD": 2, "GBP": 2, "JPY": 0}
OTHER = {"EUR": "USD", "USD": "GBP", "GBP": "EUR", "JPY": "USD"}

EVENTS_PER_GROUP = 2.06
"""On average, with the faults below."""

Channel = Literal["ledger", "provider", "webhook"]
"""How an event travels: ledger rows and provider rows in batches, Stripe's webhooks one by one."""
Side = Literal["internal", "provider"]


class Open(NamedTuple):
    """A discrepancy that is open at the end."""

    rule: str
    key: str
    type: str
    side: str
    duplicate: str | None
    expected: str | None
    actual: str | None
    difference: str | None
    currency: str | None


class Event(NamedTuple):
    """One event: `at` orders the stream (in payments), `body` is what is posted."""

    at: float
    channel: Channel
    source: str
    id: str
    body: dict[str, Any]


Totals = dict[tuple[str, str, str], int]
"""Minor units of live records, by rule, side and currency."""


@dataclass
class Plan:
    """What to send, and what must be left."""

    events: list[Event] = field(default_factory=list)
    open: set[Open] = field(default_factory=set)
    status: dict[tuple[str, str], str] = field(default_factory=dict)
    """`matched` or `discrepant`, by rule and key."""
    totals: Totals = field(default_factory=lambda: defaultdict(int))
    scenarios: dict[str, int] = field(default_factory=lambda: defaultdict(int))


def amount(minor: int, currency: str) -> str:
    """Return minor units as an exact decimal with the currency's decimals."""
    decimals = CURRENCIES[currency]
    sign, digits = ("-" if minor < 0 else ""), str(abs(minor)).rjust(decimals + 1, "0")
    return sign + (f"{digits[:-decimals]}.{digits[-decimals:]}" if decimals else digits)


def plan(events: int, webhooks: int, *, seed: int = 1, fault_every: int = 20, refund_every: int = 18) -> Plan:
    """Return a stream of about `events` events, of which about `webhooks` are signed webhooks."""
    made = Plan()
    chance = random.Random(seed)
    start = datetime.now(UTC) - timedelta(hours=2)
    groups = math.ceil(events / EVENTS_PER_GROUP)
    webhook_every = max(1, groups // max(webhooks, 1))
    for number in range(groups):
        story = _Story(made, chance, start, number, groups, by_webhook=number % webhook_every == 0)
        if number % fault_every == fault_every - 1:
            tell = FAULTS[number // fault_every % len(FAULTS)]
        elif number % refund_every == refund_every - 1:
            tell = REFUNDS_TOLD[number // refund_every % len(REFUNDS_TOLD)]
        else:
            tell = _Story.plain
        made.scenarios[tell.__name__] += 1
        tell(story)
        made.status[story.rule, story.key] = "discrepant" if story.opened else "matched"
    made.events.sort(key=lambda event: event.at)
    return made


class _Story:
    """One key: its events, and what they leave behind."""

    def __init__(
        self, made: Plan, chance: random.Random, start: datetime, number: int, groups: int, *, by_webhook: bool
    ) -> None:
        self.made, self.chance, self.number, self.start, self.groups = made, chance, number, start, groups
        self.by_webhook = by_webhook
        self.rule, self.key = PAYMENTS, f"pay_{number:07d}"
        self.currency = chance.choice(tuple(CURRENCIES))
        self.minor = chance.randrange(1_000, 90_000)
        self.opened = 0
        self._clock = 0
        self._ids = 0

    # ---- events

    def booked(self, minor: int | None = None, *, delay: float = 0.0, **changes: Any) -> None:
        self._event("ledger", "ledger", f"led_{self.number:07d}", minor, delay, changes)

    def charged(self, minor: int | None = None, *, delay: float = 0.0, **changes: Any) -> None:
        channel: Channel = "webhook" if self.by_webhook and not changes else "provider"
        self._event(channel, "stripe", f"pi_{self.number:07d}", minor, delay, changes)

    def _event(
        self, channel: Channel, source: str, record: str, minor: int | None, delay: float, changes: dict[str, Any]
    ) -> None:
        """Add an event of `record`; each is a second later than the one told before it unless `earlier` says so."""
        self._clock += 2
        self._ids += 1
        seconds = self.number % 3_000 + self._clock - changes.pop("earlier", 0)
        occurred_at = self.start + timedelta(seconds=seconds)
        jitter = self.chance.uniform(0, self.groups * 0.01)
        at = self.number + delay * self.groups + jitter
        id_ = f"{'evt' if source == 'stripe' else 'led'}_{self.number:07d}_{self._ids}"
        currency = changes.pop("currency", self.currency)
        body: dict[str, Any] = {
            "source": source,
            "type": f"{changes.pop('type', 'payment')}.noted",
            "id": id_,
            "record": changes.pop("record", record),
            "occurred_at": occurred_at.isoformat(),
            "amount": amount(self.minor if minor is None else minor, currency),
            "currency": currency,
            "status": changes.pop("status", "succeeded"),
            "refs": {changes.pop("ref", "payment_id"): self.key},
            **changes,
        }
        if channel == "webhook":
            body = self._intent(id_, record, self.minor if minor is None else minor, currency, occurred_at)
        self.made.events.append(Event(at, channel, source, id_, body))

    def _intent(self, id_: str, record: str, minor: int, currency: str, at: datetime) -> dict[str, Any]:
        intent = {
            "id": record,
            "object": "payment_intent",
            "amount": minor,
            "amount_received": minor,
            "currency": currency.lower(),
            "status": "succeeded",
            "metadata": {"payment_id": self.key},
            "created": int(at.timestamp()),
        }
        return {
            "id": id_,
            "object": "event",
            "type": "payment_intent.succeeded",
            "created": int(at.timestamp()),
            "data": {"object": intent},
        }

    # ---- what is left

    def counts(self, side: Side, minor: int | None = None, currency: str | None = None) -> None:
        """Say that a live record of `side` is there at the end."""
        place = self.rule, side, currency or self.currency
        self.made.totals[place] += self.minor if minor is None else minor

    def both_count(self) -> None:
        self.counts("internal")
        self.counts("provider")

    def leaves(
        self,
        type_: str,
        side: Side,
        expected: int | str | None,
        actual: int | str | None,
        *,
        duplicate: str | None = None,
    ) -> None:
        """Say that a discrepancy is open at the end; whole numbers are minor units."""
        difference = None
        if not isinstance(expected, str) and not isinstance(actual, str):
            difference = amount((actual or 0) - (expected or 0), self.currency)
        self.opened += 1
        self.made.open.add(
            Open(
                self.rule,
                self.key,
                type_,
                side,
                duplicate,
                self._shown(expected),
                self._shown(actual),
                difference,
                self.currency,
            )
        )

    def _shown(self, value: int | str | None) -> str | None:
        return amount(value, self.currency) if isinstance(value, int) else value

    # ---- stories without a fault

    def plain(self) -> None:
        self.booked()
        self.charged()
        self.both_count()

    # ---- faults that stay

    def never_reached_the_provider(self) -> None:
        self.booked()
        self.counts("internal")
        self.leaves("MissingProviderRecord", "provider", self.minor, None)

    def never_booked(self) -> None:
        self.charged()
        self.counts("provider")
        self.leaves("MissingInternalRecord", "internal", None, self.minor)

    def charged_less(self) -> None:
        self.booked()
        self.charged(self.minor - 25)
        self.counts("internal")
        self.counts("provider", self.minor - 25)
        self.leaves("AmountMismatch", "provider", self.minor, self.minor - 25)

    def charged_more(self) -> None:
        self.charged(self.minor + 1)
        self.booked()
        self.counts("internal")
        self.counts("provider", self.minor + 1)
        self.leaves("AmountMismatch", "provider", self.minor, self.minor + 1)

    def another_currency(self) -> None:
        other = OTHER[self.currency]
        self.booked()
        self.charged(currency=other)
        self.counts("internal")
        self.counts("provider", currency=other)
        self.leaves("CurrencyMismatch", "provider", self.currency, other)

    def failed_yet_booked(self) -> None:
        self.booked()
        self.charged(status="failed")
        self.counts("internal")
        self.leaves("StatusMismatch", "provider", "succeeded", "failed")

    def charged_twice(self) -> None:
        self.booked()
        self.charged()
        again = f"pi_{self.number:07d}_again"
        self.charged(record=again)
        self.both_count()
        self.counts("provider")
        self.leaves("DuplicateChargeSuspected", "provider", None, self.minor, duplicate=again)

    def booked_twice(self) -> None:
        self.charged()
        self.booked()
        twice = f"led_{self.number:07d}_twice"
        self.booked(record=twice)
        self.both_count()
        self.counts("internal")
        self.leaves("DuplicateChargeSuspected", "internal", self.minor, None, duplicate=twice)

    def two_charges_none_booked(self) -> None:
        self.charged()
        again = f"pi_{self.number:07d}_again"
        self.charged(record=again)
        self.counts("provider")
        self.counts("provider")
        self.leaves("MissingInternalRecord", "internal", None, self.minor)
        self.leaves("DuplicateChargeSuspected", "provider", None, self.minor, duplicate=again)

    def other_amount_and_status(self) -> None:
        self.booked()
        self.charged(self.minor - 300, status="settling")
        self.counts("internal")
        self.counts("provider", self.minor - 300)
        self.leaves("AmountMismatch", "provider", self.minor, self.minor - 300)
        self.leaves("StatusMismatch", "provider", "succeeded", "settling")

    # ---- faults that heal, or turn into others

    def amount_corrected(self) -> None:
        self.booked(self.minor + 900)
        self.charged()
        self.booked(delay=0.15)
        self.both_count()

    def currency_corrected(self) -> None:
        self.booked()
        self.charged(currency=OTHER[self.currency])
        self.charged(delay=0.15, record=f"pi_{self.number:07d}")
        self.both_count()

    def second_charge_canceled(self) -> None:
        self.booked()
        self.charged()
        again = f"pi_{self.number:07d}_again"
        self.charged(record=again)
        self.charged(delay=0.1, record=again, status="canceled")
        self.both_count()

    def second_charge_supersedes_the_first(self) -> None:
        self.booked()
        self.charged()
        self.charged(delay=0.1, record=f"pi_{self.number:07d}_new", supersedes=f"pi_{self.number:07d}")
        self.both_count()

    def declined_then_paid(self) -> None:
        self.booked()
        self.charged(status="failed")
        self.charged(delay=0.1, record=f"pi_{self.number:07d}")
        self.both_count()

    def reached_the_provider_late(self) -> None:
        self.booked()
        self.charged(delay=0.6)
        self.both_count()

    def booked_late(self) -> None:
        self.charged()
        self.booked(delay=0.6)
        self.both_count()

    def late_and_wrong(self) -> None:
        self.booked()
        self.charged(self.minor - 40, delay=0.6)
        self.counts("internal")
        self.counts("provider", self.minor - 40)
        self.leaves("AmountMismatch", "provider", self.minor, self.minor - 40)

    def matched_then_spoilt(self) -> None:
        self.booked()
        self.charged()
        self.booked(self.minor + 77, delay=0.2)
        self.counts("internal", self.minor + 77)
        self.counts("provider")
        self.leaves("AmountMismatch", "provider", self.minor + 77, self.minor)

    def correction_before_the_original(self) -> None:
        self.charged()
        self.booked()
        self.booked(self.minor + 500, earlier=60, delay=0.05)
        self.both_count()

    # ---- refunds: sums of partial refunds

    def refund_in_parts(self) -> None:
        self._refund_booked(self.minor - 100, 1)
        self._refund_booked(100, 2)
        self._refund_paid(self.minor)
        self.both_count()

    def refund_short(self) -> None:
        self._refund_booked(self.minor - 100, 1)
        self._refund_booked(100, 2)
        self._refund_paid(self.minor - 250)
        self.counts("internal")
        self.counts("provider", self.minor - 250)
        self.leaves("AmountMismatch", "provider", self.minor, self.minor - 250)

    def refund_never_paid(self) -> None:
        self._refund_booked(self.minor - 100, 1)
        self._refund_booked(100, 2)
        self.counts("internal")
        self.leaves("MissingProviderRecord", "provider", self.minor, None)

    def refund_last_part_late(self) -> None:
        self._refund_booked(self.minor - 100, 1)
        self._refund_paid(self.minor)
        self._refund_booked(100, 2, delay=0.5)
        self.both_count()

    def _refund_booked(self, minor: int, part: int, **changes: Any) -> None:
        self._turn_to_refund()
        record = f"led_re_{self.number:07d}_{part}"
        self.booked(minor, type="refund", ref="provider_payment_id", record=record, **changes)

    def _refund_paid(self, minor: int) -> None:
        self._turn_to_refund()
        self.charged(minor, type="refund", ref="provider_payment_id", record=f"re_{self.number:07d}")

    def _turn_to_refund(self) -> None:
        self.rule, self.key = REFUNDS, f"pi_{self.number:07d}"


Told = Callable[[_Story], None]
FAULTS: tuple[Told, ...] = (
    _Story.never_reached_the_provider,
    _Story.never_booked,
    _Story.charged_less,
    _Story.charged_more,
    _Story.another_currency,
    _Story.failed_yet_booked,
    _Story.charged_twice,
    _Story.booked_twice,
    _Story.two_charges_none_booked,
    _Story.other_amount_and_status,
    _Story.amount_corrected,
    _Story.currency_corrected,
    _Story.second_charge_canceled,
    _Story.second_charge_supersedes_the_first,
    _Story.declined_then_paid,
    _Story.reached_the_provider_late,
    _Story.booked_late,
    _Story.late_and_wrong,
    _Story.matched_then_spoilt,
    _Story.correction_before_the_original,
)
REFUNDS_TOLD: tuple[Told, ...] = (
    _Story.refund_in_parts,
    _Story.refund_in_parts,
    _Story.refund_short,
    _Story.refund_in_parts,
    _Story.refund_never_paid,
    _Story.refund_in_parts,
    _Story.refund_last_part_late,
)


def requests(events: list[Event], rows_per_request: int) -> Iterator[list[Event]]:
    """Return the events as requests, in order: rows of one channel together, each webhook alone."""
    waiting: dict[str, list[Event]] = {"ledger": [], "provider": []}
    for event in events:
        if event.channel == "webhook":
            yield [event]
            continue
        rows = waiting[event.channel]
        rows.append(event)
        if len(rows) == rows_per_request:
            yield rows
            waiting[event.channel] = []
    yield from (rows for rows in waiting.values() if rows)

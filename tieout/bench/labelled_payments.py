"""Payments, refunds, disputes and payouts of which it is known what is wrong with each: the ground truth of `bench accuracy`."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from shared.errors import UsageError

START = datetime(2026, 3, 2, tzinfo=UTC)
EVERY = timedelta(seconds=4)
"""Between two payments."""
DELAY_MEDIAN_S = 240.0
DELAY_SIGMA = 0.9
"""Of the provider's records, log-normal: half come within four minutes, one in a hundred takes half an hour."""
DEADLINE = timedelta(hours=1)
LATE = timedelta(minutes=20)
"""A late record comes up to so much after the deadline."""
SKEW_MAX_S = 300
PARTS = 12
"""Of a payout."""
SILENT_AFTER = timedelta(minutes=30)
SILENCE = timedelta(hours=3)

RATES: dict[str, float] = {
    "missing_internal": 0.01,
    "missing_provider": 0.01,
    "late": 0.02,
    "fee": 0.01,
    "rounding": 0.01,
    "transposed": 0.005,
    "minor_units": 0.005,
    "sign": 0.005,
    "currency": 0.005,
    "status": 0.005,
    "status_lag": 0.02,
    "declined_then_paid": 0.02,
    "duplicate_record": 0.01,
    "duplicate_notification": 0.02,
    "refunded_in_parts": 0.02,
    "refunded": 0.01,
    "refund_short": 0.005,
    "chargeback": 0.005,
    "reversed_on_one_side": 0.005,
    "reversed": 0.005,
    "payout": 0.005,
    "payout_short": 0.005,
    "skewed_clock": 0.02,
    "silent_feed": 0.02,
}
"""Share of the movements by what is done to them; what is left agrees."""

Found = tuple[str, str, str]
"""Rule, key and type of a discrepancy."""


class Truth(NamedTuple):
    """What is known of a movement."""

    label: str
    key: str
    open: tuple[Found, ...] = ()
    """Discrepancies that must be open at the end."""
    passing: tuple[Found, ...] = ()
    """Those that must be raised and taken back."""


@dataclass
class Labelled:
    """A stream with its truth."""

    events: list[tuple[datetime, dict[str, Any]]] = field(default_factory=list)
    """Receipt and event, in order of receipt."""
    truths: list[Truth] = field(default_factory=list)
    off_by: dict[str, Decimal] = field(default_factory=dict)
    """By key: how much money an amount is off, without its sign."""
    end: datetime = START


def rules(deadline: str = "1h", tolerance: str = "0.00") -> list[dict[str, Any]]:
    """Return the rules that the stream is for."""
    amounts: dict[str, Any] = {"amount": {"tolerance": tolerance}, "currency": {}}

    def match(name: str, key: str, internal: str, provider: str, **more: Any) -> dict[str, Any]:
        sides = {
            "internal": {"source": "ledger", "type": [internal]},
            "provider": {"source": "psp", "type": [provider]},
        }
        rule = {"name": name, "kind": "match", "sides": sides, "key": key, "compare": amounts, "deadline": deadline}
        return rule | {"keep": "7d"} | more

    sides = {
        "internal": {"source": "ledger", "type": ["sale.*"]},
        "provider": {"source": "acquirer", "type": ["sale.*"]},
    }
    return [
        match("money.payments", "refs.payment", "payment.*", "payment.*",
              compare=amounts | {"status": {}}, duplicates=["internal", "provider"]),
        match("money.refunds", "refs.payment", "refund.*", "refund.*", cardinality="many_to_many"),
        match("money.disputes", "refs.dispute", "dispute.*", "dispute.*"),
        match("money.payouts", "refs.payout", "payout.*", "part.*", cardinality="one_to_many"),
        match("money.entries", "refs.entry", "entry.*", "entry.*"),
        match("money.sales", "refs.sale", "sale.*", "sale.*", sides=sides),
        {"name": "money.feeds", "kind": "feed", "source": ["acquirer"], "silent_after": f"{SILENT_AFTER.seconds // 60}m"},
    ]  # fmt: skip


def generate(movements: int, seed: int, rates: Mapping[str, float] = RATES) -> Labelled:
    """Make a stream of about `movements` movements; the same for the same seed and rates.

    Raises:
        UsageError: an unknown rate, or rates above 1 in all.
    """
    if unknown := set(rates) - set(RATES):
        raise UsageError(f"no rate is called {', '.join(sorted(unknown))}; there are {', '.join(RATES)}")
    if not 0 <= sum(rates.values()) <= 1 or min(rates.values(), default=0) < 0:
        raise UsageError(f"the rates add up to {sum(rates.values()):g}: they are shares of all movements, 1 at most")
    return _Maker(seed, rates).make(movements)


class _Maker:
    def __init__(self, seed: int, rates: Mapping[str, float]) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - not a secret: the same data in every run
        self._labels = [*rates, "clean"]
        self._weights = [*rates.values(), max(0.0, 1 - sum(rates.values()))]
        self._made = Labelled()
        self._number = 0

    def make(self, movements: int) -> Labelled:
        made = self._made
        begin, silence = START, START + EVERY * (movements // 2)
        if dict(zip(self._labels, self._weights, strict=True)).get("silent_feed"):
            made.truths.append(Truth("silent_feed", "acquirer", passing=(("money.feeds", "acquirer", "FeedSilent"),)))
        for label in self._chance.choices(self._labels, self._weights, k=movements):
            self._number += 1
            make = _KINDS.get(label, _Maker.payment)
            make(self, label, begin, silence)
            begin += EVERY
        made.end = begin + DEADLINE * 4 + SILENCE
        while begin < made.end:
            self._number += 1
            self.sale("alive", begin, silence)
            begin += SILENT_AFTER / 3
        made.events.sort(key=lambda event: event[0])
        return made

    # ---- what is made

    def payment(self, label: str, at: datetime, _silence: datetime) -> None:
        """A payment on both sides, with what the label says wrong with it."""
        key, amount = f"pay-{self._number}", self._amount()
        internal: dict[str, Any] = {"refs": {"payment": key}, "record": key, "status": "succeeded", **_money(amount)}
        provider = internal | {"record": f"psp-{key}"} | self._spoiled(label, amount, at)
        if label in _WRONG_AMOUNTS:
            self._made.off_by[key] = abs(_WRONG_AMOUNTS[label](amount) - amount)
        late = timedelta(seconds=self._chance.uniform(30, LATE.total_seconds()))
        arrives = at + (DEADLINE + late if label == "late" else self._delay())
        if label == "declined_then_paid":  # the ledger books what the provider has confirmed
            self._event("psp", "payment.failed", at, provider | {"status": "failed"})
        if label == "status_lag":
            self._event("psp", "payment.processing", at + EVERY, provider | {"status": "processing"})
        if label != "missing_internal":
            booked = arrives + EVERY if label == "declined_then_paid" else at
            self._event("ledger", "payment.recorded", booked, internal)
        if label != "missing_provider":
            event = self._event("psp", "payment.recorded", arrives, provider)
            if label == "duplicate_notification":
                self._made.events.append((arrives + EVERY, event))
        if label == "duplicate_record":
            self._event("psp", "payment.recorded", arrives + EVERY, provider | {"record": f"psp-{key}-again"})
        if label in {"reversed", "reversed_on_one_side"}:
            back = arrives + self._delay()
            self._event("psp", "payment.canceled", back, provider | {"status": "canceled"})
            if label == "reversed":
                self._event("ledger", "payment.canceled", back + EVERY, internal | {"status": "canceled"})
        found = (("money.payments", key, _FOUND[label]),) if label in _FOUND else ()
        passing = (("money.payments", key, _PASSING[label]),) if label in _PASSING else ()
        self._made.truths.append(Truth(label, key, found, passing))

    def _spoiled(self, label: str, amount: Decimal, at: datetime) -> dict[str, Any]:
        """What the provider's record says otherwise."""
        if label in _WRONG_AMOUNTS:
            return _money(_WRONG_AMOUNTS[label](amount))
        if label == "skewed_clock":
            return {"occurred_at": at + timedelta(seconds=self._chance.uniform(-SKEW_MAX_S, SKEW_MAX_S))}
        return {"currency": {"currency": "USD"}, "status": {"status": "failed"}}.get(label, {})

    def refund(self, label: str, at: datetime, _silence: datetime) -> None:
        """A refund in one or two parts, of which the ledger may lack one."""
        key, amount = f"ref-{self._number}", self._amount()
        parts = [amount] if label == "refunded" else [amount / 4 // _CENT * _CENT, amount - amount / 4 // _CENT * _CENT]
        for number, part in enumerate(parts):
            body = {"refs": {"payment": key}, "status": "succeeded", **_money(part)}
            self._event("psp", "refund.recorded", at + self._delay(), body | {"record": f"psp-{key}-{number}"})
            if label != "refund_short" or number == 0:
                self._event("ledger", "refund.recorded", at + EVERY * number, body | {"record": f"{key}-{number}"})
        found = (("money.refunds", key, "AmountMismatch"),) if label == "refund_short" else ()
        self._made.off_by[key] = parts[-1]
        self._made.truths.append(Truth(label, key, found))

    def chargeback(self, label: str, at: datetime, _silence: datetime) -> None:
        """The provider takes money back, and nobody has booked it."""
        key = f"dis-{self._number}"
        body = {"refs": {"dispute": key}, "record": key, "status": "lost", **_money(self._amount())}
        self._event("psp", "dispute.opened", at, body)
        self._made.truths.append(Truth(label, key, (("money.disputes", key, "MissingInternalRecord"),)))

    def payout(self, label: str, at: datetime, _silence: datetime) -> None:
        """One payout booked against its parts, of which one may be lacking."""
        key = f"out-{self._number}"
        parts = [self._amount() for _ in range(PARTS)]
        body = {"refs": {"payout": key}, "record": key, "status": "paid"}
        self._event("ledger", "payout.recorded", at, body | _money(sum(parts, Decimal(0))))
        for number, part in enumerate(parts[1:] if label == "payout_short" else parts):
            self._event("psp", "part.recorded", at + self._delay(), body | {"record": f"{key}-{number}"} | _money(part))
        found = (("money.payouts", key, "AmountMismatch"),) if label == "payout_short" else ()
        self._made.off_by[key] = parts[0]
        self._made.truths.append(Truth(label, key, found))

    def entry(self, label: str, at: datetime, _silence: datetime) -> None:
        """A signed entry that the other side has with the other sign."""
        key, amount = f"ent-{self._number}", self._amount()
        body = {"refs": {"entry": key}, "record": key}
        self._event("ledger", "entry.recorded", at, body | _money(amount))
        self._event("psp", "entry.recorded", at + self._delay(), body | _money(-amount))
        self._made.off_by[key] = 2 * amount
        self._made.truths.append(Truth(label, key, (("money.entries", key, "AmountMismatch"),)))

    def sale(self, label: str, at: datetime, silence: datetime) -> None:
        """A sale of a feed that falls silent in the middle of the stream and comes back with everything."""
        key = f"sale-{self._number}"
        body = {"refs": {"sale": key}, "record": key, **_money(self._amount())}
        self._event("ledger", "sale.recorded", at, body)
        arrives = at + EVERY
        if silence <= arrives < silence + SILENCE:
            arrives = silence + SILENCE + EVERY
        self._event("acquirer", "sale.recorded", arrives, body)
        self._made.truths.append(Truth(label, key))

    # ---- parts

    def _event(self, source: str, type_: str, at: datetime, body: dict[str, Any]) -> dict[str, Any]:
        occurred_at = body.get("occurred_at", at)
        event = body | {"source": source, "type": type_, "id": f"{source}-{len(self._made.events)}"}
        event["occurred_at"] = occurred_at.isoformat()
        self._made.events.append((at, event))
        return event

    def _amount(self) -> Decimal:
        """Two different digits before the point, so that they can be transposed."""
        cents = self._chance.randrange(1_000, 1_000_000)
        amount = Decimal(cents).scaleb(-2)
        return amount if _transposed(amount) != amount else amount + 10

    def _delay(self) -> timedelta:
        """Below the deadline: what comes after it has a label of its own."""
        seconds = self._chance.lognormvariate(0, DELAY_SIGMA) * DELAY_MEDIAN_S
        return timedelta(seconds=min(seconds, 0.9 * DEADLINE.total_seconds()))


_CENT = Decimal("0.01")


def _money(amount: Decimal) -> dict[str, str]:
    return {"amount": f"{amount:.2f}", "currency": "EUR"}


def _transposed(amount: Decimal) -> Decimal:
    whole, _, cents = f"{amount:.2f}".partition(".")
    return Decimal(f"{whole[:-2]}{whole[-1]}{whole[-2]}.{cents}")


_WRONG_AMOUNTS: dict[str, Callable[[Decimal], Decimal]] = {
    "fee": lambda amount: amount - (amount * Decimal("0.029")).quantize(_CENT) - Decimal("0.30"),
    "rounding": lambda amount: amount + _CENT,
    "transposed": _transposed,
    "minor_units": lambda amount: amount * 100,
}
_FOUND = dict.fromkeys(_WRONG_AMOUNTS, "AmountMismatch") | {
    "currency": "CurrencyMismatch",
    "status": "StatusMismatch",
    "reversed_on_one_side": "StatusMismatch",
    "missing_internal": "MissingInternalRecord",
    "missing_provider": "MissingProviderRecord",
    "duplicate_record": "DuplicateChargeSuspected",
}
"""What must be open at the end, by what is wrong with a payment."""
_PASSING = {"late": "MissingProviderRecord", "reversed": "StatusMismatch", "status_lag": "StatusMismatch"}
"""What must be raised and taken back; a `settle` of the rule would hide the statuses that only lag."""
_KINDS: dict[str, Callable[[_Maker, str, datetime, datetime], None]] = {
    "refunded": _Maker.refund,
    "refunded_in_parts": _Maker.refund,
    "refund_short": _Maker.refund,
    "chargeback": _Maker.chargeback,
    "payout": _Maker.payout,
    "payout_short": _Maker.payout,
    "sign": _Maker.entry,
    "silent_feed": _Maker.sale,
}

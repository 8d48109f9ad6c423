"""A bank statement against invoices, with what goes wrong in life planted in it, and labels of what belongs together.

The same seed gives the same events on every machine.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import yaml

START = datetime(2026, 1, 5, 8, tzinfo=UTC)
DAYS = 90
"""Invoices are issued on these days."""
PAY_AFTER_DAYS = 14

RULE: dict[str, Any] = {
    "name": "bank.invoices",
    "kind": "match",
    "sides": {
        "internal": {"source": "erp", "type": ["invoice.*"]},
        "provider": {"source": "bank", "type": ["entry.*"]},
    },
    "partition_by": ["currency", "account"],
    "score": {"reference": {"fields": ["refs.invoice", "attrs.customer", "attrs.remittance", "attrs.counterparty"]}},
    "deadline": {"internal": "5d", "provider": "60d"},
}
"""Everything else is left at its default."""

FIRST = [
    "Acme",
    "Borealis",
    "Cobalt",
    "Dorado",
    "Ember",
    "Falcon",
    "Granite",
    "Harbor",
    "Indigo",
    "Juniper",
    "Kestrel",
    "Lumen",
    "Meridian",
    "Nimbus",
    "Orchid",
    "Pioneer",
    "Quartz",
    "Raven",
    "Summit",
    "Tundra",
    "Umber",
    "Vertex",
    "Willow",
    "Xenon",
    "Yarrow",
    "Zephyr",
]
SECOND = [
    "Logistics",
    "Foods",
    "Textiles",
    "Robotics",
    "Energy",
    "Pharma",
    "Timber",
    "Motors",
    "Optics",
    "Media",
    "Paper",
    "Travel",
    "Steel",
    "Design",
    "Labs",
    "Farms",
]
FORMS = ["GmbH", "AG", "Ltd", "SA", "BV", "Inc"]
PRICES = [Decimal(price) for price in ("19.00", "49.00", "99.00", "149.00", "199.00", "499.00", "990.00")]
"""Of subscriptions: many invoices of one amount."""
NOISE = (
    "Rent office {month}",
    "Salary {number}",
    "Card settlement {number}",
    "Account fee {month}",
    "Tax office {number}",
    "Refund insurance {number}",
)

SHARES = {
    "exact": 700,
    "rewritten": 80,
    "transposed": 60,
    "typo": 20,
    "name only": 40,
    "bare": 10,
    "fee kept": 15,
    "partial": 25,
    "bundled": 25,
    "bundled by name": 5,
    "unpaid": 20,
}
"""Of thousand payments; a bundle or a partial payment counts once."""
NOISE_SHARE = 30
"""Lines that pay no invoice, of thousand."""


@dataclass(frozen=True, slots=True)
class Link:
    """One payment as it is in truth: these lines pay these invoices."""

    kind: str
    invoices: tuple[str, ...]
    lines: tuple[str, ...]


@dataclass(slots=True)
class Statement:
    """Events in order of receipt, and what belongs together."""

    events: list[dict[str, Any]] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    invoices: int = 0
    lines: int = 0


def generate(invoices: int, seed: int = 1) -> Statement:
    """Make about as many lines as invoices."""
    return _Generator(Random(seed)).run(invoices)  # noqa: S311 - made-up data, the same for a seed


def write(statement: Statement, folder: Path) -> None:
    """Write `rules.yaml`, `invoices.jsonl`, `statement.jsonl` and `labels.jsonl` into a folder."""
    rules = {"version": 1, "pack": "bank", "rules": [RULE]}
    folder.joinpath("rules.yaml").write_text(yaml.safe_dump(rules, sort_keys=False), encoding="utf-8")
    for source, name in (("erp", "invoices.jsonl"), ("bank", "statement.jsonl")):
        rows = [event for event in statement.events if event["source"] == source]
        folder.joinpath(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    labels = [{"kind": link.kind, "invoices": link.invoices, "lines": link.lines} for link in statement.links]
    folder.joinpath("labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labels), encoding="utf-8")


@dataclass(frozen=True, slots=True)
class _Invoice:
    number: str
    customer: str
    amount: Decimal
    issued: datetime


class _Generator:
    def __init__(self, random: Random) -> None:
        self._random = random
        self._statement = Statement()
        self._customers = [f"{a} {b} {random.choice(FORMS)}" for a in FIRST for b in SECOND]

    def run(self, invoices: int) -> Statement:
        statement, random = self._statement, self._random
        kinds = [kind for kind, share in SHARES.items() for _ in range(share)]
        while statement.invoices < invoices:
            kind = random.choice(kinds)
            self._payment(kind, min(self._count(kind), invoices - statement.invoices))
        for _ in range(invoices * NOISE_SHARE // 1000):
            self._noise()
        statement.events.sort(key=lambda event: (event["occurred_at"], event["source"], event["record"]))
        return statement

    def _count(self, kind: str) -> int:
        return self._random.randint(2, 5) if kind.startswith("bundled") else 1

    def _payment(self, kind: str, count: int) -> None:
        random = self._random
        issued = START + timedelta(days=random.randrange(DAYS), minutes=random.randrange(600))
        customer = random.choice(self._customers)
        held = [self._invoice(customer, issued + timedelta(days=random.randrange(3))) for _ in range(count)]
        numbers = tuple(invoice.number for invoice in held)
        if kind == "unpaid":
            return
        paid = max(invoice.issued for invoice in held) + timedelta(
            days=PAY_AFTER_DAYS + random.choice((-9, -4, -2, -1, -1, 0, 0, 0, 0, 1, 1, 2, 3, 6, 12, 20)),
            minutes=random.randrange(300),
        )
        lines = [
            self._line(amount, at, customer, self._text(kind, held, part))
            for part, (amount, at) in enumerate(self._amounts(kind, held, paid))
        ]
        self._statement.links.append(Link(kind, numbers, tuple(lines)))

    def _invoice(self, customer: str, issued: datetime) -> _Invoice:
        random, statement = self._random, self._statement
        statement.invoices += 1
        number = f"INV-2026-{100_000 + statement.invoices * 7:06d}"
        is_subscription = random.random() < 0.15
        amount = random.choice(PRICES) if is_subscription else Decimal(random.randrange(1500, 900_000)).scaleb(-2)
        self._event(
            "erp",
            "invoice.issued",
            number,
            issued,
            amount,
            refs={"invoice": number},
            attrs={"customer": customer},
        )
        return _Invoice(number, customer, amount, issued)

    def _amounts(self, kind: str, held: Sequence[_Invoice], paid: datetime) -> list[tuple[Decimal, datetime]]:
        random = self._random
        total = sum((invoice.amount for invoice in held), Decimal(0))
        if kind == "fee kept":
            fee = (total * Decimal(random.randrange(2, 15)) / 1000).quantize(Decimal("0.01"))
            return [(total - max(fee, Decimal("0.01")), paid)]
        if kind == "partial":
            count = random.randint(2, 3)
            cuts = sorted(random.sample(range(1, 20), count - 1))
            parts = [
                (total * (b - a) / 20).quantize(Decimal("0.01")) for a, b in zip([0, *cuts], [*cuts, 20], strict=True)
            ]
            parts[-1] = total - sum(parts[:-1], Decimal(0))
            return [(part, paid + timedelta(days=3 * place)) for place, part in enumerate(parts)]
        return [(total, paid)]

    def _text(self, kind: str, held: Sequence[_Invoice], part: int) -> tuple[str, bool]:  # noqa: PLR0911 - one per kind
        """Return the remittance text, and whether the counterparty's name stands on the line."""
        random = self._random
        numbers = [invoice.number for invoice in held]
        match kind:
            case "name only" | "bundled by name":
                return random.choice(("Payment", "Thank you", "Transfer")), True
            case "bare":
                return "", False
            case "rewritten":
                bare = numbers[0].replace("-", random.choice(("", " ", "/", ".")))
                return random.choice(("Invoice {}", "{} thanks", "Rg.Nr. {}", "pmt {} / order")).format(
                    bare.lower()
                ), True
            case "transposed":
                return f"Invoice {self._transposed(numbers[0])}", random.random() < 0.7
            case "typo":
                return f"Invoice {self._mistyped(numbers[0])}", random.random() < 0.7
            case "partial":
                return f"{numbers[0]} part {part + 1}", random.random() < 0.7
            case _:
                return " ".join(numbers), random.random() < 0.7

    def _transposed(self, number: str) -> str:
        places = [at for at in range(len(number) - 6, len(number) - 1) if number[at] != number[at + 1]]
        at = self._random.choice(places)
        return number[:at] + number[at + 1] + number[at] + number[at + 2 :]

    def _mistyped(self, number: str) -> str:
        at = self._random.randrange(len(number) - 6, len(number))
        return (
            number[:at]
            + self._random.choice([digit for digit in "0123456789" if digit != number[at]])
            + number[at + 1 :]
        )

    def _line(self, amount: Decimal, at: datetime, customer: str, text: tuple[str, bool]) -> str:
        remittance, is_named = text
        record = f"L{self._statement.lines + 1:06d}"
        self._statement.lines += 1
        attrs = {"remittance": remittance}
        if is_named:
            attrs["counterparty"] = customer.upper() if self._random.random() < 0.5 else customer.rpartition(" ")[0]
        self._event("bank", "entry.booked", record, at, amount, refs={}, attrs={k: v for k, v in attrs.items() if v})
        return record

    def _noise(self) -> None:
        random = self._random
        at = START + timedelta(days=random.randrange(DAYS + 30), minutes=random.randrange(600))
        text = random.choice(NOISE).format(month=f"{at:%B}", number=random.randrange(1000, 99_999))
        amount = random.choice(PRICES) if random.random() < 0.1 else Decimal(random.randrange(1500, 900_000)).scaleb(-2)
        record = f"L{self._statement.lines + 1:06d}"
        self._statement.lines += 1
        sign = random.choice((1, -1))
        self._event("bank", "entry.booked", record, at, amount * sign, refs={}, attrs={"remittance": text})

    def _event(
        self,
        source: str,
        type_: str,
        record: str,
        at: datetime,
        amount: Decimal,
        *,
        refs: dict[str, str],
        attrs: dict[str, str],
    ) -> None:
        self._statement.events.append(
            {
                "org": "acme",
                "source": source,
                "type": type_,
                "id": record,
                "record": record,
                "occurred_at": at.isoformat(),
                "amount": f"{amount:f}",
                "currency": "EUR",
                "account": "main",
                "refs": refs,
                "attrs": attrs,
            }
        )

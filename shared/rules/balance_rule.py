"""Kind `balance`: what an account should hold by its movements, against what a reading says it holds."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import BeforeValidator, Field, StrictStr, model_validator

from shared.contracts.discrepancy import Severity
from shared.money import EXACT, is_currency, parse_amount
from shared.rules.duration import Duration, parse_duration
from shared.rules.generation import generation_of
from shared.rules.match_rule import SideRule
from shared.rules.parts import (
    DecimalText,
    DurationText,
    KeyFields,
    RuleModel,
    Selector,
    SeverityMap,
    Strict,
    check_durations,
)
from shared.rules.severity import SeverityOf, severity_of

MISMATCH = "BalanceMismatch"
MOVEMENTS, SNAPSHOTS = "movements", "snapshots"
BY_READING = "snapshot"
"""`opening`: the first reading of an account is its opening balance."""
PARTS_JOINED_BY = "/"
"""Between the parts of an account with several key fields, where `opening` and `overrides` name it."""


def _signed_decimal(text: Any) -> Any:
    if not isinstance(text, str):
        msg = f'write it as a string, e.g. "50.00", so that it stays exact (got {text!r})'
        raise ValueError(msg)  # noqa: TRY004 - pydantic turns only ValueError into a report
    parse_amount(text)
    return text


def _opening(value: Any) -> Any:
    """Refuse at the edge what is no text, with its place: a choice of forms would be told once per form."""
    if isinstance(value, dict):
        for account, given in value.items():
            for place, amount in given.items() if isinstance(given, dict) else ((None, given),):
                if not isinstance(amount, str):
                    where = f"{account}.{place}" if place is not None else account
                    msg = f'{where}: write amounts as strings, e.g. "50.00", so that they stay exact (got {amount!r})'
                    raise ValueError(msg)  # noqa: TRY004 - pydantic turns only ValueError into a report
    elif not isinstance(value, str):
        msg = f'write `{BY_READING}`, an amount as a string, e.g. "0.00", or amounts by account (got {value!r})'
        raise ValueError(msg)  # noqa: TRY004 - pydantic turns only ValueError into a report
    return value


def _basis_points(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _severity(value: Any) -> Any:
    return {"default": value} if isinstance(value, str) else value


SignedText = Annotated[str, BeforeValidator(_signed_decimal)]
BasisPoints = Annotated[DecimalText, BeforeValidator(_basis_points, json_schema_input_type=str | int)]
Severities = Annotated[SeverityMap, BeforeValidator(_severity, json_schema_input_type=Severity | SeverityMap)]


Opening = Annotated[str | dict[StrictStr, str | dict[StrictStr, SignedText]], BeforeValidator(_opening)]


class Override(Strict):
    """What is different for one account; what is left out is as the rule says."""

    enabled: bool = True
    tolerance: DecimalText | None = None
    tolerance_bps: BasisPoints | None = None
    severity: Severities | None = None


class BalanceRuleModel(RuleModel):
    """A rule of kind `balance`: one cell is one account, with a balance per currency."""

    kind: Literal["balance"]
    movements: Selector
    snapshots: Selector
    key: KeyFields
    measure: Literal["amount", "count"] = "amount"
    opening: Opening = BY_READING
    tolerance: DecimalText = "0"
    tolerance_bps: BasisPoints = "0"
    settle: DurationText = "0s"
    keep: DurationText = "7d"
    expire: DurationText = "90d"
    overrides: dict[StrictStr, Override] = Field(default={})

    @property
    def discrepancy_types(self) -> tuple[str, ...]:
        """The one type that the rule can raise."""
        return (MISMATCH,)

    @property
    def selectors(self) -> dict[str, Selector]:
        """What changes a balance, and what says how much there is."""
        return {MOVEMENTS: self.movements, SNAPSHOTS: self.snapshots}

    @property
    def grouped_by(self) -> list[str]:
        """What names an account."""
        return self.key

    @property
    def fixed(self) -> dict[str, Any]:
        """What may not change under one name: what was counted so far was counted in this measure."""
        return {**super().fixed, "measure": self.measure}

    @property
    def shape(self) -> list[Any]:
        """What was counted so far was counted in this measure."""
        return [*super().shape, self.measure]

    @model_validator(mode="after")
    def _opening_is_readable(self) -> Self:
        if isinstance(self.opening, str):
            if self.opening != BY_READING:
                _opening_amount("opening", self.opening)
            return self
        for account, given in self.opening.items():
            where = f"opening.{account}"
            if isinstance(given, str) != (self.measure == "count"):
                what = 'an amount, e.g. "0"' if self.measure == "count" else 'amounts by currency, e.g. {EUR: "50.00"}'
                msg = f"{where}: a rule that measures {self.measure} opens with {what}"
                raise ValueError(msg)
            if isinstance(given, str):
                _opening_amount(where, given)
                continue
            for currency in given:
                if not is_currency(currency):
                    msg = f"{where}: {currency!r} is no currency; use ISO 4217 codes"
                    raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        check_durations(self, "settle", "keep", "expire")
        settle, keep, expire = (parse_duration(text).milliseconds for text in (self.settle, self.keep, self.expire))
        if settle > keep:
            msg = (
                f"settle: {self.settle} is longer than keep ({self.keep}), so movements would be too late for a reading "
                "that waits for them; give keep at least the length of settle"
            )
            raise ValueError(msg)
        if keep > expire and "expire" in self.model_fields_set:
            msg = f"expire: {self.expire} is shorter than keep ({self.keep}); give it at least the length of keep"
            raise ValueError(msg)
        if "currency" in self.key and self.measure == "amount":
            msg = "key: currency is always told apart; leave it out of the key"
            raise ValueError(msg)
        if self.snapshots.live is not None or self.snapshots.sign != 1:
            msg = (
                "snapshots: a reading has neither status nor sign; leave out live and sign, and give movements the sign"
            )
            raise ValueError(msg)
        if self.movements.live == []:
            msg = "movements.live: names no status, so no movement would ever count; name those that do or leave it out"
            raise ValueError(msg)
        if self.movements.source == self.snapshots.source:
            for one in self.movements.type:
                for other in self.snapshots.type:
                    if _overlap(one, other):
                        msg = (
                            f"snapshots: {self.snapshots.source} events of {other!r} are movements already ({one!r}); "
                            "an event is either of them"
                        )
                        raise ValueError(msg)
        return self


def _opening_amount(where: str, text: str) -> None:
    try:
        parse_amount(text)
    except ValueError as error:
        msg = f"{where}: {error}; or write `{BY_READING}`" if where == "opening" else f"{where}: {error}"
        raise ValueError(msg) from None


def _overlap(one: str, other: str) -> bool:
    """Tell whether two patterns of types select an event in common."""
    if "*" in (one, other) or one == other:
        return True
    first, second = one.removesuffix("*"), other.removesuffix("*")
    return (one.endswith("*") and second.startswith(first)) or (other.endswith("*") and first.startswith(second))


class Watch(NamedTuple):
    """How one account is judged."""

    enabled: bool
    tolerance: Decimal
    tolerance_bps: Decimal
    severity_of: SeverityOf

    def allowance(self, expected: Decimal) -> Decimal:
        """Return how far a reading may be from `expected`, inclusive: of both tolerances the larger."""
        if not self.tolerance_bps:
            return self.tolerance
        share = EXACT.scaleb(EXACT.multiply(abs(expected), self.tolerance_bps), Decimal(-4))
        return max(self.tolerance, share)


@dataclass(frozen=True, slots=True)
class BalanceRule:
    """A compiled `balance` rule of one org."""

    org: str
    pack: str
    name: str
    generation: str
    movements: SideRule
    """Which movements are live; its name is that of their source."""
    snapshots_source: str
    noun: str
    """What people call the thing that has a balance: the last word of the key."""
    counts: bool
    """Movements are counted, not added up; nothing has a currency."""
    opening: Decimal | None
    openings: dict[str, dict[str, Decimal]]
    """By account and currency (`""` where movements are counted)."""
    watch: Watch
    watches: dict[str, Watch]
    """Of accounts with overrides."""
    settle_ms: int
    keep_ms: int
    expire_ms: int
    severity_of: SeverityOf
    shadow: bool = False
    kind: ClassVar[str] = "balance"

    def given_opening(self, account: str, currency: str | None) -> Decimal | None:
        """Return the opening balance that the rule gives; None: the first reading is it."""
        if self.opening is not None:
            return self.opening
        return self.openings.get(account, {}).get(currency or "")

    def watch_of(self, account: str) -> Watch:
        """Return how an account is judged."""
        return self.watches.get(account, self.watch)


def compile_balance(org: str, pack: str, model: BalanceRuleModel) -> BalanceRule:
    """Compile a validated rule."""
    live = model.movements.live
    movements = SideRule(
        name=model.movements.source,
        live=None if live is None else frozenset(live),
        deadline=Duration(0),
        raises_duplicates=False,
        status_map={},
    )
    severity = severity_of(model.severity)
    watch = Watch(
        enabled=True,
        tolerance=parse_amount(model.tolerance),
        tolerance_bps=parse_amount(model.tolerance_bps),
        severity_of=severity,
    )
    return BalanceRule(
        org=org,
        pack=pack,
        name=model.name,
        generation=generation_of(org, pack, model),
        movements=movements,
        snapshots_source=model.snapshots.source,
        noun=model.key[-1].rpartition(".")[2].replace("_", " ").removesuffix(" id") or "account",
        counts=model.measure == "count",
        opening=parse_amount(model.opening) if isinstance(model.opening, str) and model.opening != BY_READING else None,
        openings={account: _amounts(given) for account, given in model.opening.items()}
        if isinstance(model.opening, dict)
        else {},
        watch=watch,
        watches={account: _overridden(watch, own) for account, own in model.overrides.items()},
        settle_ms=parse_duration(model.settle).milliseconds,
        keep_ms=parse_duration(model.keep).milliseconds,
        expire_ms=max(parse_duration(text).milliseconds for text in (model.keep, model.expire)),
        severity_of=severity,
        shadow=model.shadow,
    )


def _amounts(given: str | dict[str, str]) -> dict[str, Decimal]:
    if isinstance(given, str):
        return {"": parse_amount(given)}
    return {currency: parse_amount(amount) for currency, amount in given.items()}


def _overridden(watch: Watch, own: Override) -> Watch:
    return Watch(
        enabled=own.enabled,
        tolerance=watch.tolerance if own.tolerance is None else parse_amount(own.tolerance),
        tolerance_bps=watch.tolerance_bps if own.tolerance_bps is None else parse_amount(own.tolerance_bps),
        severity_of=watch.severity_of if own.severity is None else severity_of(own.severity),
    )

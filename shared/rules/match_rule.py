"""Kind `match` with a key: the rule as written, and compiled to what the matcher judges by."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, StrictStr, model_validator

from shared.contracts.discrepancy import MatchType
from shared.money import EXACT, parse_amount
from shared.rules.alike import AlikeOnSides
from shared.rules.duration import Duration, parse_duration
from shared.rules.generation import generation_of
from shared.rules.parts import (
    CalendarChoice,
    DecimalText,
    DurationText,
    KeyFields,
    RuleModel,
    Selector,
    SideName,
    Strict,
    calendar_of,
    check_calendar,
    check_durations,
)
from shared.rules.severity import SeverityOf, severity_of

NOT_LIVE = frozenset({"created", "pending", "authorized", "processing", "failed", "canceled", "voided", "expired"})
NOT_LIVE_PREFIX = "requires_"
STATUSES_KNOWN_MAX = 1000
"""Statuses remembered per side: producers choose them, so there is a bound."""

SIDES_MAX = 8


class CompareAmount(Strict):
    """Allowance: |actual - expected| <= the larger of `tolerance` and `percent` of |expected|, inclusive."""

    tolerance: DecimalText = "0"
    percent: DecimalText = "0"


class CompareAmounts(CompareAmount):
    """The same for a rule that may have more than two sides."""

    equals: dict[SideName, Annotated[list[SideName], Field(min_length=1)]] | None = None
    """One side against the sum of all others: `{payout: [charges, refunds, fees]}`. Without it every side is compared
    with the first."""


class CompareCurrency(Strict):
    """Currencies must be equal."""


class CompareStatus(Strict):
    """Statuses must be equal after each side's map; an absent status is not compared."""

    map: dict[SideName, dict[StrictStr, StrictStr]] = Field(default={})


class Compare(Strict):
    """What is compared; what is left out is not."""

    amount: CompareAmounts | None = None
    currency: CompareCurrency | None = None
    status: CompareStatus | None = None

    @model_validator(mode="before")
    @classmethod
    def _present_means_compared(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {k: ({} if v is None else v) for k, v in value.items()}
        return value


class MatchRuleModel(RuleModel):
    """A rule of kind `match` with a key: one group is one money movement."""

    kind: Literal["match"]
    sides: dict[SideName, Selector] = Field(min_length=2, max_length=SIDES_MAX)
    key: KeyFields
    compare: Compare = Compare(amount=CompareAmounts(), currency=CompareCurrency())
    deadline: DurationText | dict[SideName, DurationText] = "24h"
    calendar: CalendarChoice | None = None
    """What business days of `deadline` are: a country, `{country, subdivision}`, a market or TARGET; else Monday to Friday."""
    settle: DurationText = "0s"
    keep: DurationText = "24h"
    expire: DurationText = "90d"
    cardinality: Literal["one_to_one", "one_to_many", "many_to_many"] = "one_to_one"
    duplicates: list[SideName] | AlikeOnSides | None = None
    """Sides on which a second live record is suspected; all sides where it is left out. One-to-one rules only:
    the sums of the others show an extra record. `{same: [account, amount, currency], within: 10m}` suspects records
    under different keys as well: see `duplicate_sides` and `shared.rules.companions`."""

    @property
    def duplicate_sides(self) -> list[str]:
        """Sides on which a second live record of one key is suspected."""
        named = self.duplicates.sides if isinstance(self.duplicates, AlikeOnSides) else self.duplicates
        return list(self.sides) if named is None else list(named)

    @property
    def discrepancy_types(self) -> tuple[str, ...]:
        """Types of discrepancy that the rule can raise."""
        return get_args(MatchType)

    @property
    def selectors(self) -> dict[str, Selector]:
        """Its sides, in their order."""
        return self.sides

    @property
    def grouped_by(self) -> list[str]:
        """Its match key."""
        return self.key

    @property
    def fixed(self) -> dict[str, Any]:
        """What may not change under one name."""
        equals = self.compare.amount.equals if self.compare.amount else None
        return {**super().fixed, "cardinality": self.cardinality, **({"equals": equals} if equals else {})}

    @model_validator(mode="after")
    def _sides_exist(self) -> Self:
        known = ", ".join(self.sides)
        named = {"duplicates": self.duplicate_sides}
        if isinstance(self.deadline, dict):
            named["deadline"] = list(self.deadline)
            missing = [side for side in self.sides if side not in self.deadline]
            if missing:
                msg = f"deadline: names no time for {', '.join(missing)}; give one per side or a single one"
                raise ValueError(msg)
        if self.compare.status:
            named["compare.status.map"] = list(self.compare.status.map)
        for where, sides in named.items():
            for side in sides:
                if side not in self.sides:
                    msg = f"{where}: {side!r} is no side of this rule (sides: {known})"
                    raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        equals = self.compare.amount.equals if self.compare.amount else None
        if equals is None:
            return self
        if len(equals) != 1:
            msg = "compare.amount.equals: name one side and the sides that add up to it"
            raise ValueError(msg)
        named = [name for whole, parts in equals.items() for name in (whole, *parts)]
        if sorted(named) != sorted(self.sides):
            msg = f"compare.amount.equals: must name every side of the rule once ({', '.join(self.sides)})"
            raise ValueError(msg)
        if self.cardinality == "one_to_one":
            msg = "compare.amount.equals: sums are compared; set cardinality to one_to_many or many_to_many"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        check_durations(self, "settle", "keep", "expire")
        check_calendar(self.calendar, self.deadline.values() if isinstance(self.deadline, dict) else [self.deadline])
        selectors = [(s.source, tuple(s.type)) for s in self.sides.values()]
        if len(set(selectors)) < len(selectors):
            msg = "sides: two sides select the same source and types, so every record would stand on both"
            raise ValueError(msg)
        return self


@dataclass(frozen=True, slots=True)
class SideRule:
    """One side of a rule."""

    name: str
    live: frozenset[str] | None
    """Statuses that count; None: the default."""
    deadline: Duration
    raises_duplicates: bool
    status_map: dict[str, str]
    source: str = ""
    """Whose records stand on it: while its feed is silent none of them is called missing."""
    known_live: dict[str | None, bool] = field(default_factory=dict, compare=False, repr=False)
    """Statuses already looked at: asked for every record."""

    def is_live(self, status: str | None) -> bool:
        """Tell whether a record of this status counts: unknown and absent statuses do, unless the rule lists them."""
        known = self.known_live.get(status)
        return known if known is not None else self._look_at(status)

    def _look_at(self, status: str | None) -> bool:
        if self.live is not None:
            is_live = status in self.live
        else:
            is_live = status is None or not (status in NOT_LIVE or status.startswith(NOT_LIVE_PREFIX))
        if len(self.known_live) < STATUSES_KNOWN_MAX:
            self.known_live[status] = is_live
        return is_live

    @property
    def missing_type(self) -> str:
        """Type of the discrepancy when this side has no record."""
        return {"internal": "MissingInternalRecord", "provider": "MissingProviderRecord"}.get(
            self.name, "MissingRecord"
        )


@dataclass(frozen=True, slots=True)
class MatchRule:
    """A compiled `match` rule of one org."""

    org: str
    pack: str
    name: str
    generation: str
    sides: tuple[SideRule, ...]
    key_fields: int
    compares_amount: bool
    tolerance: Decimal
    percent: Decimal
    compares_currency: bool
    compares_status: bool
    sums: bool
    """One-to-many and many-to-many: sums per side are compared."""
    settle_ms: int
    keep_ms: int
    expire_ms: int
    severity_of: SeverityOf
    shadow: bool = False
    heads: tuple[int, ...] = ()
    """Per side the first of the sides that it is added to before anything is compared; empty: each stands for itself."""
    kind: ClassVar[str] = "match"

    def head(self, side: int) -> int:
        """Return the place where what stands on a side is compared."""
        return self.heads[side] if self.heads else side

    def title(self, side: int) -> str:
        """Return the name of a side, of a sum of sides their names."""
        if not self.heads:
            return self.sides[side].name
        names = [one.name for place, one in enumerate(self.sides) if self.heads[place] == side]
        return names[0] if len(names) == 1 else f"the sum of {', '.join(names[:-1])} and {names[-1]}"

    @property
    def pairs(self) -> bool:
        """Two sides with one record each: the common kind, which the matcher settles without a verdict."""
        return len(self.sides) == 2 and not self.sums and not self.shadow

    def allowance(self, expected: Decimal) -> Decimal:
        """Return how far the actual amount may be from `expected`, inclusive."""
        if not self.percent:
            return self.tolerance
        share = EXACT.scaleb(EXACT.multiply(abs(expected), self.percent), Decimal(-2))
        return max(self.tolerance, share)


def compile_match(org: str, pack: str, model: MatchRuleModel) -> MatchRule:
    """Compile a validated rule."""
    amount, status = model.compare.amount, model.compare.status
    one_to_one = model.cardinality == "one_to_one"
    deadlines = model.deadline if isinstance(model.deadline, dict) else dict.fromkeys(model.sides, model.deadline)
    calendar = calendar_of(model.calendar)
    sides = tuple(
        SideRule(
            name=name,
            live=None if selector.live is None else frozenset(selector.live),
            deadline=parse_duration(deadlines[name], calendar),
            raises_duplicates=one_to_one and name in model.duplicate_sides,
            status_map=status.map.get(name, {}) if status else {},
            source=selector.source,
        )
        for name, selector in model.sides.items()
    )
    return MatchRule(
        org=org,
        pack=pack,
        name=model.name,
        generation=generation_of(org, pack, model),
        sides=sides,
        key_fields=len(model.key),
        compares_amount=amount is not None,
        tolerance=parse_amount(amount.tolerance) if amount else Decimal(0),
        percent=parse_amount(amount.percent) if amount else Decimal(0),
        compares_currency=model.compare.currency is not None,
        compares_status=status is not None and one_to_one,
        sums=not one_to_one,
        settle_ms=parse_duration(model.settle).milliseconds,
        keep_ms=parse_duration(model.keep).milliseconds,
        expire_ms=parse_duration(model.expire).milliseconds,
        severity_of=severity_of(model.severity),
        shadow=model.shadow,
        heads=_heads(model),
    )


def _heads(model: MatchRuleModel) -> tuple[int, ...]:
    equals = model.compare.amount.equals if model.compare.amount else None
    if not equals:
        return ()
    places = {name: place for place, name in enumerate(model.sides)}
    heads = dict(places)
    for parts in equals.values():
        heads |= dict.fromkeys(parts, min(places[part] for part in parts))
    return tuple(heads[name] for name in model.sides)

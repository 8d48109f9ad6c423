"""The rules format, version 1: what may stand in a rules file (DESIGN section 3). Validated by pydantic at the edge."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictStr,
    StringConstraints,
    model_validator,
)

from shared.contracts.discrepancy import MatchType, Severity
from shared.money import is_currency, parse_amount
from shared.rules.duration import parse_duration

FORMAT_VERSION = 1
RULES_MAX = 200
"""Rules in one pack."""
SIDES_MAX = 8
KEY_FIELDS_MAX = 8

_FIELD = re.compile(r"(refs|attrs)\.[^.\s][^\s]{0,63}|account|record|id|currency|status|type")


def _duration(text: str) -> str:
    parse_duration(text)
    return text


def _decimal(text: Any) -> Any:
    if not isinstance(text, str):
        msg = f'write it as a string, e.g. "0.05", so that it stays exact (got {text!r})'
        raise ValueError(msg)  # noqa: TRY004 - pydantic turns only ValueError into a report
    if parse_amount(text) < 0:
        msg = f"{text!r} is negative"
        raise ValueError(msg)
    return text


def _field(text: str) -> str:
    if not _FIELD.fullmatch(text):
        msg = f"{text!r} is no field: use refs.<name>, attrs.<name>, account, record, id, currency, status or type"
        raise ValueError(msg)
    return text


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


DurationText = Annotated[StrictStr, AfterValidator(_duration)]
DecimalText = Annotated[str, BeforeValidator(_decimal)]
FieldPath = Annotated[StrictStr, AfterValidator(_field)]
RuleName = Annotated[StrictStr, StringConstraints(pattern=r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)+$", max_length=64)]
SideName = Annotated[StrictStr, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=32)]
TypePattern = Annotated[
    StrictStr, StringConstraints(pattern=r"^(\*|[a-z][a-z0-9_]*(\.[a-z0-9_]+)*(\.\*)?)$", max_length=64)
]
Sign = Literal[1, -1]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SignBy(_Strict):
    """A sign read from a field: `{by: attrs.direction, credit: 1, debit: -1}`."""

    by: FieldPath
    values: dict[str, Sign] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, dict) and "values" not in value:
            return {"by": value.get("by"), "values": {k: v for k, v in value.items() if k != "by"}}
        return value


class Selector(_Strict):
    """Which events stand on a side."""

    source: StrictStr
    type: Annotated[list[TypePattern], BeforeValidator(_as_list), Field(min_length=1)]
    live: list[StrictStr] | None = None
    """Statuses that count; without it the default of section 3, point 3."""
    sign: Sign | SignBy = 1


class CompareAmount(_Strict):
    """Allowance: |actual - expected| <= the larger of `tolerance` and `percent` of |expected|, inclusive."""

    tolerance: DecimalText = "0"
    percent: DecimalText = "0"


class CompareCurrency(_Strict):
    """Currencies must be equal."""


class CompareStatus(_Strict):
    """Statuses must be equal after each side's map; an absent status is not compared."""

    map: dict[SideName, dict[StrictStr, StrictStr]] = {}


class Compare(_Strict):
    """What is compared; what is left out is not."""

    amount: CompareAmount | None = None
    currency: CompareCurrency | None = None
    status: CompareStatus | None = None

    @model_validator(mode="before")
    @classmethod
    def _present_means_compared(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {k: ({} if v is None else v) for k, v in value.items()}
        return value


class SeverityAbove(_Strict):
    """Severity by |difference|: strictly above a threshold, the highest one passed, per currency or `default`."""

    above: dict[StrictStr, dict[DecimalText, Severity]]

    @model_validator(mode="after")
    def _currencies(self) -> Self:
        for currency in self.above:
            if currency != "default" and not is_currency(currency):
                msg = f"{currency!r} is no currency; use ISO 4217 codes or `default`"
                raise ValueError(msg)
        return self


class SeverityMap(BaseModel):
    """Severity per discrepancy type; `default` where a type is not named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default: Severity = "medium"
    types: dict[MatchType, Severity | SeverityAbove] = {}

    @model_validator(mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, dict) and "types" not in value:
            types = {k: v for k, v in value.items() if k != "default"}
            return {"default": value.get("default", "medium"), "types": types}
        return value


class MatchRuleModel(_Strict):
    """A rule of kind `match` with a key: one group is one money movement."""

    name: RuleName
    kind: Literal["match"]
    sides: dict[SideName, Selector] = Field(min_length=2, max_length=SIDES_MAX)
    key: Annotated[list[FieldPath], BeforeValidator(_as_list), Field(min_length=1, max_length=KEY_FIELDS_MAX)]
    compare: Compare = Compare(amount=CompareAmount(), currency=CompareCurrency())
    deadline: DurationText | dict[SideName, DurationText] = "24h"
    settle: DurationText = "0s"
    keep: DurationText = "24h"
    expire: DurationText = "90d"
    cardinality: Literal["one_to_one", "one_to_many", "many_to_many"] = "one_to_one"
    duplicates: list[SideName] | None = None
    """Sides on which a second live record is suspected; all sides where it is left out. One-to-one rules only:
    the sums of the others show an extra record."""
    severity: SeverityMap = SeverityMap()

    @model_validator(mode="after")
    def _sides_exist(self) -> Self:
        known = ", ".join(self.sides)
        named = {"duplicates": self.duplicates or []}
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
    def _makes_sense(self) -> Self:
        for name in ("settle", "keep", "expire"):
            if parse_duration(getattr(self, name)).business_days:
                msg = f"{name}: business days are for deadlines only; write hours or days"
                raise ValueError(msg)
        selectors = [(s.source, tuple(s.type)) for s in self.sides.values()]
        if len(set(selectors)) < len(selectors):
            msg = "sides: two sides select the same source and types, so every record would stand on both"
            raise ValueError(msg)
        return self


Rule = MatchRuleModel


class RuleFile(_Strict):
    """A rules file: one pack."""

    version: Literal[1]
    pack: Annotated[StrictStr, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=32)]
    rules: list[Rule] = Field(max_length=RULES_MAX)

    @model_validator(mode="after")
    def _names_unique(self) -> Self:
        seen: set[str] = set()
        for rule in self.rules:
            if rule.name in seen:
                msg = f"rule name {rule.name!r} is given twice"
                raise ValueError(msg)
            seen.add(rule.name)
        return self


def specification(rule: Rule) -> dict[str, Any]:
    """Return the rule as plain data without defaults: what goes on topics and into the generation hash."""
    plain: dict[str, Any] = rule.model_dump(mode="json", exclude_defaults=True)
    return plain

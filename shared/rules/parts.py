"""What the rules of every kind are made of: durations, fields, selectors, severities. Validated by pydantic at the edge."""

import re
from collections.abc import Iterable
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

from shared.contracts.discrepancy import Severity
from shared.money import is_currency, parse_amount
from shared.rules.calendar import WEEKENDS, Calendar, find_calendar
from shared.rules.duration import parse_duration

KEY_FIELDS_MAX = 8
"""Fields of a match key."""

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
KeyFields = Annotated[list[FieldPath], BeforeValidator(_as_list), Field(min_length=1, max_length=KEY_FIELDS_MAX)]
Sign = Literal[1, -1]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SignBy(Strict):
    """A sign read from a field: `{by: attrs.direction, credit: 1, debit: -1}`."""

    by: FieldPath
    values: dict[str, Sign] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, dict) and "values" not in value:
            return {"by": value.get("by"), "values": {k: v for k, v in value.items() if k != "by"}}
        return value


class Selector(Strict):
    """Which events stand on a side."""

    source: StrictStr
    type: Annotated[list[TypePattern], BeforeValidator(_as_list), Field(min_length=1)]
    live: list[StrictStr] | None = None
    """Statuses that count; without it the default of section 3, point 3."""
    sign: Sign | SignBy = 1


class SeverityAbove(Strict):
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
    types: dict[StrictStr, Severity | SeverityAbove] = {}

    @model_validator(mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, dict) and "types" not in value:
            types = {k: v for k, v in value.items() if k != "default"}
            return {"default": value.get("default", "medium"), "types": types}
        return value


class CalendarOf(Strict):
    """A country's calendar, or one of its subdivisions': `{country: DE, subdivision: BY}`."""

    country: StrictStr
    subdivision: StrictStr | None = None


def _as_calendar(value: Any) -> Any:
    """Take `DE`, `XNYS` and `TARGET` for `{country: DE}`: one name space."""
    return {"country": value} if isinstance(value, str) else value


def _calendar(given: CalendarOf) -> CalendarOf:
    find_calendar(given.country, given.subdivision)
    return given


CalendarChoice = Annotated[CalendarOf, BeforeValidator(_as_calendar), AfterValidator(_calendar)]


def calendar_of(given: CalendarOf | None) -> Calendar:
    """Return the calendar that a rule names; without one only weekends are no business days."""
    return WEEKENDS if given is None else find_calendar(given.country, given.subdivision)


def check_calendar(calendar: CalendarOf | None, deadlines: Iterable[str]) -> None:
    """Refuse a calendar that no deadline looks at."""
    if calendar is not None and not any(parse_duration(one).business_days for one in deadlines):
        msg = "calendar: no deadline is in business days; write for example `deadline: 2bd`, or leave the calendar out"
        raise ValueError(msg)


class RuleModel(Strict):
    """What every rule says, whatever its kind. Each kind adds a literal `kind` and its own fields."""

    name: RuleName
    kind: str
    severity: SeverityMap = SeverityMap()
    shadow: bool = False
    """Runs on live traffic and publishes with `shadow: true`; nobody is alerted and no report counts it."""

    @property
    def discrepancy_types(self) -> tuple[str, ...]:
        """Types of discrepancy that the rule can raise: what `severity` may name."""
        raise NotImplementedError

    @property
    def selectors(self) -> dict[str, Selector]:
        """Which events the rule takes, by the name of their side; a leg's `side` is the place in here."""
        raise NotImplementedError

    @property
    def grouped_by(self) -> list[str]:
        """Fields whose values decide which cell, and which partition, an event goes to."""
        raise NotImplementedError

    @property
    def shape(self) -> list[Any]:
        """What gives its legs and cells their meaning: in another shape old cells close and are forgotten."""
        return [list(self.selectors), self.grouped_by]

    @property
    def times(self) -> dict[str, str]:
        """Its times as written, by name, for people."""
        found: dict[str, str] = {}
        for name in ("deadline", "decide_after", "settle"):
            value = getattr(self, name, None)
            if isinstance(value, dict):
                value = ", ".join(f"{side} {time}" for side, time in value.items())
            if value is not None:
                found[name] = value
        return found

    @property
    def fixed(self) -> dict[str, Any]:
        """What may not change under one name, for open cells were made by it: only `--rederive` changes it."""
        sides = [(name, side.source, side.type, side.sign) for name, side in self.selectors.items()]
        return {"kind": self.kind, "sides": sides, "key": self.grouped_by}

    @model_validator(mode="after")
    def _severity_names_types(self) -> Self:
        known = self.discrepancy_types
        for named in self.severity.types:
            if named not in known:
                msg = f"severity: {named!r} is nothing this rule can raise; it raises {', '.join(known)}"
                raise ValueError(msg)
        return self


def check_durations(rule: BaseModel, *names: str) -> None:
    """Refuse business days where only hours and days make sense."""
    for name in names:
        if parse_duration(getattr(rule, name)).business_days:
            msg = f"{name}: business days are for deadlines only; write hours or days"
            raise ValueError(msg)

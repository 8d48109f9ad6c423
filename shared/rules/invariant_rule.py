"""Kind `invariant`: what must hold of every snapshot of an account, and of its counters from one to the next."""

import re
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    StringConstraints,
    model_validator,
)

from shared.money import parse_amount
from shared.rules.duration import parse_duration
from shared.rules.generation import generation_of
from shared.rules.parts import DecimalText, DurationText, KeyFields, RuleModel, Selector, Strict, check_durations
from shared.rules.severity import SeverityOf, severity_of

SNAPSHOTS = "snapshots"
AMOUNT = "amount"
CHECKS_MAX = 50
"""Checks of one rule: every one of them looks at every snapshot."""
PARTS_JOINED_BY = "/"
"""Between the parts of an account with several key fields, where `overrides` name it."""
RESERVED = frozenset({"enabled", "checks"})
"""Words of an override that no code may be."""

Reset = Literal["never", "daily", "monthly"]

_NUMBER_FIELD = re.compile(r"amount|attrs\.[^.\s][^\s]{0,63}")


def _number_field(text: str) -> str:
    if not _NUMBER_FIELD.fullmatch(text):
        msg = f"{text!r} is no field that holds a number: use amount or attrs.<name>"
        raise ValueError(msg)
    return text


def _signed_decimal(text: Any) -> Any:
    if not isinstance(text, str):
        msg = f'write it as a string, e.g. "0.05", so that it stays exact (got {text!r})'
        raise ValueError(msg)  # noqa: TRY004 - pydantic turns only ValueError into a report
    parse_amount(text)
    return text


def _threshold(text: str) -> str:
    if not parse_amount(text):
        msg = "is reached at its own value, so 0 would be reached by everything; write a greater one or leave it out"
        raise ValueError(msg)
    return text


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        msg = f"{name!r} is no time zone; use a name of the IANA database, e.g. Europe/Berlin or UTC"
        raise ValueError(msg) from None
    return name


NumberField = Annotated[StrictStr, AfterValidator(_number_field)]
SignedText = Annotated[str, BeforeValidator(_signed_decimal)]
Threshold = Annotated[DecimalText, AfterValidator(_threshold)]
ZoneName = Annotated[StrictStr, AfterValidator(_zone)]
Code = Annotated[StrictStr, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=64)]


class Check(Strict):
    """One thing that must hold. It is of one of four kinds: bounds, a difference, a counter, or growth of two counters."""

    code: Code
    """Type of the discrepancy that it raises."""
    field: NumberField
    minus: NumberField | None = None
    """What `field` is compared with; beside bounds, what is subtracted before they are."""
    min: SignedText | None = None
    max: SignedText | None = None
    above: SignedText | None = None
    """A lower bound that is itself not allowed."""
    never_decreases: StrictBool = False
    grows_without: NumberField | None = None
    """A field that must grow when `field` does."""
    reset: Reset = "never"
    warn: Threshold | None = None
    critical: Threshold | None = None

    @property
    def has_bounds(self) -> bool:
        """Tell whether it has a lower or an upper one."""
        return any(bound is not None for bound in (self.min, self.max, self.above))

    @property
    def has_thresholds(self) -> bool:
        """Tell whether sizes decide the severity."""
        return self.warn is not None or self.critical is not None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        for told in (*self._contradictions(), *self._bounds(), *_thresholds(self.warn, self.critical)):
            msg = f"check {self.code}: {told}"
            raise ValueError(msg)
        return self

    def _contradictions(self) -> list[str]:
        is_counter, is_growth = self.never_decreases, self.grows_without is not None
        told = []
        if self.code in RESERVED:
            told.append(f"{self.code!r} is a word of `overrides`; give it another code")
        if is_counter and (is_growth or self.minus is not None or self.has_bounds):
            told.append(
                "never_decreases looks at one field over time; make minus, bounds and grows_without checks of their own"
            )
        if is_growth and (self.minus is not None or self.has_bounds):
            told.append("grows_without looks at two fields over time; make minus and bounds checks of their own")
        if self.reset != "never" and not (is_counter or is_growth):
            told.append("reset is for counters; it needs never_decreases or grows_without")
        if self.field in (self.minus, self.grows_without):
            told.append(f"{self.field} is held against itself, so it can never fail")
        if not (is_counter or is_growth or self.has_bounds or self.minus is not None or self.has_thresholds):
            told.append(
                "checks nothing; give it min, max, above, minus, never_decreases, grows_without, warn or critical"
            )
        return told

    def _bounds(self) -> list[str]:
        lower = self.min if self.min is not None else self.above
        if self.min is not None and self.above is not None:
            return ["min and above are both lower bounds; give one of them"]
        if lower is None or self.max is None:
            return []
        if parse_amount(lower) > parse_amount(self.max):
            return [
                f"{'min' if self.min is not None else 'above'} {lower} is greater than max {self.max}: nothing can pass"
            ]
        if self.above is not None and parse_amount(self.above) == parse_amount(self.max):
            return [f"above {self.above} and max {self.max} leave no allowed value"]
        return []


def _thresholds(warn: str | None, critical: str | None) -> list[str]:
    if warn is None or critical is None or parse_amount(warn) <= parse_amount(critical):
        return []
    return [f"warn {warn} is greater than critical {critical}, so it would never be reached first"]


class CheckOverride(Strict):
    """What is different in one check for one account; what is left out is as the rule says."""

    enabled: StrictBool = True
    warn: Threshold | None = None
    critical: Threshold | None = None


class AccountOverride(BaseModel):
    """What is different for one account: `{enabled: false}`, or checks by their code."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: StrictBool = True
    checks: dict[StrictStr, CheckOverride] = {}

    @model_validator(mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, dict) and "checks" not in value:
            return {
                "enabled": value.get("enabled", True),
                "checks": {code: own for code, own in value.items() if code != "enabled"},
            }
        return value


class InvariantRuleModel(RuleModel):
    """A rule of kind `invariant`: one cell is one account."""

    kind: Literal["invariant"]
    snapshots: Selector
    key: KeyFields
    checks: list[Check] = Field(min_length=1, max_length=CHECKS_MAX)
    overrides: dict[StrictStr, AccountOverride] = Field(default={})
    zone: ZoneName = "UTC"
    """Whose midnights end the days and months of counters that reset."""
    keep: DurationText = "400d"
    """How long an account without snapshots is remembered: longer than a year, for its counters and periods."""
    expire: DurationText = "90d"

    @property
    def discrepancy_types(self) -> tuple[str, ...]:
        """The codes of its checks."""
        return tuple(check.code for check in self.checks)

    @property
    def selectors(self) -> dict[str, Selector]:
        """Its snapshots."""
        return {SNAPSHOTS: self.snapshots}

    @property
    def grouped_by(self) -> list[str]:
        """What names an account."""
        return self.key

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        check_durations(self, "keep", "expire")
        for told in (*self._codes(), *self._selector(), *self._override_problems()):
            raise ValueError(told)
        return self

    def _codes(self) -> list[str]:
        codes = [check.code for check in self.checks]
        twice = sorted({code for code in codes if codes.count(code) > 1})
        moot = [check.code for check in self.checks if check.has_thresholds and check.code in self.severity.types]
        return [f"checks: code {code!r} is given twice" for code in twice] + [
            f"severity: {code!r} has warn or critical, which decide its severity; remove one of them" for code in moot
        ]

    def _selector(self) -> list[str]:
        if self.snapshots.live is not None or self.snapshots.sign != 1:
            return ["snapshots: live and sign are for movements and entries; a snapshot has neither"]
        return []

    def _override_problems(self) -> list[str]:
        known = {check.code: check for check in self.checks}
        told = []
        for account, override in self.overrides.items():
            for code, own in override.checks.items():
                if code not in known:
                    told.append(f"overrides.{account}: {code!r} is no check of this rule (checks: {', '.join(known)})")
                    continue
                warn, critical = own.warn or known[code].warn, own.critical or known[code].critical
                told += [f"overrides.{account}.{code}: {words}" for words in _thresholds(warn, critical)]
        return told


@dataclass(frozen=True, slots=True)
class CheckRule:
    """A compiled check, as it is for one account."""

    code: str
    field: str
    minus: str | None
    min: Decimal | None
    max: Decimal | None
    above: Decimal | None
    never_decreases: bool
    grows_without: str | None
    reset: Reset
    warn: Decimal | None
    critical: Decimal | None

    @property
    def fields(self) -> tuple[str, ...]:
        """What it reads of a snapshot."""
        return tuple(field for field in (self.field, self.minus, self.grows_without) if field is not None)

    @property
    def has_usage(self) -> bool:
        """Tell whether its readings are usage of periods."""
        return self.never_decreases and self.reset != "never"


@dataclass(frozen=True, slots=True)
class InvariantRule:
    """A compiled `invariant` rule of one org."""

    org: str
    pack: str
    name: str
    generation: str
    source: str
    checks: tuple[CheckRule, ...]
    overrides: dict[str, tuple[CheckRule, ...] | None]
    """The checks of accounts that have their own; None: the account is not looked at."""
    account_at: int | None
    """Place of the field `account` in the key."""
    zone: ZoneInfo
    keep_ms: int
    expire_ms: int
    severity_of: SeverityOf
    shadow: bool = False
    kind: ClassVar[str] = "invariant"

    def checks_of(self, key: tuple[str, ...]) -> tuple[CheckRule, ...] | None:
        """Return what is checked of an account; None: it is not looked at."""
        return self.overrides.get(PARTS_JOINED_BY.join(key), self.checks)


def compile_invariant(org: str, pack: str, model: InvariantRuleModel) -> InvariantRule:
    """Compile a validated rule."""
    checks = tuple(_compile_check(check) for check in model.checks)
    return InvariantRule(
        org=org,
        pack=pack,
        name=model.name,
        generation=generation_of(org, pack, model),
        source=model.snapshots.source,
        checks=checks,
        overrides={account: _overridden(checks, own) for account, own in model.overrides.items()},
        account_at=model.key.index("account") if "account" in model.key else None,
        zone=ZoneInfo(model.zone),
        keep_ms=parse_duration(model.keep).milliseconds,
        expire_ms=parse_duration(model.expire).milliseconds,
        severity_of=severity_of(model.severity),
        shadow=model.shadow,
    )


def _compile_check(check: Check) -> CheckRule:
    return CheckRule(
        code=check.code,
        field=check.field,
        minus=check.minus,
        min=_decimal(check.min),
        max=_decimal(check.max),
        above=_decimal(check.above),
        never_decreases=check.never_decreases,
        grows_without=check.grows_without,
        reset=check.reset,
        warn=_decimal(check.warn),
        critical=_decimal(check.critical),
    )


def _overridden(checks: tuple[CheckRule, ...], override: AccountOverride) -> tuple[CheckRule, ...] | None:
    if not override.enabled:
        return None
    own = {code: one for code, one in override.checks.items() if one.enabled}
    left_out = set(override.checks) - set(own)
    return tuple(
        replace(
            check,
            warn=_decimal(own[check.code].warn) or check.warn,
            critical=_decimal(own[check.code].critical) or check.critical,
        )
        if check.code in own
        else check
        for check in checks
        if check.code not in left_out
    )


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else parse_amount(text)

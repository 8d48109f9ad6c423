"""A compiled `match` rule: what the matcher judges by. Built from the specification that travels in the log."""

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256

import msgspec

from shared.contracts.discrepancy import Severity
from shared.contracts.leg import RuleRecord
from shared.money import EXACT, parse_amount
from shared.rules.duration import Duration, parse_duration
from shared.rules.model import MatchRuleModel, SeverityAbove, SeverityMap, specification

NOT_LIVE = frozenset({"created", "pending", "authorized", "processing", "failed", "canceled", "voided", "expired"})
NOT_LIVE_PREFIX = "requires_"
STATUSES_KNOWN_MAX = 1000
"""Statuses remembered per side: producers choose them, so there is a bound."""

_encode = msgspec.json.Encoder().encode  # keeps the order of sides: the first one is what is expected


def generation_of(org: str, pack: str, rule: MatchRuleModel) -> str:
    """Return the generation: a short hash of org, pack and everything the rule says."""
    return sha256(_encode([org, pack, specification(rule)])).hexdigest()[:16]


def rule_record(org: str, pack: str, rule: MatchRuleModel, version: int) -> RuleRecord:
    """Return the control record that puts `rule` in force; `version` is the offset of its rule set in topic `rules`."""
    text = _encode({"pack": pack, "rule": specification(rule)}).decode()
    return RuleRecord(org, rule.name, generation_of(org, pack, rule), version, text)


def compile_record(record: RuleRecord) -> "MatchRule":
    """Compile the rule of a control record that does not withdraw it."""
    given = msgspec.json.decode(record.specification)
    return compile_match(record.org, given["pack"], MatchRuleModel.model_validate(given["rule"]))


def shape_of(record: RuleRecord) -> str:
    """Return what gives the sides and groups of a rule's legs their meaning: its sides in order, and its key."""
    rule = msgspec.json.decode(record.specification)["rule"]
    return _encode([list(rule["sides"]), rule["key"]]).decode()


@dataclass(frozen=True, slots=True)
class SideRule:
    """One side of a rule."""

    name: str
    live: frozenset[str] | None
    """Statuses that count; None: the default."""
    deadline: Duration
    raises_duplicates: bool
    status_map: dict[str, str]
    _known: dict[str | None, bool] = field(default_factory=dict, compare=False, repr=False)
    """Statuses already looked at: asked for every record."""

    def is_live(self, status: str | None) -> bool:
        """Tell whether a record of this status counts: unknown and absent statuses do, unless the rule lists them."""
        known = self._known.get(status)
        return known if known is not None else self._look_at(status)

    def _look_at(self, status: str | None) -> bool:
        if self.live is not None:
            is_live = status in self.live
        else:
            is_live = status is None or not (status in NOT_LIVE or status.startswith(NOT_LIVE_PREFIX))
        if len(self._known) < STATUSES_KNOWN_MAX:
            self._known[status] = is_live
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
    severity_of: Callable[[str, Decimal | None, str | None], Severity]
    """Severity of (type, difference, currency)."""

    @property
    def pairs(self) -> bool:
        """Two sides with one record each: the common kind, which the matcher settles without a verdict."""
        return len(self.sides) == 2 and not self.sums

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
    duplicates = tuple(model.sides) if model.duplicates is None else model.duplicates
    deadlines = model.deadline if isinstance(model.deadline, dict) else dict.fromkeys(model.sides, model.deadline)
    sides = tuple(
        SideRule(
            name=name,
            live=None if selector.live is None else frozenset(selector.live),
            deadline=parse_duration(deadlines[name]),
            raises_duplicates=one_to_one and name in duplicates,
            status_map=status.map.get(name, {}) if status else {},
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
        severity_of=_severity(model.severity),
    )


def _severity(model: SeverityMap) -> Callable[[str, Decimal | None, str | None], Severity]:
    fixed: dict[str, Severity] = {}
    steps: dict[str, dict[str, list[tuple[Decimal, Severity]]]] = {}
    for kind, value in model.types.items():
        if isinstance(value, SeverityAbove):
            steps[kind] = {
                currency: sorted(
                    ((parse_amount(t), s) for t, s in table.items()), key=lambda step: step[0], reverse=True
                )
                for currency, table in value.above.items()
            }
        else:
            fixed[kind] = value
    default = model.default

    def severity_of(kind: str, difference: Decimal | None, currency: str | None) -> Severity:
        if kind in fixed:
            return fixed[kind]
        by_currency = steps.get(kind)
        if by_currency is None or difference is None:
            return default
        for threshold, severity in by_currency.get(currency or "default", by_currency.get("default", [])):
            if abs(difference) > threshold:
                return severity
        return default

    return severity_of

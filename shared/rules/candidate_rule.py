"""Kind `match` without a shared key: `partition_by` and `score` instead of `key`. Records find each other by likeness."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from shared.money import parse_amount
from shared.rules.duration import parse_duration
from shared.rules.generation import generation_of
from shared.rules.match_rule import CompareAmount, MatchRule, SideRule
from shared.rules.parts import (
    CalendarChoice,
    DecimalText,
    DurationText,
    FieldPath,
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

TAG = "match_without_key"
"""How the model is told from keyed `match` in the rules format; both are written `kind: match`."""
AMBIGUOUS = "AmbiguousMatch"
WHOLE = 1000
"""Scores are whole thousandths, so that every machine computes the same."""
TYPES = (
    "MissingInternalRecord",
    "MissingProviderRecord",
    "MissingRecord",
    "AmountMismatch",
    AMBIGUOUS,
    "RecordMoved",
)
REFERENCE_FIELDS_MAX = 8
FEES_PERCENT = "2"
"""Default of how much may be kept back of a payment that names what it pays."""


def _share(value: Any) -> Any:
    """Take `0.9` and `"0.9"` alike: a share is no amount, and is kept as whole thousandths."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Share = Annotated[DecimalText, BeforeValidator(_share)]
Weight = Annotated[int, Field(ge=1, le=1000)]
Fields = Annotated[list[FieldPath], BeforeValidator(_as_list), Field(min_length=1, max_length=REFERENCE_FIELDS_MAX)]


class ScoreAmount(Strict):
    """How far two amounts may be apart and still be a candidate pair: the larger of `tolerance` and `percent`.

    Amounts that differ need a reference that tells the pair, where the rule scores references.
    """

    tolerance: DecimalText = "0"
    percent: DecimalText | None = None
    """Left out: 2 where the rule scores references (fees are kept back of payments), else 0."""
    weight: Weight = 40


class ScoreDate(Strict):
    """How far two dates (`occurred_at` of a record's earliest event) may be apart."""

    within: DurationText = "60d"
    weight: Weight = 15


class ScoreReference(Strict):
    """Where references and names stand: for every side the same fields, or fields per side. Absent ones are skipped."""

    fields: Fields | dict[SideName, Fields]
    weight: Weight = 45


class Score(Strict):
    """What makes two records alike. Without `reference` amount and date decide alone."""

    amount: ScoreAmount = ScoreAmount()
    date: ScoreDate = ScoreDate()
    reference: ScoreReference | None = None


class ComparePaired(Strict):
    """What is compared once records were matched."""

    amount: CompareAmount = CompareAmount()


class Limits(Strict):
    """Bounds on the work of one decision: a crowded partition ends in an outcome, never in a stall."""

    candidates_max: int = Field(default=24, ge=2, le=200)
    """Candidates that are scored for one record, those nearest in amount and date first."""
    bundle_records_max: int = Field(default=12, ge=2, le=50)
    """Records on the many side of a bundle that no list of references names."""
    bundle_steps_max: int = Field(default=5_000, ge=10, le=1_000_000)
    """Combinations tried for one bundle; more end as unmatched, with the reason."""


class CandidateRuleModel(RuleModel):
    """A rule of kind `match` without a shared key."""

    kind: Literal["match"]
    sides: dict[SideName, Selector] = Field(min_length=2, max_length=2)
    partition_by: KeyFields
    score: Score = Score()
    compare: ComparePaired = ComparePaired()
    decide_after: DurationText = "10m"
    accept: Share = "0.9"
    margin: Share = "0.05"
    """Two candidates that score less than this apart are ambiguous: nobody guesses."""
    deadline: DurationText | dict[SideName, DurationText] = "10d"
    calendar: CalendarChoice | None = None
    """What business days of `deadline` are; else Monday to Friday."""
    keep: DurationText = "7d"
    expire: DurationText = "90d"
    limits: Limits = Limits()

    @property
    def discrepancy_types(self) -> tuple[str, ...]:
        """Types of discrepancy that the rule can raise."""
        return TYPES

    @property
    def selectors(self) -> dict[str, Selector]:
        """Its two sides, in their order."""
        return self.sides

    @property
    def grouped_by(self) -> list[str]:
        """What has to be equal for two records to meet at all."""
        return self.partition_by

    @property
    def fixed(self) -> dict[str, Any]:
        """What may not change under one name: records that are held carry the text of these fields."""
        return {**super().fixed, "without key": True, "reference": self.reference_fields}

    @property
    def reference_fields(self) -> dict[str, list[str]]:
        """Per side, where its references stand."""
        if self.score.reference is None:
            return {side: [] for side in self.sides}
        fields = self.score.reference.fields
        return dict(fields) if isinstance(fields, dict) else {side: list(fields) for side in self.sides}

    @model_validator(mode="after")
    def _sides_exist(self) -> Self:
        known = ", ".join(self.sides)
        named = {"deadline": list(self.deadline) if isinstance(self.deadline, dict) else None}
        if self.score.reference is not None and isinstance(self.score.reference.fields, dict):
            named["score.reference.fields"] = list(self.score.reference.fields)
        for where, sides in named.items():
            if sides is None:
                continue
            for side in sides:
                if side not in self.sides:
                    msg = f"{where}: {side!r} is no side of this rule (sides: {known})"
                    raise ValueError(msg)
            missing = [side for side in self.sides if side not in sides]
            if missing:
                msg = f"{where}: names nothing for {', '.join(missing)}; give one per side or a single one"
                raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _can_match(self) -> Self:
        check_durations(self, "decide_after", "keep", "expire")
        check_calendar(self.calendar, self.deadline.values() if isinstance(self.deadline, dict) else [self.deadline])
        if parse_duration(self.score.date.within).business_days:
            msg = "score.date.within: business days are for deadlines only; write hours or days"
            raise ValueError(msg)
        for field in ("record", "id"):
            if field in self.partition_by:
                msg = f"partition_by: {field!r} differs on every record, so no two would ever meet"
                raise ValueError(msg)
        accept, margin = thousandths(self.accept), thousandths(self.margin)
        if not WHOLE // 2 <= accept <= WHOLE:
            msg = f"accept: {self.accept} is no share from 0.5 (a guess) to 1 (everything agrees)"
            raise ValueError(msg)
        if margin >= accept:
            msg = f"margin: {self.margin} is not less than accept ({self.accept}), so every pair would be ambiguous"
            raise ValueError(msg)
        selectors = [(s.source, tuple(s.type)) for s in self.sides.values()]
        if len(set(selectors)) < len(selectors):
            msg = "sides: two sides select the same source and types, so every record would stand on both"
            raise ValueError(msg)
        decide_ms = parse_duration(self.decide_after).milliseconds
        deadlines = self.deadline.values() if isinstance(self.deadline, dict) else [self.deadline]
        for text in deadlines:
            given = parse_duration(text)
            if not given.business_days and given.milliseconds < decide_ms:
                msg = f"deadline: {text} is over before decide_after ({self.decide_after}): nothing could be matched in time"
                raise ValueError(msg)
        return self


def thousandths(share: str) -> int:
    """Return a share as whole thousandths, cut off."""
    return int(parse_amount(share) * WHOLE)


@dataclass(frozen=True, slots=True)
class CandidateRule:
    """A compiled `match` rule without a shared key."""

    pair: MatchRule
    """How one record against one is compared, shown and dated."""
    bundle: MatchRule
    """The same for several records against one: sums are compared."""
    partition_fields: int
    tolerance: Decimal
    percent: Decimal
    within_us: int
    weight_amount: int
    weight_date: int
    weight_reference: int
    """0: the rule scores no references."""
    decide_after_ms: int
    accept: int
    margin: int
    limits: Limits
    kind: ClassVar[str] = TAG

    @property
    def org(self) -> str:
        """Whose rule it is."""
        return self.pair.org

    @property
    def pack(self) -> str:
        """The pack it stands in."""
        return self.pair.pack

    @property
    def name(self) -> str:
        """Its name."""
        return self.pair.name

    @property
    def generation(self) -> str:
        """Hash of what it says."""
        return self.pair.generation

    @property
    def severity_of(self) -> SeverityOf:
        """Severity of a discrepancy."""
        return self.pair.severity_of

    @property
    def shadow(self) -> bool:
        """Only watches."""
        return self.pair.shadow

    @property
    def sides(self) -> tuple[SideRule, ...]:
        """Its two sides."""
        return self.pair.sides


def compile_candidates(org: str, pack: str, model: CandidateRuleModel) -> CandidateRule:
    """Compile a validated rule."""
    deadlines = model.deadline if isinstance(model.deadline, dict) else dict.fromkeys(model.sides, model.deadline)
    sides = tuple(
        SideRule(
            name=name,
            live=None if selector.live is None else frozenset(selector.live),
            deadline=parse_duration(deadlines[name], calendar_of(model.calendar)),
            raises_duplicates=False,
            status_map={},
            source=selector.source,
        )
        for name, selector in model.sides.items()
    )
    amount, score = model.compare.amount, model.score

    def compared(*, sums: bool) -> MatchRule:
        return MatchRule(
            org=org,
            pack=pack,
            name=model.name,
            generation=generation_of(org, pack, model),
            sides=sides,
            key_fields=len(model.partition_by) + 1,
            compares_amount=True,
            tolerance=parse_amount(amount.tolerance),
            percent=parse_amount(amount.percent),
            compares_currency=True,
            compares_status=False,
            sums=sums,
            settle_ms=0,
            keep_ms=parse_duration(model.keep).milliseconds,
            expire_ms=parse_duration(model.expire).milliseconds,
            severity_of=severity_of(model.severity),
            shadow=model.shadow,
        )

    return CandidateRule(
        pair=compared(sums=False),
        bundle=compared(sums=True),
        partition_fields=len(model.partition_by),
        tolerance=parse_amount(score.amount.tolerance),
        percent=parse_amount(score.amount.percent or (FEES_PERCENT if score.reference else "0")),
        within_us=parse_duration(score.date.within).milliseconds * 1000,
        weight_amount=score.amount.weight,
        weight_date=score.date.weight,
        weight_reference=score.reference.weight if score.reference else 0,
        decide_after_ms=parse_duration(model.decide_after).milliseconds,
        accept=thousandths(model.accept),
        margin=thousandths(model.margin),
        limits=model.limits,
    )

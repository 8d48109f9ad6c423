"""Kind `feed`: how long a source may be silent, as written, and compiled to what the matcher judges by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal
from zoneinfo import ZoneInfo

import msgspec
from pydantic import BeforeValidator, Field, StrictStr, field_validator, model_validator

from shared.contracts.event import Name
from shared.rules.duration import parse_duration
from shared.rules.generation import generation_of
from shared.rules.invariant_rule import ZoneName
from shared.rules.parts import DurationText, RuleModel, Selector, SeverityMap, Strict
from shared.rules.severity import SeverityOf, severity_of

SILENT = "FeedSilent"
SOURCES_MAX = 50
"""Sources of one rule."""
FACTOR_MAX = 100
FACTOR = 3
"""Silent after three times what is usual, where a rule does not say otherwise."""
AT_LEAST = "10m"
"""And never after less: a pause of seconds on a busy feed is nothing to wake anybody for."""


class Learning(Strict):
    """A multiple of the longest silence that is usual at the hour of the week, but not less than `at_least`."""

    factor: Annotated[int, Field(ge=1, le=FACTOR_MAX)] = FACTOR
    at_least: DurationText = AT_LEAST


class Learned(Strict):
    """`{learned: {factor: 3, at_least: 10m}}`."""

    learned: Learning = Learning()


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class FeedRuleModel(RuleModel):
    """A rule of kind `feed`: when a source is silent. What it lacks then is not called missing."""

    kind: Literal["feed"]
    source: Annotated[list[StrictStr], BeforeValidator(_as_list), Field(min_length=1, max_length=SOURCES_MAX)]
    silent_after: DurationText | Learned = Learned()
    zone: ZoneName = "UTC"
    """Whose hours of the week are learned."""
    severity: SeverityMap = SeverityMap(default="high")

    @property
    def discrepancy_types(self) -> tuple[str, ...]:
        """What it can raise."""
        return (SILENT,)

    @property
    def selectors(self) -> dict[str, Selector]:
        """It takes no events: the normaliser's counts travel in its ticks."""
        return {}

    @property
    def grouped_by(self) -> list[str]:
        """Nothing: every partition sees every feed."""
        return []

    @property
    def times(self) -> dict[str, str]:
        """What it says, for people."""
        given, sources = self.silent_after, " or ".join(self.source)
        if isinstance(given, str):
            return {f"{sources} silent after": given}
        learning = given.learned
        return {f"{sources} silent after": f"{learning.factor} times what is usual (at least {learning.at_least})"}

    @field_validator("severity", mode="before")
    @classmethod
    def _high(cls, value: Any) -> Any:
        """Without a default of its own a silent feed is `high`."""
        return {"default": "high", **value} if isinstance(value, dict) else value

    @field_validator("source")
    @classmethod
    def _sources(cls, sources: list[str]) -> list[str]:
        for source in sources:
            try:
                msgspec.convert(source, Name)
            except msgspec.ValidationError:
                msg = f"{source!r} is no name of a source; use letters, digits, . _ -, at most 64"
                raise ValueError(msg) from None
        if len(set(sources)) < len(sources):
            msg = "names a source twice"
            raise ValueError(msg)
        return sources

    @model_validator(mode="after")
    def _times(self) -> "FeedRuleModel":
        text = self.silent_after if isinstance(self.silent_after, str) else self.silent_after.learned.at_least
        duration = parse_duration(text)
        if duration.business_days or not duration.milliseconds:
            msg = f"silent_after: write a time greater than 0 in hours, minutes or seconds (got {text!r})"
            raise ValueError(msg)
        return self


@dataclass(frozen=True, slots=True)
class FeedRule:
    """A compiled `feed` rule of one org."""

    org: str
    pack: str
    name: str
    generation: str
    sources: tuple[str, ...]
    given_ms: int | None
    """Silence after which the feed is silent; None: it is learned."""
    factor: int
    at_least_ms: int
    zone: ZoneInfo
    severity_of: SeverityOf
    shadow: bool = False
    kind: ClassVar[str] = "feed"


def compile_feed(org: str, pack: str, model: FeedRuleModel) -> FeedRule:
    """Compile a validated rule."""
    given, learning = model.silent_after, Learning()
    given_ms = None
    if isinstance(given, str):
        given_ms = parse_duration(given).milliseconds
    else:
        learning = given.learned
    return FeedRule(
        org=org,
        pack=pack,
        name=model.name,
        generation=generation_of(org, pack, model),
        sources=tuple(model.source),
        given_ms=given_ms,
        factor=learning.factor,
        at_least_ms=parse_duration(learning.at_least).milliseconds,
        zone=ZoneInfo(model.zone),
        severity_of=severity_of(model.severity),
        shadow=model.shadow,
    )


def sources_watched(models: Mapping[str, Sequence[RuleModel]]) -> frozenset[str]:
    """Return the sources whose events are counted: what any rule of an org selects, or names as a feed."""
    found: set[str] = set()
    for rules in models.values():
        for rule in rules:
            found |= sources_of(rule)
    return frozenset(found)


def sources_of(rule: RuleModel) -> frozenset[str]:
    """Return the sources that a rule selects, or names as feeds."""
    if isinstance(rule, FeedRuleModel):
        return frozenset(rule.source)
    return frozenset(selector.source for selector in rule.selectors.values())

"""The executable cases of `tests/cases/*.yaml`, read once and laid over their defaults.

The header comments of the files are the contract; this module is their only reader, so the models and the product
are judged on the same events. `match` says what is expected as a list of discrepancies (`load_match_cases`), the
other kinds as a mapping (`load_kind_cases`).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import yaml

MATCH_CASES = Path(__file__).parent.parent / "cases" / "match.yaml"
EXTRA_MATCH_CASES = MATCH_CASES.with_name("extra_match.yaml")
"""Cases of what the first file leaves open; docs/rules.md gives the readings in words."""

Kind = Literal["balance", "zero_sum", "invariant"]
KINDS: tuple[Kind, ...] = ("balance", "zero_sum", "invariant")

_PLACEHOLDER = re.compile(r"<id of (\w+)>")


@dataclass(frozen=True)
class Case:
    """One case: what comes in, and what must be known when log time has reached `until`."""

    name: str
    rules: list[dict[str, Any]]
    """Whole rules, in the words of a rules file."""
    events: list[dict[str, Any]]
    """In arrival order, fields of the public contract plus `received_at`; `<id of TYPE>` still in place."""
    until: str
    expect: list[dict[str, Any]]
    """The last revision of every discrepancy ever raised; only the fields written here are compared."""
    dead_letters: list[str]
    refused: int
    matches: int | None
    """Groups that stand as matched at the end; None: not looked at."""


@dataclass(frozen=True)
class KindCase:
    """One case of `balance`, `zero_sum` or `invariant`: one rule, and what must be known at `until`."""

    name: str
    rule: dict[str, Any]
    """A whole rule, in the words of a rules file."""
    events: list[dict[str, Any]]
    """Fields of the public contract plus `received_at`, in arrival order."""
    until: str
    discrepancies: list[dict[str, Any]]
    """The last revision of every discrepancy ever raised; only the fields written here are compared."""
    checks: list[dict[str, Any]] | None
    """The last verdict of every reading; None: not looked at."""
    usage: list[dict[str, Any]] | None
    """Every period of every counter that resets; None: not looked at."""
    dead_letters: list[dict[str, str]]
    """`{id, reason}` of each."""
    refused: list[str]
    """Ids of events that the public contract does not accept."""


def kind_files(kind: Kind) -> list[Path]:
    """The cases of a kind, and those of what its first file leaves open."""
    return [MATCH_CASES.with_name(f"{kind}.yaml"), MATCH_CASES.with_name(f"extra_{kind}.yaml")]


def load_kind_cases(kind: Kind) -> list[KindCase]:
    cases = []
    for path in kind_files(kind):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        defaults = document["defaults"]
        cases += [_kind_case(raw, defaults["rule"], defaults["event"]) for raw in document["cases"]]
    return cases


def kind_complaints(
    case: KindCase,
    discrepancies: list[dict[str, Any]],
    checks: list[dict[str, Any]],
    usage: list[dict[str, Any]],
    dead_letters: list[dict[str, Any]],
) -> list[str]:
    """Where the answers of a run are not those of the case: one sentence each, none when they agree."""
    complaints = differences(case.discrepancies, discrepancies)
    if case.checks is not None:
        complaints += differences(_with_instants(case.checks), _with_instants(checks))
    if case.usage is not None:
        complaints += differences(case.usage, usage)
    return complaints + differences(list(case.dead_letters), dead_letters)


def load_match_cases(path: Path = MATCH_CASES) -> list[Case]:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    defaults = document["defaults"]
    return [_case(raw, defaults["rule"], defaults["event"]) for raw in document["cases"]]


def has_placeholder(event: dict[str, Any]) -> bool:
    """True when the event names a discrepancy that only the events before it can raise."""
    return any(_PLACEHOLDER.fullmatch(str(value)) for value in event.get("refs", {}).values())


def substitute(event: dict[str, Any], id_of: Callable[[str], str]) -> dict[str, Any]:
    """The event with each `<id of TYPE>` replaced by what `id_of(TYPE)` answers at this moment of the run."""
    if not has_placeholder(event):
        return event
    refs = {name: _resolve(value, id_of) for name, value in event["refs"].items()}
    return {**event, "refs": refs}


def differences(expected: list[dict[str, Any]], actual: list[dict[str, Any]]) -> list[str]:
    """Where the discrepancies of a run are not those of a case: one sentence each, none when they agree.

    Each expectation takes one discrepancy that has all its written fields; none may be left on either side.
    A field that the discrepancy lacks counts as null.
    """
    complaints = []
    left = list(actual)
    for wanted in expected:
        found = next((one for one in left if _has_fields(one, wanted)), None)
        if found is None:
            complaints.append(f"expected and not there: {wanted}")
        else:
            left.remove(found)
    return complaints + [f"there and not expected: {one}" for one in left]


def _has_fields(discrepancy: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(discrepancy.get(field) == value for field, value in wanted.items())


def _resolve(value: str, id_of: Callable[[str], str]) -> str:
    placeholder = _PLACEHOLDER.fullmatch(str(value))
    return id_of(placeholder[1]) if placeholder else value


def _case(raw: dict[str, Any], rule_defaults: dict[str, Any], event_defaults: dict[str, Any]) -> Case:
    overrides = raw.get("rule", {})
    overrides = overrides if isinstance(overrides, list) else [overrides]
    return Case(
        name=raw["name"],
        rules=[_without_nulls({**rule_defaults, **override}) for override in overrides],
        events=[_event(fields, place, event_defaults) for place, fields in enumerate(raw["events"], start=1)],
        until=raw["until"],
        expect=raw["expect"],
        dead_letters=raw.get("dead_letters", []),
        refused=raw.get("refused", 0),
        matches=raw.get("matches"),
    )


def _without_nulls(rule: dict[str, Any]) -> dict[str, Any]:
    """A case takes a default back by writing null."""
    return {field: value for field, value in rule.items() if value is not None}


def _event(fields: dict[str, Any], place: int, defaults: dict[str, Any]) -> dict[str, Any]:
    event = {**defaults, **fields}
    event.setdefault("id", f"e{place}")
    event.setdefault("occurred_at", event["received_at"])
    if "record" not in event:
        first_reference = next(iter((event.get("refs") or {}).values()), "")
        event["record"] = f"{event['source']}-{first_reference}"
    return {field: value for field, value in event.items() if value is not None}


def _kind_case(raw: dict[str, Any], rule_defaults: dict[str, Any], event_defaults: dict[str, Any]) -> KindCase:
    expect = raw["expect"]
    return KindCase(
        name=raw["name"],
        rule={**rule_defaults, **raw["rule"]},
        events=[_kind_event(fields, event_defaults) for fields in raw["events"]],
        until=raw["until"],
        discrepancies=expect.get("discrepancies", []),
        checks=expect.get("checks"),
        usage=expect.get("usage"),
        dead_letters=expect.get("dead_letters", []),
        refused=expect.get("refused", []),
    )


def _kind_event(fields: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    event = {**defaults, **fields}
    event.setdefault("received_at", event["occurred_at"])
    return {field: value for field, value in event.items() if value is not None}


def _with_instants(checks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same checks with `as_of` as a point in time, however it is written."""
    return [one | {"as_of": _instant(one["as_of"])} if one.get("as_of") else one for one in checks]


def _instant(time: str | datetime) -> datetime:
    return time if isinstance(time, datetime) else datetime.fromisoformat(time)

"""The executable cases of `tests/cases/match.yaml`, read once and laid over their defaults.

The header comment of that file is the contract; this module is its only reader, so the model and the product
are judged on the same events.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MATCH_CASES = Path(__file__).parent.parent / "cases" / "match.yaml"
EXTRA_MATCH_CASES = MATCH_CASES.with_name("extra_match.yaml")
"""Cases of what the first file leaves open; docs/rules.md gives the readings in words."""

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
        rules=[{**rule_defaults, **override} for override in overrides],
        events=[_event(fields, place, event_defaults) for place, fields in enumerate(raw["events"], start=1)],
        until=raw["until"],
        expect=raw["expect"],
        dead_letters=raw.get("dead_letters", []),
        refused=raw.get("refused", 0),
        matches=raw.get("matches"),
    )


def _event(fields: dict[str, Any], place: int, defaults: dict[str, Any]) -> dict[str, Any]:
    event = {**defaults, **fields}
    event.setdefault("id", f"e{place}")
    event.setdefault("occurred_at", event["received_at"])
    if "record" not in event:
        first_reference = next(iter((event.get("refs") or {}).values()), "")
        event["record"] = f"{event['source']}-{first_reference}"
    return {field: value for field, value in event.items() if value is not None}

"""Read rules files: YAML in, validated model out; errors name file, rule, field and what is allowed."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from shared.errors import UsageError
from shared.rules.model import KIND_TAGS, KINDS, RuleFile
from shared.strict_yaml import YamlInvalid, parse_yaml

SIZE_MAX_BYTES = 4_000_000
"""A rules file larger than this is not one."""


class RulesInvalid(UsageError):
    """The rules file has errors; `problems` holds one line each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


def load_rules(path: Path) -> RuleFile:
    """Read and validate one rules file.

    Raises:
        RulesInvalid: with every problem found, a line each.
    """
    try:
        if path.stat().st_size > SIZE_MAX_BYTES:
            raise RulesInvalid([f"{path}: larger than {SIZE_MAX_BYTES} bytes; is this a rules file?"])
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RulesInvalid([f"{path}: cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise RulesInvalid([f"{path}: is not UTF-8 text"]) from None
    return parse_rules(text, str(path))


def parse_rules(text: str, name: str = "rules") -> RuleFile:
    """Validate the text of a rules file; `name` is what errors call it."""
    try:
        document = parse_yaml(text, name)
    except YamlInvalid as error:
        raise RulesInvalid([str(error)]) from None
    return validate_rules(document, name)


def validate_rules(document: Any, name: str = "rules") -> RuleFile:
    """Validate rules given as plain data."""
    if not isinstance(document, dict):
        raise RulesInvalid([f"{name}: must be a mapping with version, pack and rules"])
    try:
        return RuleFile.model_validate(document)
    except ValidationError as error:
        raise RulesInvalid([_problem(name, document, detail) for detail in _told(error.errors())]) from None


def _told(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """Leave out what only says that the value is not of a field's other form (a mapping instead of a text)."""
    branches = Counter(detail["loc"][:-1] for detail in details)
    return [
        detail
        for detail in details
        if detail["type"] not in {"dict_type", "model_type"} or branches[detail["loc"][:-1]] == 1
    ]


def _problem(name: str, document: dict[str, Any], detail: ErrorDetails) -> str:
    place = list(detail["loc"])
    rule = ""
    if len(place) >= 2 and place[0] == "rules" and isinstance(place[1], int):
        rules = document.get("rules")
        given = rules[place[1]] if isinstance(rules, list) and place[1] < len(rules) else None
        rule_name = given.get("name") if isinstance(given, dict) else None
        rule = f" rule {rule_name or f'number {place[1] + 1}'}:"
        place = place[2:]
        if place and place[0] in KIND_TAGS:
            place = place[1:]
    if detail["type"] in {"union_tag_not_found", "union_tag_invalid"}:
        place.append("kind")
    field = ".".join(str(part) for part in place if not _is_branch(part))
    return f"{name}:{rule}{' ' + field + ':' if field else ''} {_words(detail)}"


def _is_branch(part: str | int) -> bool:
    """Tell pydantic's names of union branches from names in the file."""
    return isinstance(part, str) and (
        part.startswith(("literal[", "function-", "constrained-", "dict[", "list[")) or part in _MODELS
    )


_MODELS = {"SignBy", "SeverityAbove", "str"}


def _words(detail: ErrorDetails) -> str:
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] in {"union_tag_not_found", "union_tag_invalid"}:
        given = detail["input"].get("kind") if isinstance(detail["input"], dict) else detail["input"]
        return f"must be one of {', '.join(KINDS)} (got {given!r})"
    if detail["type"] == "extra_forbidden":
        return "is not a field of this format; remove it or check its spelling"
    if detail["type"] == "missing":
        return "is missing"
    if detail["type"] == "literal_error":
        return f"{message} (got {detail['input']!r})"
    return message

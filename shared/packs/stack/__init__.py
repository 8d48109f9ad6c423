"""Balance integrity across custody, broker and ledger: rules and words. The files are the pack; the code reads them."""

from functools import cache
from importlib.resources import files
from typing import Any

from shared.strict_yaml import parse_yaml

CHECK_TYPES = (
    "ledger_consistency",
    "circle_balance",
    "alpaca_balance",
    "deposits",
    "conversion_jobs",
    "withdrawals",
)
"""The six checks, as people query them (`check_type`), in the order reports show them."""


@cache
def _vocabulary() -> dict[str, Any]:
    name = "vocabulary.yaml"
    document: dict[str, Any] = parse_yaml(files(__package__).joinpath(name).read_text(encoding="utf-8"), name)
    return document


@cache
def rules_of_checks() -> dict[str, tuple[str, ...]]:
    """Return the names of the rules that make up each check, by `check_type`."""
    given: dict[str, list[str]] = _vocabulary()["check_types"]
    return {check: tuple(given[check]) for check in CHECK_TYPES}


def corrections_of_rules() -> dict[str, dict[str, Any]]:
    """Return what auto-correction may try, by rule: `refetch` (the source to ask again) and `adjust`."""
    given: dict[str, dict[str, Any]] = _vocabulary()["corrections"]
    return given


def check_type_of(rule: str) -> str | None:
    """Return the check that a rule belongs to; None: it is none of the pack's six."""
    return next((check for check, rules in rules_of_checks().items() if rule in rules), None)

"""The generation of a rule: what stamps its legs, so that the matcher knows what made them."""

from hashlib import sha256
from typing import Any

import msgspec

from shared.rules.parts import RuleModel

encode = msgspec.json.Encoder().encode
"""Keeps the order of sides: the first one is what is expected."""


def specification(rule: RuleModel) -> dict[str, Any]:
    """Return the rule as plain data without defaults: what goes on topics and into the generation hash."""
    plain: dict[str, Any] = rule.model_dump(mode="json", exclude_defaults=True)
    return plain


def generation_of(org: str, pack: str, rule: RuleModel) -> str:
    """Return the generation: a short hash of org, pack and everything the rule says."""
    return sha256(encode([org, pack, specification(rule)])).hexdigest()[:16]

"""The rules of the bots pack under given thresholds: rules.yaml with their numbers in place of its own."""

import copy
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any, Final, Literal

from shared.packs.bots.names import INPUT_RULE, PARITY_RULE, STATE_RULE
from shared.packs.bots.thresholds import BotThresholds, Thresholds
from shared.rules.load import validate_rules
from shared.rules.model import RuleFile
from shared.strict_yaml import parse_yaml

Reset = Literal["never", "daily", "monthly"]

THRESHOLDS_OF: Final[dict[str, dict[str, str]]] = {
    "inventory_drift": {"warn": "inventory_warn", "critical": "inventory_critical"},
    "exchange_drift": {"warn": "exchange_drift_warn", "critical": "exchange_drift_critical"},
    "fees_counter_decreased": {"warn": "fee_drop_warn", "critical": "fee_drop_critical"},
    "turnover_without_fee_accrual": {"warn": "turnover_fee_gap_warn"},
}
"""By code: which keys of the thresholds are its `warn` and `critical`."""
SWITCH_OF: Final[dict[str, str]] = {
    "inventory_drift": "inventory_check_enabled",
    "exchange_drift": "exchange_check_enabled",
    "fees_paid_negative": "accounting_check_enabled",
    "fees_counter_decreased": "accounting_check_enabled",
    "turnover_without_fee_accrual": "accounting_check_enabled",
    "fills_missing": "fill_parity_check_enabled",
    "events_missing": "fill_parity_check_enabled",
    "exchange_snapshot_missing": "exchange_check_enabled",
    "exchange_probe_failed": "exchange_check_enabled",
}
"""By code: which key switches it off; the others are looked at as long as the bot is."""
COUNTERS: Final = ("fees_counter_decreased", "turnover_without_fee_accrual")


def document_of(
    thresholds: Thresholds,
    bots: Iterable[str] = (),
    *,
    reset: Reset = "never",
    zone: str = "UTC",
    openings: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Return the rules as a document, as `tieout rules apply` takes it once it is written as YAML or JSON.

    Args:
        thresholds: of the file and the environment.
        bots: every bot there is: a check that is off by default has to be switched off for each.
        reset: when the counters `fees_paid` and `turnover` begin again at zero.
        zone: whose midnight that is.
        openings: `order_filled` events counted before, by bot; those that follow are added.
    """
    document = copy.deepcopy(_template())
    named = sorted({*bots, *thresholds.bots})
    rules = {rule["name"]: rule for rule in document["rules"]}
    for name in (STATE_RULE, INPUT_RULE):
        rules[name]["overrides"] = {
            bot: own for bot in named if (own := _overrides(rules[name], thresholds.of(bot), thresholds.defaults))
        }
    for check in rules[STATE_RULE]["checks"]:
        check.update(_sizes(check["code"], thresholds.defaults))
        if check["code"] in COUNTERS and reset != "never":
            check["reset"] = reset
    rules[STATE_RULE]["zone"] = zone
    parity = rules[PARITY_RULE]
    parity["overrides"] = {bot: {"enabled": False} for bot in named if not _has_parity(thresholds.of(bot))}
    if openings is not None:
        parity["opening"] = {bot: str(openings.get(bot, 0)) for bot in sorted({*named, *openings})}
    return document


def rules_of(
    thresholds: Thresholds,
    bots: Iterable[str] = (),
    *,
    reset: Reset = "never",
    zone: str = "UTC",
    openings: Mapping[str, int] | None = None,
) -> RuleFile:
    """Return the rules, validated; see `document_of`."""
    return validate_rules(document_of(thresholds, bots, reset=reset, zone=zone, openings=openings), "bots")


def is_checked(code: str, thresholds: BotThresholds) -> bool:
    """Tell whether a bot with these thresholds is held against a check."""
    if code == "exchange_snapshot_missing" and thresholds.exchange_check_enabled is None:
        return False
    switch = SWITCH_OF.get(code)
    return thresholds.enabled and (switch is None or getattr(thresholds, switch) is not False)


def sizes_of(code: str, thresholds: BotThresholds) -> tuple[Decimal | None, Decimal | None]:
    """Return the `warn` and the `critical` size of a check, where it has them."""
    keys = THRESHOLDS_OF.get(code, {})
    return tuple(getattr(thresholds, keys[name]) if name in keys else None for name in ("warn", "critical"))  # type: ignore[return-value]  # two names, two values


@cache
def _template() -> dict[str, Any]:
    name = "rules.yaml"
    document: dict[str, Any] = parse_yaml(files(__package__).joinpath(name).read_text(encoding="utf-8"), name)
    return document


def _overrides(rule: dict[str, Any], own: BotThresholds, defaults: BotThresholds) -> dict[str, Any]:
    """Return what is different for a bot."""
    if not own.enabled:
        return {"enabled": False}
    found: dict[str, Any] = {}
    for check in rule["checks"]:
        code = check["code"]
        if not is_checked(code, own):
            found[code] = {"enabled": False}
        elif (sizes := _sizes(code, own)) != _sizes(code, defaults):
            found[code] = sizes
    return found


def _sizes(code: str, thresholds: BotThresholds) -> dict[str, str]:
    return {name: format(getattr(thresholds, key), "f") for name, key in THRESHOLDS_OF.get(code, {}).items()}


def _has_parity(thresholds: BotThresholds) -> bool:
    return thresholds.enabled and thresholds.fill_parity_check_enabled

"""Rules of the pack: made of any thresholds that are accepted, and of nothing else."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.packs.bots import rules as module
from shared.packs.bots.findings import BOUNDS, check_of
from shared.packs.bots.names import CHECKS, INPUT_RULE, PARITY_RULE, STATE_RULE
from shared.packs.bots.rules import SWITCH_OF, THRESHOLDS_OF, document_of, rules_of
from shared.packs.bots.thresholds import KEYS, PAIRS, SWITCHES, Thresholds, parse_thresholds
from shared.rules.load import load_rules, validate_rules

FILE = Path(module.__file__).with_name("rules.yaml")


def test_the_packs_file_holds_and_says_the_built_in_thresholds() -> None:
    assert load_rules(FILE) == rules_of(Thresholds())


def test_every_threshold_and_switch_belongs_to_a_check() -> None:
    sizes = {key for keys in THRESHOLDS_OF.values() for key in keys.values()}
    assert sizes == set(KEYS) - set(SWITCHES)
    assert {*SWITCH_OF.values(), "enabled"} == set(SWITCHES)


def test_every_code_of_the_rules_is_in_the_vocabulary() -> None:
    codes = {code for rule in load_rules(FILE).rules for code in rule.discrepancy_types} - {"BalanceMismatch"}
    assert {check_of(code) for code in codes} == set(CHECKS) - {"fill_parity"}
    judged = {code for code in codes if check_of(code) != "input"}
    assert judged == {*THRESHOLDS_OF, *BOUNDS} - {"fill_count_mismatch"}, "each has thresholds to show"


def sizes() -> st.SearchStrategy[str]:
    return st.decimals(min_value="0.000001", max_value=1000, places=6).map(lambda size: format(size, "f"))


@st.composite
def sections(draw: st.DrawFn) -> dict[str, Any]:
    chosen = {key: draw(st.booleans()) for key in draw(st.sets(st.sampled_from(SWITCHES)))}
    for warn, critical in draw(st.sets(st.sampled_from(PAIRS))):
        low, high = sorted((draw(sizes()), draw(sizes())), key=Decimal)
        chosen |= {warn: low, critical: high}
    return chosen


@settings(max_examples=60, deadline=None)
@given(defaults=sections(), bots=st.dictionaries(st.sampled_from(["bot1", "bot2", "a b/c"]), sections()))
def test_whatever_thresholds_are_accepted_make_rules_that_say_them(
    defaults: dict[str, Any], bots: dict[str, dict[str, Any]]
) -> None:
    thresholds = parse_thresholds(json.dumps({"defaults": defaults, "bots": bots}).encode(), "t", {})
    file = validate_rules(document_of(thresholds, ["bot9"], openings={"bot1": 7}))
    rules = {rule.name: rule for rule in file.rules}
    assert set(rules) == {STATE_RULE, PARITY_RULE, INPUT_RULE}
    for bot in (*bots, "bot9"):
        own = thresholds.of(bot)
        override = rules[STATE_RULE].overrides.get(bot)  # type: ignore[union-attr]
        parity = rules[PARITY_RULE].overrides.get(bot)  # type: ignore[union-attr]
        assert (parity is None or parity.enabled) == (own.enabled and own.fill_parity_check_enabled)
        assert (override is None or override.enabled) == own.enabled
        if own.enabled and own.inventory_check_enabled:
            check = next(one for one in rules[STATE_RULE].checks if one.code == "inventory_drift")  # type: ignore[union-attr]
            said = override.checks.get("inventory_drift") if override is not None else None
            assert Decimal(str((said or check).warn)) == own.inventory_warn
            assert Decimal(str((said or check).critical)) == own.inventory_critical

"""Every check of the pack: ok, warning, critical, with its thresholds in the finding; every key and variable decides."""

from typing import Any

import pytest

from tests.support.bot_files import STEPS, write_exchange, write_thresholds
from tests.unit.tieout.bots.conftest import Desk

SNAPSHOTS: dict[str, list[tuple[dict[str, Any], str | None]]] = {
    "balance": [
        ({}, None),
        ({"equity_quote": "0.01"}, None),
        ({"equity_quote": 0}, "equity_not_positive"),
        ({"equity_quote": -3}, "equity_not_positive"),
        ({"base_pct": 0, "target_base_pct": 0}, None),
        ({"base_pct": 1, "target_base_pct": 1}, None),
        ({"base_pct": 1.0001, "target_base_pct": 1}, "base_pct_out_of_range"),
        ({"base_pct": -0.0001, "target_base_pct": 0}, "base_pct_out_of_range"),
    ],
    "inventory": [
        ({"base_pct": 0.7499}, None),
        ({"base_pct": 0.75}, "inventory_drift_warning"),
        ({"base_pct": 0.25}, "inventory_drift_warning"),
        ({"base_pct": 0.9499}, "inventory_drift_warning"),
        ({"base_pct": 0.95}, "inventory_drift_critical"),
        ({"base_pct": 0.05}, "inventory_drift_critical"),
    ],
    "accounting": [({"fees_paid": 0}, None), ({"fees_paid": -0.01}, "fees_paid_negative")],
}


@pytest.mark.parametrize(("changed", "name"), [case for cases in SNAPSHOTS.values() for case in cases], ids=str)
def test_what_one_snapshot_shows(desk: Desk, changed: dict[str, Any], name: str | None) -> None:
    desk.bot().snapshot(**changed).filled(1)
    assert desk.open() == (set() if name is None else {("bot1", name)})


@pytest.mark.parametrize(
    ("external", "name"),
    [
        (0.5999, None),
        (0.6, "exchange_drift_warning"),
        (0.4, "exchange_drift_warning"),
        (0.6999, "exchange_drift_warning"),
        (0.7, "exchange_drift_critical"),
    ],
)
def test_what_the_exchange_says_is_compared_with_what_the_bot_says(
    desk: Desk, external: float, name: str | None
) -> None:
    desk.bot().snapshot().filled(1)
    write_exchange(desk.root, bot1={"account_probe_status": "ok", "base_pct": external})
    assert desk.open() == (set() if name is None else {("bot1", name)})


@pytest.mark.parametrize(
    ("fees", "name"),
    [
        (1.25, None),
        (1.2001, None),
        (1.2, "fees_counter_decreased_warning"),
        (1.0501, "fees_counter_decreased_warning"),
        (1.05, "fees_counter_decreased_critical"),
        (0, "fees_counter_decreased_critical"),
    ],
)
def test_a_fee_counter_that_falls_between_two_cycles(desk: Desk, fees: float, name: str | None) -> None:
    desk.bot().snapshot().filled(1)
    assert desk.open() == set()
    desk.bot().snapshot(ts="2026-11-20T10:05:00Z", fees_paid=fees)
    assert desk.open() == (set() if name is None else {("bot1", name)})


@pytest.mark.parametrize(
    ("turnover", "fees", "name"),
    [(10.0499, 1.25, None), (10.05, 1.25, "turnover_without_fee_accrual"), (99, 1.26, None), (9, 1.25, None)],
)
def test_turnover_that_grows_without_fees(desk: Desk, turnover: float, fees: float, name: str | None) -> None:
    desk.bot().snapshot().filled(1)
    desk.cycle()
    desk.bot().snapshot(ts="2026-11-20T10:05:00Z", turnover=turnover, fees_paid=fees)
    assert desk.open() == (set() if name is None else {("bot1", name)})


@pytest.mark.parametrize(
    ("rows", "orders", "name"), [(3, 3, None), (3, 2, "fill_count_mismatch"), (2, 3, "fill_count_mismatch")]
)
def test_fills_and_orders_are_as_many(desk: Desk, rows: int, orders: int, name: str | None) -> None:
    desk.bot().snapshot().rows(rows).orders(orders)
    assert desk.open() == (set() if name is None else {("bot1", name)})


def test_each_finding_has_its_thresholds_and_figures(desk: Desk) -> None:
    write_thresholds(desk.root, bot1={"inventory_warn": 0.10, "inventory_critical": "0.30"})
    desk.bot().snapshot(base_pct=0.65).rows(2).orders(1)
    found = desk.finding("inventory_drift_warning")
    assert (found["warn_threshold"], found["critical_threshold"]) == ("0.1", "0.30")
    assert (found["expected"], found["actual"], found["difference"]) == ("0.5", "0.65", "0.15")
    assert (found["severity"], found["check"], found["bot"]) == ("warning", "inventory", "bot1")
    parity = desk.finding("fill_count_mismatch")
    assert (parity["severity"], parity["check"], parity["warn_threshold"]) == ("warning", "fill_parity", "1")
    assert (parity["expected"], parity["actual"], parity["difference"]) == ("1", "2", "1")


def test_no_finding_lacks_a_threshold(desk: Desk) -> None:
    for step in STEPS:
        step.write(desk.root)
        for found in desk.cycle().report.findings:
            assert (found.warn_threshold, found.critical_threshold) != (None, None), found.name


def test_the_status_is_the_worst_finding(desk: Desk) -> None:
    desk.bot().snapshot().filled(1)
    assert desk.cycle().report.status == "ok"
    desk.bot("bot2").snapshot(base_pct=0.8).filled(1)
    warned = desk.cycle().report
    assert (warned.status, warned.warning_count, warned.critical_count) == ("warning", 1, 0)
    desk.bot("bot3").snapshot(equity_quote=0).filled(1)
    failed = desk.cycle().report
    assert (failed.status, failed.warning_count, failed.critical_count, failed.checked_bots) == ("critical", 1, 1, 3)
    assert [one.bot for one in failed.findings] == ["bot3", "bot2"]


def _drift(desk: Desk) -> None:
    desk.bot().snapshot(base_pct=0.7).filled(1)


def _far(desk: Desk) -> None:
    desk.bot().snapshot(base_pct=0.99).filled(1)


def _elsewhere(desk: Desk) -> None:
    desk.bot().snapshot().filled(1)
    write_exchange(desk.root, bot1={"account_probe_status": "ok", "base_pct": 0.55})


def _far_elsewhere(desk: Desk) -> None:
    desk.bot().snapshot().filled(1)
    write_exchange(desk.root, bot1={"account_probe_status": "ok", "base_pct": 0.9})


def _fall(desk: Desk, fees: float) -> None:
    desk.bot().snapshot().filled(1)
    desk.cycle()
    desk.bot().snapshot(ts="2026-11-20T10:05:00Z", fees_paid=fees)


def _small_fall(desk: Desk) -> None:
    _fall(desk, 1.23)


def _large_fall(desk: Desk) -> None:
    _fall(desk, 0.75)


def _gap(desk: Desk) -> None:
    desk.bot().snapshot().filled(1)
    desk.cycle()
    desk.bot().snapshot(ts="2026-11-20T10:05:00Z", turnover=10.03)


def _broke(desk: Desk) -> None:
    desk.bot().snapshot(equity_quote=0).filled(1)


def _unpaired(desk: Desk) -> None:
    desk.bot().snapshot().rows(2).orders(1)


def _negative(desk: Desk) -> None:
    desk.bot().snapshot(fees_paid=-1).filled(1)


DECIDES: list[tuple[str, str, Any, str | None, str | None]] = [
    # key, situation, value, what is found without it, what is found with it
    ("enabled", "_broke", False, "equity_not_positive", None),
    ("inventory_check_enabled", "_drift_far", False, "inventory_drift_critical", None),
    ("exchange_check_enabled", "_far_elsewhere", False, "exchange_drift_critical", None),
    ("fill_parity_check_enabled", "_unpaired", False, "fill_count_mismatch", None),
    ("accounting_check_enabled", "_negative", False, "fees_paid_negative", None),
    ("inventory_warn", "_drift", 0.2, None, "inventory_drift_warning"),
    ("inventory_critical", "_drift_far", 0.6, "inventory_drift_critical", "inventory_drift_warning"),
    ("exchange_drift_warn", "_elsewhere", 0.05, None, "exchange_drift_warning"),
    ("exchange_drift_critical", "_far_elsewhere", 0.5, "exchange_drift_critical", "exchange_drift_warning"),
    ("fee_drop_warn", "_small_fall", 0.02, None, "fees_counter_decreased_warning"),
    ("fee_drop_critical", "_large_fall", 0.6, "fees_counter_decreased_critical", "fees_counter_decreased_warning"),
    ("turnover_fee_gap_warn", "_gap", 0.03, None, "turnover_without_fee_accrual"),
]
SITUATIONS = {
    "_broke": _broke,
    "_drift": _drift,
    "_drift_far": _far,
    "_elsewhere": _elsewhere,
    "_far_elsewhere": _far_elsewhere,
    "_small_fall": _small_fall,
    "_large_fall": _large_fall,
    "_gap": _gap,
    "_unpaired": _unpaired,
    "_negative": _negative,
}


@pytest.mark.parametrize("given", ["nothing", "variable", "defaults", "bot", "other bot"])
@pytest.mark.parametrize(("key", "situation", "value", "without", "found"), DECIDES, ids=[one[0] for one in DECIDES])
def test_every_key_decides_by_its_variable_its_default_and_its_override(
    desk: Desk, key: str, situation: str, value: Any, without: str | None, found: str | None, given: str
) -> None:
    if given == "variable":
        desk.variables[f"RECON_{key.upper()}"] = str(value)
    elif given == "defaults":
        write_thresholds(desk.root, defaults={key: value})
    elif given == "bot":
        write_thresholds(desk.root, bot1={key: value})
    elif given == "other bot":
        write_thresholds(desk.root, bot2={key: value})
        desk.bot("bot2").snapshot().filled(1)
    SITUATIONS[situation](desk)
    name = without if given in ("nothing", "other bot") else found
    assert {one for one in desk.open() if one[0] == "bot1"} == (set() if name is None else {("bot1", name)})


def test_a_check_that_is_off_by_default_can_be_on_for_one_bot(desk: Desk) -> None:
    write_thresholds(desk.root, defaults={"inventory_check_enabled": False}, bot2={"inventory_check_enabled": True})
    for name in ("bot1", "bot2"):
        desk.bot(name).snapshot(base_pct=0.9).filled(1)
    report = desk.cycle().report
    assert [(one.bot, one.name) for one in report.findings] == [("bot2", "inventory_drift_warning")]
    assert [one.checks["inventory"] for one in report.bots] == ["disabled", "warning"]


def test_a_threshold_that_changes_judges_again_without_a_new_snapshot(desk: Desk) -> None:
    desk.bot().snapshot(base_pct=0.6).filled(1)
    assert desk.open() == set()
    write_thresholds(desk.root, bot1={"inventory_warn": 0.1})
    assert desk.open() == {("bot1", "inventory_drift_warning")}
    write_thresholds(desk.root, bot1={"enabled": False})
    assert desk.open() == set()


def test_an_exchange_that_was_asked_for_must_answer(desk: Desk) -> None:
    desk.bot().snapshot().filled(1)
    write_thresholds(desk.root, defaults={"exchange_check_enabled": True})
    missing = {("bot1", "exchange_snapshot_missing")}
    assert desk.open() == missing
    write_exchange(desk.root, bot2={"account_probe_status": "disabled"})
    assert ("bot1", "exchange_snapshot_missing") in desk.open()
    write_exchange(desk.root, bot1={"account_probe_status": "paper_only"})
    assert desk.open() == set()
    write_exchange(desk.root, bot1={"account_probe_status": "ok", "base_pct": 0.5})
    assert desk.open() == set()


def test_an_account_that_could_not_be_asked_is_told_also_where_nobody_asked_for_the_check(desk: Desk) -> None:
    desk.bot().snapshot().filled(1)
    for status in ("wrong_key", "timeout", "ok"):
        write_exchange(desk.root, bot1={"account_probe_status": status})
        assert desk.open() == {("bot1", "exchange_probe_failed")}
    assert desk.latest()["bots"][0]["checks"]["exchange"] == "unknown"
    write_exchange(desk.root, bot1={"account_probe_status": "ok", "base_pct": 0.5})
    assert desk.open() == set()


def test_accounting_snapshots_show_each_bot_beside_the_cycle_before(desk: Desk) -> None:
    desk.bot("bot1").snapshot().filled(2)
    desk.bot("bot2").snapshot(fees_paid=3).filled(1)
    desk.cycle()
    desk.bot("bot1").snapshot(ts="2026-11-20T10:05:00Z", fees_paid="1.20", turnover=12)
    desk.cycle()
    first, second = desk.latest()["accounting_snapshots"]
    assert (first["bot"], second["bot"]) == ("bot1", "bot2")
    assert (first["fees_paid"], first["previous_fees_paid"], first["fees_paid_delta"]) == ("1.20", "1.25", "-0.05")
    assert (first["turnover"], first["turnover_delta"], first["fills"], first["order_filled"]) == ("12", "2", "2", "2")
    assert (second["fees_paid"], second["fees_paid_delta"]) == ("3", "0")


@pytest.mark.parametrize("place", range(len(STEPS)))
def test_the_situations_that_the_live_feed_is_held_to_as_well(desk: Desk, place: int) -> None:
    for step in STEPS[:place]:
        step.write(desk.root)
        desk.cycle()
    STEPS[place].write(desk.root)
    assert desk.open() == STEPS[place].open

"""Thresholds of the bots pack: file, environment, overrides, hot reload, and what is said of wrong ones."""

import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from shared.packs.bots.thresholds import (
    KEYS,
    SWITCHES,
    BotThresholds,
    Thresholds,
    ThresholdsFile,
    ThresholdsInvalid,
    load_thresholds,
    parse_thresholds,
    variable_of,
)

CONTRACT = {
    "enabled",
    "inventory_check_enabled",
    "exchange_check_enabled",
    "fill_parity_check_enabled",
    "accounting_check_enabled",
    "inventory_warn",
    "inventory_critical",
    "exchange_drift_warn",
    "exchange_drift_critical",
    "fee_drop_warn",
    "fee_drop_critical",
    "turnover_fee_gap_warn",
}


def read(document: Any, **environment: str) -> Thresholds:
    return parse_thresholds(json.dumps(document).encode(), "t.json", environment)


def problems(document: Any, **environment: str) -> list[str]:
    with pytest.raises(ThresholdsInvalid) as caught:
        read(document, **environment)
    return list(caught.value.problems)


def other(key: str, place: int = 1) -> tuple[Any, Any]:
    """A value of a key that is not the built-in one: as written, as read."""
    if key in SWITCHES:
        return (False, False) if place % 2 else (True, True)
    # Warn and critical of a pair stay in order: warn goes down, critical up.
    number = Decimal("0.01") * place if key.endswith("warn") else Decimal(7) + place
    return float(number), Decimal(str(float(number)))


def test_the_keys_are_the_contract() -> None:
    assert set(KEYS) == CONTRACT


@pytest.mark.parametrize("key", KEYS)
def test_every_key_has_a_default_in_the_file_an_override_per_bot_and_a_variable(key: str) -> None:
    (first, as_first), (second, as_second) = other(key, 1), other(key, 2)
    text = str(second).lower() if key in SWITCHES else str(second)
    by_variable = read({}, **{variable_of(key): text})
    assert getattr(by_variable.defaults, key) == as_second
    assert getattr(by_variable.of("bot9"), key) == as_second
    by_file = read({"defaults": {key: first}}, **{variable_of(key): text})
    assert getattr(by_file.defaults, key) == as_first
    by_bot = read({"defaults": {key: first}, "bots": {"bot2": {key: second}}})
    assert (getattr(by_bot.of("bot1"), key), getattr(by_bot.of("bot2"), key)) == (as_first, as_second)


@pytest.mark.parametrize("key", KEYS)
def test_a_wrong_value_is_told_with_file_bot_and_key(key: str) -> None:
    bad = "maybe"
    assert any(line.startswith(f"t.json: defaults.{key}: ") for line in problems({"defaults": {key: bad}}))
    assert any(line.startswith(f"t.json: bots.bot2.{key}: ") for line in problems({"bots": {"bot2": {key: bad}}}))
    assert any(line.startswith(f"{variable_of(key)}: ") for line in problems({}, **{variable_of(key): bad}))


@pytest.mark.parametrize("value", [0, -0.1, True, None, [], "NaN", "1e-2000", ""])
def test_a_size_is_a_number_above_zero(value: Any) -> None:
    assert problems({"bots": {"bot2": {"fee_drop_warn": value}}})[0].startswith("t.json: bots.bot2.fee_drop_warn: ")


def test_numbers_are_read_by_their_text() -> None:
    assert parse_thresholds(b'{"defaults": {"inventory_warn": 0.1}}', "t", {}).defaults.inventory_warn == Decimal("0.1")
    assert parse_thresholds(b'{"defaults": {"fee_drop_warn": 1e-3}}', "t", {}).defaults.fee_drop_warn == Decimal(
        "0.001"
    )


def test_unknown_keys_are_told_with_what_is_known() -> None:
    told = problems(
        {"defaults": {"inventory_warm": 1}, "bots": {"bot2": {"nonsense": 1}}, "bot3": {}, "fee_drop_warn": 1}
    )
    assert [line.split(": is ")[0] for line in told] == [
        "t.json: bot3",
        "t.json: fee_drop_warn",
        "t.json: defaults.inventory_warm",
        "t.json: bots.bot2.nonsense",
    ]
    assert "inventory_warn" in told[2]


@pytest.mark.parametrize("pair", ["inventory", "exchange_drift", "fee_drop"])
def test_a_warning_above_the_critical_size_is_refused_also_where_they_come_from_two_places(pair: str) -> None:
    told = problems(
        {"defaults": {f"{pair}_critical": 0.3, f"{pair}_warn": 0.2}, "bots": {"bot2": {f"{pair}_warn": 0.4}}}
    )
    assert told == [
        f"t.json: bots.bot2.{pair}_warn: 0.4 is greater than {pair}_critical (0.3), so it would never come first"
    ]


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"", "is empty"),
        (b'{"defaults": {', "not valid JSON"),
        (b"[]", "must be an object"),
        (b'{"defaults": [1]}', "must be an object of thresholds"),
        (b'{"bots": 3}', "must be an object with one object per bot"),
        (b'{"defaults": {"enabled": true, "enabled": false}}', "enabled is given twice"),
        (b"\xff\xfe", "UTF-8"),
    ],
)
def test_a_file_of_another_form_is_refused_by_name(raw: bytes, word: str) -> None:
    with pytest.raises(ThresholdsInvalid, match=word) as caught:
        parse_thresholds(raw, "t.json", {})
    assert str(caught.value).startswith("t.json: ")


def test_without_a_file_the_environment_counts_but_a_named_one_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_thresholds({}).defaults == BotThresholds()
    assert load_thresholds({"RECON_INVENTORY_WARN": "0.2"}).defaults.inventory_warn == Decimal("0.2")
    with pytest.raises(ThresholdsInvalid, match=r"elsewhere\.json: is not there; RECON_THRESHOLDS_PATH names it"):
        load_thresholds({"RECON_THRESHOLDS_PATH": "elsewhere.json"})
    (tmp_path / "elsewhere.json").write_text('{"defaults": {"inventory_warn": 0.3}}')
    found = load_thresholds({"RECON_THRESHOLDS_PATH": "elsewhere.json", "RECON_INVENTORY_WARN": "0.2"})
    assert found.defaults.inventory_warn == Decimal("0.3")


def test_a_changed_file_is_followed_and_a_broken_one_leaves_the_last_good_thresholds(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text('{"defaults": {"inventory_warn": 0.1}}')
    file = ThresholdsFile({"RECON_THRESHOLDS_PATH": str(path)})
    assert file.current() == (load_thresholds({"RECON_THRESHOLDS_PATH": str(path)}), False, None)

    def write(text: str) -> None:
        path.write_text(text)
        os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1_000_000))

    write('{"defaults": {"inventory_warn": 0.2}}')
    after = file.current()
    assert (after.changed, after.thresholds.defaults.inventory_warn) == (True, Decimal("0.2"))
    write('{"defaults": {"inventory_warn": ')
    broken = file.current()
    assert broken.problem is not None
    assert "t.json: is not valid JSON" in broken.problem
    assert (broken.changed, broken.thresholds.defaults.inventory_warn) == (False, Decimal("0.2"))
    assert file.current().problem == broken.problem
    write('{"defaults": {"inventory_warn": 0.3}}')
    assert file.current() == (load_thresholds({"RECON_THRESHOLDS_PATH": str(path)}), True, None)

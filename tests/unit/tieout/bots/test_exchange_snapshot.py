"""Goal: what stands in the exchange snapshot is what the exchange said, or why it could not be asked; never a guess.

Method: ccxt itself, against a local server that checks signature, passphrase and time as Bitget does.
"""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import stamina
from typer.testing import CliRunner

from shared.errors import UsageError
from tests.support.bitget import Bitget, BitgetAccount, asset, bitget_server
from tieout.bots.exchange.account_map import Account, read_account_map
from tieout.bots.exchange.settings import ExchangeSettings
from tieout.bots.exchange.snapshot import Probed, Snapshot, look, write_snapshot
from tieout.cli import build
from tieout.cli.bots_exchange import _once

KEY, SECRET, PASSPHRASE = "bg_1f0c7e2d", "s3cr3t-of-bot1", "phrase-of-bot1"


@pytest.fixture
async def bitget(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bitget]:
    """Bitget with the account of BOT1, whose credentials are in the environment."""
    async with bitget_server() as server:
        server.accounts[KEY] = BitgetAccount(SECRET, PASSPHRASE, [asset("BTC", "0.01", "0.005"), asset("USDT", "250")])
        give(monkeypatch, "BOT1")
        yield server


def give(monkeypatch: pytest.MonkeyPatch, prefix: str, key: str = KEY, secret: str = SECRET) -> None:
    monkeypatch.setenv(f"{prefix}_BITGET_API_KEY", key)
    monkeypatch.setenv(f"{prefix}_BITGET_SECRET", secret)
    monkeypatch.setenv(f"{prefix}_BITGET_PASSPHRASE", PASSPHRASE)


def account(prefix: str = "BOT1", **fields: Any) -> Account:
    return Account.model_validate({"credential_prefix": prefix, "trading_pair": "BTC-USDT", **fields})


def settings(bitget: Bitget, **fields: Any) -> ExchangeSettings:
    given = {"snapshot_mode": "bitget_ccxt_private", "snapshot_base_url": bitget.url, "snapshot_attempts": 1}
    return ExchangeSettings.model_validate({**given, **fields})


async def probed(bitget: Bitget, one: Account | None = None, **fields: Any) -> Probed:
    return (await look(settings(bitget, **fields), {"bot1": one or account()})).bots["bot1"]


async def test_ok_disabled_paper_only_wrong_key_and_time_out_side_by_side(
    bitget: Bitget, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each bot has its own status; only `ok` has a figure, and it is exact."""
    bitget.accounts["slow"] = BitgetAccount(SECRET, PASSPHRASE, delay_s=60)
    give(monkeypatch, "BOT4", key="bg_nobody")
    give(monkeypatch, "BOT5", key="slow")
    accounts = {
        "bot1": account(),
        "bot2": account("BOT2", account_mode="disabled"),
        "bot3": account("BOT3", account_mode="paper_only"),
        "bot4": account("BOT4"),
        "bot5": account("BOT5"),
    }
    await probed(bitget)  # ccxt takes seconds to import
    bitget.requests.clear()
    began = time.monotonic()
    snapshot = await look(settings(bitget, snapshot_timeout_sec=0.5), accounts)
    assert time.monotonic() - began < 10
    write_snapshot(tmp_path / "latest.json", snapshot)
    stored = json.loads((tmp_path / "latest.json").read_text(), parse_float=Decimal)["bots"]
    assert {bot: (one["account_probe_status"], one["base_pct"]) for bot, one in stored.items()} == {
        "bot1": ("ok", Decimal("0.75")),
        "bot2": ("disabled", None),
        "bot3": ("paper_only", None),
        "bot4": ("wrong_key", None),
        "bot5": ("timeout", None),
    }
    assert stored["bot1"]["equity_quote"] == 1000
    assert stored["bot4"]["account_probe_error"] == (
        "Bitget refuses the key (code 40037): check API key, secret and passphrase"
    )
    assert stored["bot5"]["account_probe_error"] == "no answer within 0.5 s"
    # Bots that are not to be asked need no credentials, and nobody was asked for them.
    assert bitget.requests.count("GET /api/v2/spot/account/assets") == 3


@pytest.mark.parametrize(
    ("secret", "passphrase", "code"), [("another", PASSPHRASE, "40009"), (SECRET, "another", "40012")]
)
async def test_wrong_secret_or_passphrase_is_a_wrong_key(
    bitget: Bitget, secret: str, passphrase: str, code: str
) -> None:
    bitget.accounts[KEY].secret, bitget.accounts[KEY].passphrase = secret, passphrase
    found = await probed(bitget)
    assert (found.account_probe_status, found.base_pct) == ("wrong_key", None)
    assert code in found.account_probe_error


async def test_key_without_the_right_to_read(bitget: Bitget) -> None:
    bitget.accounts[KEY].may_read = False
    assert (await probed(bitget)).account_probe_status == "no_permission"


async def test_machine_whose_clock_is_off(bitget: Bitget, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bitget refuses a request of two minutes ago; that is no wrong key."""
    import ccxt.async_support

    real = ccxt.async_support.bitget.milliseconds
    monkeypatch.setattr(ccxt.async_support.bitget, "milliseconds", staticmethod(lambda: real() - 120_000))
    assert (await probed(bitget)).account_probe_status == "clock_off"


async def test_answer_that_never_ends_is_a_time_out(bitget: Bitget) -> None:
    """A byte now and then keeps a read alive; the request's own time ends it."""
    bitget.accounts[KEY].drips = True
    assert (await probed(bitget, snapshot_timeout_sec=0.5)).account_probe_status == "timeout"


async def test_look_as_a_whole_ends_in_time(bitget: Bitget) -> None:
    """Retries of a slow exchange never hold the other bots' figures back."""
    bitget.accounts[KEY].delay_s = 60
    found = await probed(bitget, snapshot_timeout_sec=60, snapshot_look_sec=0.3)
    assert (found.account_probe_status, found.account_probe_error) == (
        "timeout",
        "not reached within the 0.3 s of one look",
    )


@pytest.mark.parametrize(("statuses", "status"), [([429] * 3, "rate_limited"), ([503] * 3, "unavailable")])
async def test_exchange_that_is_busy_or_away_is_asked_again(bitget: Bitget, statuses: list[int], status: str) -> None:
    """Twice refused and then answered is ok; three times refused is told."""
    # As often as ever, without the waits between.
    with stamina.set_testing(True, attempts=10, cap=True):
        bitget.accounts[KEY].statuses = statuses[:2]
        assert (await probed(bitget, snapshot_attempts=3)).account_probe_status == "ok"
        bitget.accounts[KEY].statuses = statuses
        assert (await probed(bitget, snapshot_attempts=2)).account_probe_status == status


async def test_nobody_listens(bitget: Bitget) -> None:
    assert (await probed(bitget, snapshot_base_url="http://127.0.0.1:9")).account_probe_status == "unavailable"


async def test_key_never_follows_a_redirect(bitget: Bitget) -> None:
    async with bitget_server() as other:
        bitget.accounts[KEY].redirect = f"{other.url}/api/v2/spot/account/assets"
        assert (await probed(bitget)).account_probe_status == "refused"
        assert other.requests == []


async def test_answers_of_another_form_are_no_figure(bitget: Bitget) -> None:
    """An empty body, a web page, JSON of another form."""
    found = []
    for body in (b"", b"<html>", b"[]", b'{"code": "00000"}', b'{"data": []}'):
        bitget.accounts[KEY].body = body
        found.append((await probed(bitget)).account_probe_status)
    assert found == ["unreadable"] * 5


async def test_answer_from_a_cache_is_stale(bitget: Bitget) -> None:
    bitget.accounts[KEY].request_time_s = time.time() - 3600
    assert (await probed(bitget)).account_probe_status == "stale"


async def test_pair_without_a_price(bitget: Bitget) -> None:
    assert (await probed(bitget, account(trading_pair="XYZ-USDT"))).account_probe_status == "refused"


async def test_price_is_asked_once_per_pair(bitget: Bitget) -> None:
    accounts = {f"bot{number}": account() for number in range(5)}
    found = await look(settings(bitget), accounts)
    assert {one.account_probe_status for one in found.bots.values()} == {"ok"}
    assert bitget.requests.count("GET /api/v2/spot/market/tickers") == 1


async def test_other_assets_are_named(bitget: Bitget) -> None:
    """They are in no figure, and somebody should know."""
    bitget.accounts[KEY].assets.append(asset("DOGE", "7"))
    assert (await probed(bitget)).other_assets == ("DOGE",)


@pytest.mark.parametrize(("side", "expected"), [("long", "0.5"), ("short", "-0.5")])
async def test_futures_position_as_a_share_of_the_equity(bitget: Bitget, side: str, expected: str) -> None:
    bitget.accounts[KEY].equity = "1000"
    bitget.accounts[KEY].positions = [{"symbol": "BTCUSDT", "holdSide": side, "total": "0.01"}]
    assert (await probed(bitget, account(market="swap"))).base_pct == Decimal(expected)


async def test_unified_account_less_what_was_borrowed(bitget: Bitget) -> None:
    """A classic account that turned into a unified one is told so by the code."""
    bitget.accounts[KEY].unified = True
    bitget.accounts[KEY].assets = [
        {"coin": "BTC", "balance": "0.02", "debt": "0"},
        {"coin": "USDT", "balance": "250", "debt": "250"},
    ]
    assert (await probed(bitget, account(market="unified"))).base_pct == 1
    refused = await probed(bitget)
    assert refused.account_probe_status == "refused"
    assert '"market": "unified"' in refused.account_probe_error


async def test_missing_credentials_are_named(bitget: Bitget) -> None:
    found = await probed(bitget, account("BOT7"))
    assert found.account_probe_status == "missing_credentials"
    assert found.account_probe_error.startswith("set BOT7_BITGET_API_KEY, BOT7_BITGET_SECRET, BOT7_BITGET_PASSPHRASE")


async def test_credentials_from_files(bitget: Bitget, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in (("API_KEY", KEY), ("SECRET", SECRET), ("PASSPHRASE", PASSPHRASE)):
        (tmp_path / name).write_text(f"{value}\n")
        monkeypatch.setenv(f"BOT8_BITGET_{name}_FILE", str(tmp_path / name))
    assert (await probed(bitget, account("BOT8"))).account_probe_status == "ok"


async def test_off_asks_nobody(bitget: Bitget) -> None:
    found = await probed(bitget, snapshot_mode="off")
    assert (found.account_probe_status, found.account_probe_error) == ("disabled", "EXCHANGE_SNAPSHOT_MODE is off")
    assert bitget.requests == []


async def test_secrets_stand_nowhere(bitget: Bitget, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in the file nor in logs at debug level, whether it went well or not."""
    caplog.set_level(logging.DEBUG)
    written = b""
    for fault in ({}, {"statuses": [500]}, {"may_read": False}, {"body": b"no"}):
        for name, value in fault.items():
            setattr(bitget.accounts[KEY], name, value)
        write_snapshot(tmp_path / "latest.json", await look(settings(bitget), {"bot1": account()}))
        written += (tmp_path / "latest.json").read_bytes()
    told = written.decode() + caplog.text
    assert "ACCESS-SIGN" not in told
    for secret in (KEY, SECRET, PASSPHRASE):
        assert secret not in told


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"bot2": "BOT2"}', ("BOT2", "probe", "BTC-USDT", "spot")),
        ('{"bot2": "paper_only"}', ("BOT2", "paper_only", "BTC-USDT", "spot")),
        ('{"bots": {"bot2": {"account_mode": "disabled"}}}', ("BOT2", "disabled", "BTC-USDT", "spot")),
        (
            '{"defaults": {"credential_prefix": "MAIN", "market": "swap"}, "bots": {"bot2": {"trading_pair": "eth-usdt"}}}',
            ("MAIN", "probe", "ETH-USDT", "swap"),
        ),
    ],
)
def test_forms_of_the_account_map(tmp_path: Path, text: str, expected: tuple[str, ...]) -> None:
    file = tmp_path / "map.json"
    file.write_text(text)
    found = read_account_map(file, "BTC-USDT")["bot2"]
    assert (found.credential_prefix, found.account_mode, found.trading_pair, found.market) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is no JSON"),
        ("[]", "is no JSON object"),
        ("{}", "names no bot"),
        ('{"bot2": "BOT2", "bot2": "BOT3"}', "'bot2' is given twice"),
        ('{"bot2": 7}', "bot2: account"),
        ('{"bot2": {"prefix": "BOT2"}}', "bot2: prefix: Extra inputs are not permitted"),
        ('{"bot2": {"account_mode": "live"}}', "bot2: account_mode"),
        ('{"bot2": {"trading_pair": "BTCUSDT"}}', "bot2: trading_pair"),
        ('{"../x": "BOT2"}', "is no name of a bot"),
        ('{"bots": {"bot2": "BOT2"}, "bot3": "BOT3"}', "bot3: Extra inputs"),
    ],
)
def test_map_that_cannot_be_used_names_file_bot_and_field(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "map.json"
    file.write_text(text)
    with pytest.raises(UsageError) as refused:
        read_account_map(file, "BTC-USDT")
    assert told in str(refused.value)
    assert "map.json" in str(refused.value)


def test_snapshot_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    """Neither a part of the new one nor a temporary file stays behind."""
    (tmp_path / "latest.json").mkdir()
    (tmp_path / "latest.json" / "old").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        write_snapshot(tmp_path / "latest.json", Snapshot("", "", "off", "", {}))
    assert [file.name for file in tmp_path.iterdir()] == ["latest.json"]


# ---- the command


def command(folder: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EXCHANGE_")}
    return subprocess.Popen(
        [sys.executable, "-m", "tieout", "bots", "exchange-snapshot", *words],
        cwd=folder,
        env=inherited | {"PYTHONPATH": str(Path(__file__).parents[4])} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_loop_writes_again_and_again_until_it_is_asked_to_stop(tmp_path: Path) -> None:
    """A map that breaks meanwhile is told and leaves the last snapshot; SIGTERM ends it at once, in order."""
    (tmp_path / "config").mkdir()
    account_map = tmp_path / "config/exchange_account_map.json"
    account_map.write_text('{"bot2": "disabled"}')
    running = command(tmp_path, "--interval", "1")
    assert running.stdout is not None
    assert running.stdout.readline() == "bot2: disabled: the account map says that the account is not asked\n"
    written = (tmp_path / "reports/exchange_snapshots/latest.json").read_bytes()
    account_map.write_text("{")
    while not (line := running.stdout.readline()).startswith("error: config/exchange_account_map.json: is no JSON"):
        assert line.startswith("bot2: disabled")
        written = (tmp_path / "reports/exchange_snapshots/latest.json").read_bytes()
    assert line.endswith("reports/exchange_snapshots/latest.json stays as it was\n")
    running.terminate()
    assert running.wait(20) == 0
    assert (tmp_path / "reports/exchange_snapshots/latest.json").read_bytes() == written
    assert [one.name for one in (tmp_path / "reports/exchange_snapshots").iterdir()] == ["latest.json"]


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("EXCHANGE_SNAPSHOT_MODE", "proxy_local", "should be 'off' or 'bitget_ccxt_private' (given: 'proxy_local')"),
        ("EXCHANGE_SNAPSHOT_BASE_URL", "http://exchange.example", "must be https, because keys are sent to it"),
        ("EXCHANGE_SNAPSHOT_ASSETS", "BTC", "String should match pattern"),
    ],
)
def test_wrong_settings_are_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str) -> None:
    monkeypatch.setenv(variable, value)
    result = CliRunner().invoke(build(), ["bots", "exchange-snapshot", "--once"])
    assert isinstance(result.exception, UsageError)
    assert str(result.exception).startswith(f"{variable}: {told}")


async def test_exit_code_tells_what_has_to_be_mended(
    bitget: Bitget, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """0: nothing; 2: an account; 3: the exchange is away."""
    account_map = tmp_path / "map.json"
    given = {"account_map_path": account_map, "snapshot_out_path": tmp_path / "latest.json"}
    codes = []
    for text, url in (
        ('{"bot1": "BOT1", "bot2": "disabled"}', bitget.url),
        ('{"bot1": "BOT1", "bot2": "NOBODY"}', bitget.url),
        ('{"bot1": "BOT1"}', "http://127.0.0.1:9"),
    ):
        account_map.write_text(text)
        codes.append(await _once(settings(bitget, snapshot_base_url=url, **given)))
    assert codes == [0, 2, 3]

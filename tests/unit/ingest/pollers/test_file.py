"""The file of pollers: what an operator writes, and what a mistake in it is told as."""

from pathlib import Path

import pytest

from services.ingest.adapters.pollers.file import read_pollers
from shared.errors import UsageError
from tests.support.providers import ALPACA_KEY, CIRCLE_KEY

FILE = """
acme:
  circle: {provider: circle, environment: sandbox, interval_s: 60, total_account: "assets:usdc"}
  alpaca-eu: {provider: alpaca, environment: live, figure: cash, user_account: "user:{account_number}"}
"""
KEYS = {"TIEOUT_POLLER_KEY__ACME__CIRCLE": CIRCLE_KEY, "TIEOUT_POLLER_KEY__ACME__ALPACA_EU": ALPACA_KEY}


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "pollers.yaml"
    file.write_text(text)
    return file


def test_what_an_operator_writes(tmp_path: Path) -> None:
    """Addresses follow the environment; names have defaults."""
    circle, alpaca = read_pollers(written(tmp_path, FILE), KEYS)
    assert str(circle.address) == "https://api.circle.com"
    assert (circle.poll.total_account, circle.user_account) == ("assets:usdc", "circle:{id}")
    assert circle.interval.total_seconds() == 60
    assert str(alpaca.address) == "https://broker-api.alpaca.markets"
    assert (alpaca.poll.org, alpaca.poll.source, alpaca.poll.total_account) == ("acme", "alpaca-eu", "alpaca_exposure")
    assert alpaca.interval.total_seconds() == 300


def test_keys_come_from_files_too(tmp_path: Path) -> None:
    """A line end that an editor added is no part of the key; a repr shows nothing."""
    key = tmp_path / "key"
    key.write_text(ALPACA_KEY + "\n")
    text = f"acme: {{alpaca: {{provider: alpaca, environment: sandbox, key_file: {key}}}}}"
    (one,) = read_pollers(written(tmp_path, text), {})
    assert one.key.get_secret_value() == ALPACA_KEY
    assert "alpaca-secret" not in repr(one)
    (other,) = read_pollers(
        written(tmp_path, "acme: {alpaca: {provider: alpaca, environment: sandbox}}"),
        {"TIEOUT_POLLER_KEY__ACME__ALPACA_FILE": str(key)},
    )
    assert other.key.get_secret_value() == ALPACA_KEY
    assert str(other.address) == "https://broker-api.sandbox.alpaca.markets"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no source"),
        ("- circle", "write {org: {source:"),
        ("acme: circle", "acme is no table of sources"),
        ("acme: {circle: {provider: circle}}", "acme.circle: environment: Field required"),
        ("acme: {circle: {provider: paypal, environment: live}}", "acme.circle: provider: Input should be 'circle'"),
        ("acme: {circle: {provider: circle, environment: live, intervall_s: 5}}", "intervall_s: Extra inputs"),
        ("acme: {circle: {provider: circle, environment: live, interval_s: 1}}", "interval_s: Input should be greater"),
        ("acme: {circle: {provider: circle, environment: live, base_url: 'http://x.example'}}", "must be https"),
        ("acme: {circle: {provider: circle, environment: live, currencies: [USDX]}}", "'USDX' is no currency"),
        ("acme: {circle: {provider: circle, environment: live, currencies: []}}", "names none"),
        ("acme: {circle: {provider: circle, environment: live, figure: cash}}", "figure: does not belong to circle"),
        ("acme: {circle: {provider: circle, environment: live, user_account: 'u:{refid}'}}", "{refid} is not known"),
        ("acme: {circle: {provider: circle, environment: live}}", "does not belong to environment live"),
        ("acme: {other: {provider: circle, environment: live}}", "set TIEOUT_POLLER_KEY__ACME__OTHER"),
        ("acme: {circle: {provider: alpaca, environment: live}, circle: {}}", "is given twice"),
        ("acme: [", "not valid YAML"),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path: Path, text: str, said: str) -> None:
    """And never with a key."""
    with pytest.raises(UsageError) as refused:
        read_pollers(written(tmp_path, text), KEYS)
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("key", ["only-an-id", ":s3cr3t", "k3yid:", "k3y:sécret", "k3y:sec\nret"])
def test_a_key_that_cannot_be_one(tmp_path: Path, key: str) -> None:
    """Told before the provider sees it."""
    with pytest.raises(UsageError) as refused:
        read_pollers(
            written(tmp_path, "acme: {alpaca: {provider: alpaca, environment: live}}"),
            {"TIEOUT_POLLER_KEY__ACME__ALPACA": key},
        )
    assert key not in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="TIEOUT_POLLERS_FILE: cannot read"):
        read_pollers(tmp_path / "none.yaml", {})

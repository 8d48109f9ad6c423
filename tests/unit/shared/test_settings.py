"""Settings come from TIEOUT_ variables; secrets also from files; a wrong one ends in one clear line."""

import os

import pytest
from pydantic import Field, SecretStr

from shared.settings import (
    SecretFileSettings,
    ServiceSettings,
    SettingsInvalid,
    load_settings,
    secret_from_environment,
)


class Ledgerish(ServiceSettings):
    api_token: SecretStr
    signing_secret: SecretStr | None = None
    sources: list[str] = Field(default_factory=list)
    batch_rows_max: int = 500


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith("TIEOUT_"):
            monkeypatch.delenv(name)


def problems(cls=Ledgerish, **given):
    with pytest.raises(SettingsInvalid) as refused:
        load_settings(cls, **given)
    return list(refused.value.problems)


def test_defaults_listen_on_this_machine_only_and_trace_nothing():
    settings = load_settings(ServiceSettings)
    assert (settings.http_host, settings.otel_endpoint, settings.log_level) == ("127.0.0.1", None, "info")


def test_dotenv_file_is_not_read(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("TIEOUT_HTTP_PORT=9999\n")
    monkeypatch.chdir(tmp_path)
    assert load_settings(ServiceSettings).http_port == 8080


def test_empty_variable_counts_as_not_set(monkeypatch):
    monkeypatch.setenv("TIEOUT_OTEL_ENDPOINT", "")
    assert load_settings(ServiceSettings).otel_endpoint is None


def test_level_is_read_in_any_case(monkeypatch):
    monkeypatch.setenv("TIEOUT_LOG_LEVEL", "WARNING")
    assert load_settings(ServiceSettings).log_level == "warning"


def test_secret_comes_from_file_without_its_line_end(tmp_path, monkeypatch):
    (tmp_path / "token").write_text(" s3 cret \n")
    monkeypatch.setenv("TIEOUT_API_TOKEN_FILE", str(tmp_path / "token"))
    assert load_settings(Ledgerish).api_token.get_secret_value() == " s3 cret "


def test_optional_secret_comes_from_file_too(tmp_path, monkeypatch):
    (tmp_path / "s").write_text("whsec_1\n")
    monkeypatch.setenv("TIEOUT_SIGNING_SECRET_FILE", str(tmp_path / "s"))
    assert load_settings(Ledgerish, api_token="x").signing_secret == SecretStr("whsec_1")


def test_prefix_of_the_class_names_the_file_variable(tmp_path, monkeypatch):
    class Store(SecretFileSettings, env_prefix="TIEOUT_STORE_"):
        password: SecretStr

    (tmp_path / "p").write_text("pw")
    monkeypatch.setenv("TIEOUT_STORE_PASSWORD_FILE", str(tmp_path / "p"))
    assert load_settings(Store).password.get_secret_value() == "pw"


def test_secret_given_both_ways_is_refused_without_showing_either(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("from-file")
    monkeypatch.setenv("TIEOUT_API_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("TIEOUT_API_TOKEN", "from-env")
    assert problems() == ["TIEOUT_API_TOKEN: set either TIEOUT_API_TOKEN or TIEOUT_API_TOKEN_FILE, not both"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot read {}: No such file or directory"),
        (b"\n", "{} is empty"),
        (b"\xff\xfe", "{} is not UTF-8 text"),
        (b"x" * 70_000, "{} is larger than 65536 bytes: is it the right file?"),
    ],
)
def test_unusable_secret_file_is_named_with_its_reason(tmp_path, monkeypatch, content, reason):
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("TIEOUT_API_TOKEN_FILE", str(path))
    assert problems() == ["TIEOUT_API_TOKEN: given by TIEOUT_API_TOKEN_FILE: " + reason.format(path)]


def test_each_problem_is_one_line_that_names_its_variable(monkeypatch):
    monkeypatch.setenv("TIEOUT_HTTP_PORT", "99999")
    monkeypatch.setenv("TIEOUT_LOG_FORMAT", "xml")
    monkeypatch.setenv("TIEOUT_BATCH_ROWS_MAX", "many")
    assert problems() == [
        "TIEOUT_LOG_FORMAT: should be 'auto', 'json' or 'console' (given: 'xml')",
        "TIEOUT_HTTP_PORT: should be less than or equal to 65535 (given: '99999')",
        "TIEOUT_API_TOKEN: is required and not set",
        "TIEOUT_BATCH_ROWS_MAX: should be a valid integer, unable to parse string as an integer (given: 'many')",
    ]


def test_list_that_is_not_json_names_its_variable(monkeypatch):
    monkeypatch.setenv("TIEOUT_SOURCES", "stripe,ledger")
    assert problems(api_token="x") == ["TIEOUT_SOURCES: is not valid JSON, and this setting is a list or an object"]


def test_value_of_a_variable_named_like_a_secret_is_never_shown(monkeypatch):
    class Misdeclared(SecretFileSettings):
        api_key_number: int

    monkeypatch.setenv("TIEOUT_API_KEY_NUMBER", "sk_live_123")
    (line,) = problems(Misdeclared)
    assert line.startswith("TIEOUT_API_KEY_NUMBER: should be a valid integer")
    assert "sk_live" not in line


def test_wrong_address_of_a_collector_is_not_shown(monkeypatch):
    monkeypatch.setenv("TIEOUT_OTEL_ENDPOINT", "ftp://user:hunter2@collector")
    (line,) = problems(ServiceSettings)
    assert line.startswith("TIEOUT_OTEL_ENDPOINT: ")
    assert "hunter2" not in line


def test_refusal_carries_no_cause_that_would_show_values(monkeypatch):
    monkeypatch.setenv("TIEOUT_HTTP_PORT", "x")
    with pytest.raises(SettingsInvalid) as refused:
        load_settings(ServiceSettings)
    assert refused.value.__suppress_context__


def test_secret_with_a_name_known_at_run_time(tmp_path):
    (tmp_path / "s").write_text("whsec_2\n")
    given = {"A": "whsec_1", "B_FILE": str(tmp_path / "s"), "C": "x", "C_FILE": "y"}
    assert secret_from_environment("A", given) == SecretStr("whsec_1")
    assert secret_from_environment("B", given) == SecretStr("whsec_2")
    assert secret_from_environment("D", given) is None
    with pytest.raises(SettingsInvalid, match="not both"):
        secret_from_environment("C", given)

"""Where secrets come from, how a rotation is noticed, and whose keys are believed."""

from pathlib import Path

import msgspec
import pytest

from services.ingest.adapters.secrets import LOOK_INTERVAL_S, FileSecrets
from services.ingest.domain.directory import Directory
from services.ingest.ports import SigningConfig
from shared.contracts.directory import OrgEntry, SourceEntry, directory_key
from shared.errors import UsageError
from tests.support.ingest import KEY, key_entry

FILE = "acme:\n  stripe: {provider: stripe, secrets: [whsec_a, whsec_b], payment_id_field: order}\n"


def test_the_file_and_the_environment_are_valid_side_by_side(tmp_path: Path):
    file = tmp_path / "secrets.yaml"
    file.write_text(FILE)
    secrets = FileSecrets(file, {"TIEOUT_WEBHOOK_SECRET__ACME__STRIPE": "whsec_c, whsec_d"})
    assert secrets.of("acme", "stripe") == SigningConfig(
        "stripe", ("whsec_a", "whsec_b", "whsec_c", "whsec_d"), "order"
    )
    assert secrets.of("acme", "adyen") is None
    assert secrets.of("other", "stripe") is None


def test_names_with_dots_and_hyphens_have_underscores_in_variables():
    secrets = FileSecrets(None, {"TIEOUT_WEBHOOK_SECRET__ACME_EU_1__PAY_CORP": "s"})
    assert secrets.of("acme.eu-1", "pay-corp") == SigningConfig(None, ("s",))


def test_a_secret_may_stand_in_a_file_that_a_variable_names(tmp_path: Path):
    (tmp_path / "s").write_text("whsec_x\n")
    secrets = FileSecrets(None, {"TIEOUT_WEBHOOK_SECRET__ACME__STRIPE_FILE": str(tmp_path / "s")})
    assert secrets.of("acme", "stripe") == SigningConfig(None, ("whsec_x",))


def test_a_rotated_file_is_noticed_and_a_broken_one_changes_nothing(tmp_path: Path):
    file, now = tmp_path / "secrets.yaml", [0.0]
    file.write_text(FILE)
    secrets = FileSecrets(file, {}, clock=lambda: now[0])
    file.write_text("acme: {stripe: {secrets: [whsec_new]}}")
    assert secrets.of("acme", "stripe") is not None
    now[0] += LOOK_INTERVAL_S
    assert secrets.of("acme", "stripe") == SigningConfig(None, ("whsec_new",))
    file.write_text("acme: [broken, whsec_leak")
    now[0] += LOOK_INTERVAL_S
    assert secrets.of("acme", "stripe") == SigningConfig(None, ("whsec_new",))


@pytest.mark.parametrize(
    "text",
    [
        "acme: {stripe: whsec_leak}",
        "acme: [",
        "acme: {stripe: {secret: whsec_leak}}",
        "- whsec_leak",
        "acme: {stripe: {secrets: whsec_leak}}",
    ],
)
def test_a_wrong_file_is_told_without_what_it_holds(tmp_path: Path, text: str):
    file = tmp_path / "secrets.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"secrets\.yaml") as caught:
        FileSecrets(file, {})
    assert "whsec_leak" not in str(caught.value)


def test_an_absent_file_names_the_variable(tmp_path: Path):
    with pytest.raises(UsageError, match="TIEOUT_WEBHOOK_SECRETS_FILE"):
        FileSecrets(tmp_path / "none", {})


def test_a_key_is_believed_until_it_is_revoked_or_withdrawn():
    directory = Directory()
    directory.put(key_entry())
    found = directory.key(KEY)
    assert found is not None
    assert (found.org, found.role) == ("acme", "ingest")
    assert directory.key(KEY + "x") is None
    directory.put(key_entry(revoked=True))
    assert directory.key(KEY) is None
    directory.put(key_entry())
    directory.remove(directory_key(key_entry()))
    assert directory.key(KEY) is None


def test_orgs_and_sources_come_and_go():
    directory = Directory()
    org, source = OrgEntry(org="acme"), SourceEntry(org="acme", source="stripe", provider="stripe")
    directory.put(org)
    directory.put(source)
    assert directory.orgs == {"acme"}
    assert directory.source("acme", "stripe") == source
    directory.remove(directory_key(source))
    directory.remove(directory_key(org))
    assert directory.source("acme", "stripe") is None
    assert directory.orgs == frozenset()


@pytest.mark.parametrize("key", [b"", b"{}", b"[1]", b"\xff"])
def test_a_key_of_another_form_is_an_error_and_not_a_removal(key: bytes):
    with pytest.raises(msgspec.MsgspecError):
        Directory().remove(key)


@pytest.mark.parametrize(
    "token",
    ["", "tk_", "tk__x", "tk_ä_0123456789", "sk_ingest1_0123456789abcdef", "tk_ingest1_" + "0" * 1000, "\ud800"],
)
def test_what_is_no_key_is_nobody(token: str):
    directory = Directory()
    directory.put(key_entry())
    assert directory.key(token) is None

"""The generated contracts are what the code says, and they accept what the code writes."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import msgspec
import pytest
import yaml

from shared.contracts.discrepancy import Discrepancy, LogPosition, SideEvidence
from shared.contracts.event import EventRefused, decode_posted
from shared.contracts.leg import Leg
from shared.contracts.schema import CONTRACTS, main, rendered, schema_of
from shared.contracts.webhook import DiscrepancyMessage, encode_webhook

ROOT = Path(__file__).resolve().parents[4]
NOW = datetime(2026, 11, 20, 10, tzinfo=UTC)
BY_NAME = {contract.name: contract for contract in CONTRACTS}


def validator(name: str) -> jsonschema.Draft202012Validator:
    schema = schema_of(BY_NAME[name])
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def discrepancy() -> Discrepancy:
    side = SideEvidence(
        id="e1", source="ledger", record="r1", amount="10.00", currency="EUR", status=None, occurred_at=NOW
    )
    return Discrepancy(
        id="d1", revision=1, state="raised", org="acme", rule="billing.payments", pack="billing",
        type="MissingProviderRecord", severity="high", key="p1", side="provider", account=None,
        sides={"internal": side, "provider": None}, duplicate=None, expected="10.00", actual="0.00",
        difference="-10.00", currency="EUR", raised_at=NOW, resolved_at=None, resolution=None, expired=False,
        explanation="No provider record.", log=LogPosition(partition=0, offset=1, time=NOW),
    )  # fmt: skip


def test_committed_documents_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "shared.contracts.schema", "--check"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_check_names_stale_missing_and_left_over_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--docs", str(tmp_path)]) == 0
    folder = tmp_path / "contracts"
    (folder / "leg-record.schema.json").write_text("{}")
    (folder / "event.schema.json").unlink()
    (folder / "gone.schema.json").write_text("{}")
    capsys.readouterr()
    assert main(["--check", "--docs", str(tmp_path)]) == 1
    named = [line.split(";")[0].rsplit("/", 1)[1] for line in capsys.readouterr().out.splitlines()]
    assert named == ["event.schema.json", "gone.schema.json", "leg-record.schema.json"]
    assert (folder / "leg-record.schema.json").read_text() == "{}", "--check writes nothing"


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_every_schema_is_valid_and_has_a_title(name: str) -> None:
    assert validator(name).schema["title"] == BY_NAME[name].title


POSTED = {"source": "ledger", "type": "payment.succeeded", "id": "e1", "occurred_at": "2026-11-20T10:00:00Z"}


@pytest.mark.parametrize(
    "wrong",
    [{"amount": 12.5}, {"amount": "1e5"}, {"ammount": "1.00"}, {"source": ""}, {"type": "Payment"}, {"sequence": -1}],
)
def test_posted_event_schema_and_decoder_refuse_the_same(wrong: dict) -> None:
    assert validator("posted-event").is_valid(POSTED | {"amount": "12.50", "currency": "EUR"})
    decode_posted(msgspec.json.encode(POSTED | {"amount": "12.50", "currency": "EUR"}))
    assert not validator("posted-event").is_valid(POSTED | wrong)
    with pytest.raises(EventRefused):
        decode_posted(msgspec.json.encode(POSTED | wrong))


def test_discrepancy_and_webhook_schemas_accept_what_is_written() -> None:
    found = discrepancy()
    validator("discrepancy").validate(msgspec.json.decode(msgspec.json.encode(found)))
    message = DiscrepancyMessage(type="discrepancy.raised", timestamp=NOW, data=found)
    validator("webhook-message").validate(msgspec.json.decode(encode_webhook(message)))
    assert not validator("webhook-message").is_valid({"type": "discrepancy.raised", "timestamp": "x", "data": {}})


def test_leg_schema_names_every_place_of_the_array() -> None:
    leg = Leg("g", 0, "ledger", "r", "e", 1, 0, 0, 1, amount="1.00", currency="EUR")
    validator("leg-record").validate(msgspec.msgpack.decode(msgspec.msgpack.encode(leg)))
    places = schema_of(BY_NAME["leg-record"])["$defs"]["Leg"]["prefixItems"]
    assert [place["title"] for place in places] == ["tag", *Leg.__struct_fields__]


def test_rules_schema_accepts_the_packs_and_the_short_forms_of_yaml() -> None:
    packs = [path for place in ("shared/packs", "examples") for path in sorted((ROOT / place).glob("*/rules.yaml"))]
    assert packs
    for pack in packs:
        validator("rules-file").validate(yaml.safe_load(pack.read_text()))
    rule = {
        "name": "a.b", "kind": "match", "key": ["refs.x"], "compare": {"amount": None},
        "sides": {"one": {"source": "s", "type": "entry.*", "sign": {"by": "attrs.direction", "credit": 1}},
                  "two": {"source": "t", "type": ["entry.*"]}},
    }  # fmt: skip
    validator("rules-file").validate({"version": 1, "pack": "p", "rules": [rule]})
    for wrong in ({"kind": "sum"}, {"severity": {"Nonsense": "high"}}, {"unknown": 1}):
        assert not validator("rules-file").is_valid({"version": 1, "pack": "p", "rules": [rule | wrong]}), wrong


def test_field_docstrings_become_descriptions() -> None:
    fields = schema_of(BY_NAME["discrepancy"])["$defs"]["Discrepancy"]["properties"]
    assert fields["raised_at"]["description"] == "First raise."


def test_files_are_the_same_in_every_run() -> None:
    assert rendered() == rendered()

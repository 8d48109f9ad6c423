"""`tieout rules check`: what a person sees for a good file and a wrong one."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from shared.rules.load import RulesInvalid
from tieout.cli import rules

BILLING = Path(__file__).parents[3] / "shared/packs/billing/rules.yaml"


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    rules.register(made)
    return made


def test_a_good_file_is_listed_rule_by_rule(app: typer.Typer):
    answer = CliRunner().invoke(app, ["rules", "check", str(BILLING)])
    assert answer.exit_code == 0
    lines = answer.stdout.splitlines()
    assert lines[0].split("\t")[:2] == ["billing.payments", "match"]
    assert lines[-1].endswith("pack billing, 5 rules, no problems")


def test_a_wrong_file_names_rule_field_and_what_is_allowed(app: typer.Typer, tmp_path: Path):
    file = tmp_path / "rules.yaml"
    file.write_text(BILLING.read_text().replace("deadline: 3bd", "deadline: soon"))
    answer = CliRunner().invoke(app, ["rules", "check", str(file)])
    assert isinstance(answer.exception, RulesInvalid)
    assert answer.exception.exit_code == 2
    assert "billing.payouts" in str(answer.exception)
    assert "deadline" in str(answer.exception)


def test_help_shows_an_example(app: typer.Typer):
    for command in ("check", "apply"):
        assert "tieout rules" in CliRunner().invoke(app, ["rules", command, "--help"]).stdout

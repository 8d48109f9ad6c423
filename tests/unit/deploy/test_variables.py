"""Goal: `.env.example` names every variable that is read, and nothing that nobody reads; so does the compose file."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from tieout.deploying.env_example import COMPOSE, EXAMPLE, ROOT, parts, settings_classes, text

VARIABLE = re.compile(r"(TIEOUT|RECONCILIATION|RECON|EXCHANGE)_[A-Z0-9_]+")
# Named after what people call their organisations, sources and accounts.
BEGINNINGS = {"TIEOUT_WEBHOOK_SECRET", "TIEOUT_POLLER_KEY", "TIEOUT_LEDGER_KEY"}
# Of this machine's development tools; nothing that is deployed reads them.
NOT_DEPLOYED = {"TIEOUT_CACHE_DIR"}


def named() -> set[str]:
    return set(re.findall(r"^#?([A-Z][A-Z0-9_]*)=", EXAMPLE.read_text(), re.MULTILINE))


@cache
def code() -> dict[Path, ast.Module]:
    """Every module, parsed, but those that make the example."""
    files = (path for folder in ("services", "shared", "tieout") for path in (ROOT / folder).rglob("*.py"))
    return {path: ast.parse(path.read_text()) for path in files if "deploying" not in path.parts}


def test_the_file_is_what_the_settings_say() -> None:
    assert EXAMPLE.read_text() == text(), "run `make docs`"


def test_every_variable_has_a_meaning_and_stands_once() -> None:
    found = [one for part in parts() for one in part.variables]
    assert len({one.name for one in found}) == len(found)
    assert [one.name for one in found if len(one.meaning) < 5] == []


def test_every_variable_that_the_code_names_is_in_the_example() -> None:
    """Also those that no settings class has: they are string constants somewhere."""
    read = {
        node.value
        for tree in code().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and VARIABLE.fullmatch(node.value)
    }
    beginnings = {name for name in read if name.endswith("_")} | BEGINNINGS | NOT_DEPLOYED
    assert read - named() - beginnings == set()


def test_every_variable_of_the_example_is_read() -> None:
    """By a settings class, by the compose file, or as a constant of the code."""
    fields = {one.name for part in parts() for one in part.variables if part.title != "compose itself"}
    interpolated = set(re.findall(r"\$\{([A-Z_]+)", (COMPOSE / "compose.yaml").read_text()))
    assert named() - fields - interpolated == set()
    source = "".join(path.read_text() for path in code())
    run_time = next(part for part in parts() if part.title.startswith("commands")).variables
    assert [one.name for one in run_time if one.name not in source] == []


def test_every_settings_class_is_known() -> None:
    """A class in another module than `settings` would be missing in the example."""
    known = {each.__name__ for _, each in settings_classes()} | {"SecretFileSettings"}
    found = {
        node.name
        for tree in code().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        & {"BaseSettings", "ServiceSettings", "SecretFileSettings"}
    }
    assert found - known == set()


def test_the_compose_file_interpolates_only_what_the_example_names() -> None:
    interpolated = set(re.findall(r"\$\{([A-Z_]+)", (COMPOSE / "compose.yaml").read_text()))
    assert interpolated - named() == set()


def compose() -> dict:
    return yaml.safe_load((COMPOSE / "compose.yaml").read_text())


def test_the_compose_file_gives_services_only_variables_that_they_read() -> None:
    given = {
        name
        for service in (
            "topics",
            "migrate",
            "ingest",
            "matcher",
            "alerts",
            "reconciliation-service",
            "exchange-snapshots",
        )
        for name in compose()["services"][service].get("environment", {})
    }
    assert given - named() == set()


@pytest.mark.parametrize("service", ["ingest", "matcher", "alerts"])
def test_services_are_hardened_and_wait_for_what_they_need(service: str) -> None:
    one = compose()["services"][service]
    assert (one["read_only"], one["cap_drop"], one["security_opt"]) == (True, ["ALL"], ["no-new-privileges:true"])
    assert one["depends_on"]["topics"] == {"condition": "service_completed_successfully"}
    assert ("migrate" in one["depends_on"]) == (service == "alerts")


def test_third_party_images_are_pinned_by_version() -> None:
    text_ = (COMPOSE / "compose.yaml").read_text()
    images = [re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", one) for one in re.findall(r"image: (\S+)", text_)]
    foreign = [one for one in images if "tieout-" not in one]
    assert len(foreign) == 5
    assert [one for one in foreign if not re.search(r":v?\d+\.\d+", one)] == []


def test_secrets_are_files_and_not_variables() -> None:
    secrets = compose()["secrets"]
    made = (COMPOSE / "prepare.sh").read_text()
    assert all(set(one) == {"file"} for one in secrets.values())
    assert [name for name in secrets if f"keep {name}" not in made] == []

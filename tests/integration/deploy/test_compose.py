"""Goal: compose itself reads the file, with and without a .env, with every profile; and its secrets are made once."""

import os
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest

from tieout.deploying.env_example import COMPOSE

PROFILES = ("observability", "external")


def compose() -> list[str]:
    """`docker compose`, or the program `docker-compose` alone: `config` needs no engine."""
    alone = shutil.which("docker-compose", path=os.environ.get("COMPOSE_BIN")) or shutil.which("docker-compose")
    if alone:
        return [alone]
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0:
        return [docker, "compose"]
    reason = "docker compose is not here, so compose.yaml is checked as YAML only: set COMPOSE_BIN to its folder"
    warnings.warn(f"NOT CHECKED: {reason}", stacklevel=2)
    pytest.skip(reason)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the folder, as `make up` leaves it the first time."""
    copied = tmp_path / "deploy" / "compose"
    shutil.copytree(COMPOSE, copied, ignore=shutil.ignore_patterns("secrets", "bots", ".env"))
    prepare(copied)
    return copied


def prepare(folder: Path) -> str:
    return subprocess.run([folder / "prepare.sh"], capture_output=True, text=True, check=True).stdout


def config(folder: Path, *profiles: str) -> str:
    chosen = [part for profile in profiles for part in ("--profile", profile)]
    command = [*compose(), "--file", str(folder / "compose.yaml"), *chosen, "config"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_compose_reads_the_file_with_every_profile(folder: Path) -> None:
    shown = config(folder, *PROFILES)
    for service in ("kafka", "postgres", "topics", "migrate", "ingest", "matcher", "alerts", "prometheus", "grafana"):
        assert re.search(rf"^  {service}:$", shown, re.MULTILINE)
    assert not re.search("^  prometheus:$", config(folder), re.MULTILINE)


def test_every_default_of_the_example_can_be_written_out(folder: Path) -> None:
    """Taking every # away changes nothing that compose refuses, and no secret gets into the environment."""
    env = folder / ".env"
    env.write_text(re.sub(r"^#([A-Z])", r"\1", env.read_text(), flags=re.MULTILINE))
    shown = config(folder, *PROFILES)
    secrets = [path.read_text().strip() for path in (folder / "secrets").iterdir() if path.name != "webhook_secrets"]
    assert [one for one in secrets if one in shown] == []


def test_secrets_are_made_once_and_kept(folder: Path) -> None:
    made = {path.name: path.read_text() for path in (folder / "secrets").iterdir()}
    assert prepare(folder) == ""
    assert {path.name: path.read_text() for path in (folder / "secrets").iterdir()} == made
    assert made["postgres_password"] in made["database_url"]
    assert (folder / "secrets").stat().st_mode & 0o077 == 0
    (folder / "secrets" / "daily_token").unlink()
    (folder / "secrets" / "daily_token").mkdir()  # what an engine leaves where a secret is missing
    assert prepare(folder) == "made secrets/daily_token\n"

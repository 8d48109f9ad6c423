"""Goal: the Dockerfile keeps its promises by its text; tests/containers holds the built images to them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tieout.deploying.env_example import ROOT
from tieout.locks import LOCKS

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
SERVICES = {"ingest": 8080, "matcher": 8082, "alerts": 8081}


def stages() -> dict[str, str]:
    parts = re.split(r"^FROM \S+ AS (\w+)$", DOCKERFILE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9_.-]+)==([^\s;\\]+)", (ROOT / "locks" / f"{lock}.txt").read_text(), re.MULTILINE))


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_runs_as_a_fixed_user_and_says_how_it_is(service: str) -> None:
    stage = stages()[service]
    assert "USER 10001:10001" in stage
    assert re.search(r"^HEALTHCHECK .*shared\.telemetry\.probe", stage, re.MULTILINE)
    assert f"EXPOSE {SERVICES[service]}" in stage
    assert f"TIEOUT_HTTP_PORT={SERVICES[service]}" in stage
    assert 'org.opencontainers.image.title="tieout ' in stage


def test_every_lock_is_installed_by_its_hashes_and_only_in_its_own_image() -> None:
    for name, stage in stages().items():
        used = set(re.findall(r"/build/locks/(\w+)\.txt", stage))
        assert used == ({"matcher"} if name == "runtime" else {name} & (LOCKS.keys() - {"matcher"}))
        assert stage.count("pip sync") == stage.count("--require-hashes --compile-bytecode /build/locks/")


@pytest.mark.parametrize("lock", sorted(LOCKS.keys() - {"matcher", "dev"}))
def test_the_matcher_s_lock_is_part_of_every_other(lock: str) -> None:
    """It is the layer that all images share: another version would replace it in that image."""
    shared, own = pins("matcher"), pins(lock)
    assert {name for name in shared.keys() & own.keys() if shared[name] != own[name]} == set()
    assert lock == "bots" or shared.keys() <= own.keys()  # the bots' jobs serve nothing


def test_nothing_but_what_is_copied_gets_into_the_build() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        path
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE.read_text(), re.MULTILINE)
        for path in line.split()[:-1]
    }
    assert {path for path in copied if not path.startswith("locks/")} | {"locks/*.txt"} == allowed


def test_the_linter_finds_nothing() -> None:
    found = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([str(found), str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")

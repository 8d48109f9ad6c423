"""Goal: Helm itself renders the chart with every example, and Kubernetes' own schemas take what comes out.

Needs `helm`, and for the schemas `kubeconform` with KUBERNETES_SCHEMAS naming the folders of the schemas
(docs/deploy.md says how to have them); skips, saying so, where they are not. CI has all of them.
"""

import os
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from tieout.deploying.chart import CHART

EXAMPLES = [None, *sorted((CHART / "values").glob("*.yaml"))]
KUBERNETES = "1.34.0"
"""Helm that is built from its module would otherwise pretend to speak to a very old cluster."""
WORKLOADS = ("Deployment", "StatefulSet")
EXPECTED = {"ingest", "normaliser", "matcher", "alerts", "sink"}


def program(name: str) -> str:
    found = shutil.which(name, path=os.environ.get("HELM_BIN")) or shutil.which(name)
    if found is None:
        leave_out(f"{name} is not here, so the chart is checked by its schema only: set HELM_BIN to its folder")
    return found


def leave_out(reason: str) -> NoReturn:
    """A warning stands in every summary; a skip alone is one letter."""
    warnings.warn(f"NOT CHECKED: {reason}", stacklevel=2)
    pytest.skip(reason)


def render(example: Path | None, *options: str) -> tuple[int, str, str]:
    values = ["--values", str(example)] if example else []
    command = [program("helm"), "template", "t", str(CHART), "--namespace", "tieout", "--kube-version", KUBERNETES]
    done = subprocess.run([*command, *values, *options], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def documents(example: Path | None, *options: str) -> list[dict[str, Any]]:
    code, out, err = render(example, *options)
    assert code == 0, err
    return [one for one in yaml.safe_load_all(out) if one]


def name_of(example: Path | None) -> str:
    return example.stem if example else "defaults"


def test_lint_finds_nothing() -> None:
    done = subprocess.run(
        [program("helm"), "lint", "--strict", str(CHART)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_kubernetes_takes_what_is_rendered(example: Path | None) -> None:
    schemas = os.environ.get("KUBERNETES_SCHEMAS")
    conform = program("kubeconform")
    if not schemas:
        leave_out("KUBERNETES_SCHEMAS is not set, so nothing is held against the schemas of Kubernetes")
    code, out, err = render(example)
    assert code == 0, err
    places = [part for folder in schemas.split(",") for part in ("-schema-location", folder)]
    done = subprocess.run(
        [conform, "-strict", "-summary", *places], input=out, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "Skipped: 0" in done.stdout) == (0, True), done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_every_pod_is_hardened_and_limited(example: Path | None) -> None:
    found = documents(example)
    pods = [one["spec"]["template"]["spec"] for one in found if one["kind"] in (*WORKLOADS, "Job")]
    for pod in pods:
        (container,) = pod["containers"]
        assert pod["automountServiceAccountToken"] is False
        assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, 10001)
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
        assert "memory" in container["resources"]["limits"]
        # Every variable is given once: of two the later would silently win.
        names = [one["name"] for one in container["env"]]
        assert len(names) == len(set(names))
    workloads = {one["metadata"]["labels"]["app.kubernetes.io/component"] for one in found if one["kind"] in WORKLOADS}
    assert workloads == EXPECTED


def test_scaling_is_capped_at_the_partitions_and_only_where_keda_is_on() -> None:
    few = ("--set", "topics.partitions=3,topics.inboxPartitions=2")
    scaled = {one["metadata"]["name"]: one["spec"] for one in documents(None, *few) if one["kind"] == "ScaledObject"}
    limits = {name: (one["minReplicaCount"], one["maxReplicaCount"]) for name, one in scaled.items()}
    assert limits == {"t-tieout-matcher": (2, 3), "t-tieout-normaliser": (2, 2), "t-tieout-sink": (2, 3)}
    for one in documents(None, *few):
        if one["kind"] in WORKLOADS:
            assert ("replicas" in one["spec"]) != (one["metadata"]["name"] in scaled)
    assert not [one for one in documents(CHART / "values" / "no-keda.yaml") if "keda" in one["apiVersion"]]


def test_matcher_normaliser_and_sink_keep_their_membership() -> None:
    for one in documents(None):
        if one["kind"] != "StatefulSet":
            continue
        (container,) = one["spec"]["template"]["spec"]["containers"]
        given = {variable["name"]: variable for variable in container["env"]}
        assert given["POD_NAME"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
        assert given["TIEOUT_GROUP_INSTANCE_ID"]["value"] == "$(POD_NAME)"
        assert given["TIEOUT_SINK_INSTANCE_ID"]["value"] == "$(POD_NAME)"


def test_a_changed_rule_runs_its_job_again_and_unchanged_ones_do_not() -> None:
    def checksum(rules: str) -> str:
        given = ("--set-json", f'rules.packs=[{{"org":"acme","name":"billing","rules":"{rules}"}}]')
        jobs = [one for one in documents(None, *given) if one["metadata"]["name"] == "t-tieout-rules-0"]
        return str(jobs[0]["spec"]["template"]["metadata"]["annotations"]["checksum/rules"])

    assert checksum("version: 1") == checksum("version: 1") != checksum("version: 2")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("kafka.securityProtocol=TLS", "securityProtocol"),
        ("topics.partitions=0", "partitions"),
        ("kafka.securityProtocol=SASL_SSL", "passwordSecret"),
        ("config.TIEOUT_MATCHR_GROUP=x", "TIEOUT_MATCHR_GROUP"),
        ("replicaCount=3", "replicaCount"),
    ],
)
def test_a_wrong_value_is_refused_before_anything_is_installed(wrong: str, says: str) -> None:
    code, _, err = render(None, "--set", wrong)
    assert (code, says in err) == (1, True), err

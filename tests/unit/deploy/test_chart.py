"""Goal: the chart can be trusted without a cluster. What needs `helm` is in tests/integration/deploy."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from services.alerts.app import ROLES
from services.ingest.settings import Role as IngestRole
from tieout.deploying.chart import CHART, README, SCHEMA, readme, schema

TEMPLATES = sorted(path for path in (CHART / "templates").iterdir())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
FILES = sorted((CHART / "values").glob("*.yaml"))
# `$w` of a template holds a workload's own settings over the defaults.
OF_A_WORKLOAD = set(VALUES["defaults"])


def leaves(values: Any, path: str = "") -> Iterator[str]:
    if isinstance(values, dict) and values:
        for name, value in values.items():
            yield from leaves(value, f"{path}.{name}" if path else name)
    else:
        yield path


def references() -> set[str]:
    """Every path below .Values that a template names, also by way of a variable that holds a part of them."""
    found: set[str] = set()
    for path in TEMPLATES:
        written = path.read_text()
        names = dict(re.findall(r"\$(\w+) := (?:\$|\.root)?\.Values\.?([\w.]*)", written))
        found |= set(re.findall(r"\.Values\.([A-Za-z][\w.]*)", written))
        for name, part in names.items():
            found |= {f"{part}.{one}".strip(".") for one in re.findall(rf"\${name}\.([A-Za-z][\w.]*)", written)}
    return found


def test_every_value_is_read_by_a_template() -> None:
    named = references()
    of_workloads = {
        one.removeprefix("w.") for path in TEMPLATES for one in re.findall(r"\$(w\.[\w.]+)", path.read_text())
    }
    unread = []
    for leaf in leaves(VALUES):
        if leaf.startswith("defaults."):
            own = leaf.removeprefix("defaults.")
            if not any(own == one or own.startswith(f"{one}.") for one in of_workloads):
                unread.append(leaf)
        elif not leaf.startswith("workloads.") and not any(leaf == one or leaf.startswith(f"{one}.") for one in named):
            unread.append(leaf)
    assert unread == []


def test_every_value_that_a_template_reads_exists() -> None:
    def exists(path: str) -> bool:
        at: Any = VALUES
        for part in path.split("."):
            # Below an empty map or in a list anything may be given, as far as the schema allows.
            if at == {} or isinstance(at, list):
                return True
            if not isinstance(at, dict) or part not in at:
                return False
            at = at[part]
        return True

    assert [one for one in references() if not exists(one)] == []


def test_workloads_have_only_settings_that_all_have() -> None:
    assert [name for name, own in VALUES["workloads"].items() if set(own) - OF_A_WORKLOAD] == []


def test_the_workloads_together_have_every_role_of_every_service() -> None:
    """A role that no pod has would silently do nothing."""
    workloads = (CHART / "templates" / "_helpers.tpl").read_text()
    given = {
        role for args in re.findall(r"args: \[alerts, (.*?)\]", workloads) for role in re.findall(r"--role=(\w+)", args)
    }
    assert given == set(ROLES)
    given = {
        role for args in re.findall(r"args: \[ingest, (.*?)\]", workloads) for role in re.findall(r"--role=(\w+)", args)
    }
    assert given == {role.value for role in IngestRole} - {"all"}


def check(values: dict[str, Any]) -> list[str]:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    return [error.json_path for error in validator.iter_errors(values)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_example_values_are_valid(path: Path) -> None:
    assert check(merged(VALUES, yaml.safe_load(path.read_text()))) == []


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """As helm does it: maps are merged, everything else replaced."""
    both = {**base, **over}
    return both | {
        name: merged(base[name], value)
        for name, value in over.items()
        if isinstance(value, dict) and isinstance(base.get(name), dict)
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"kafka": {"securityProtocol": "TLS"}},
        {"kafka": {"securityProtocol": "SASL_SSL"}},
        {"kafka": {"bootstrapServers": "kafka"}},
        {"topics": {"partitions": 0}},
        {"database": {"urlSecret": ""}},
        {"config": {"TIEOUT_MATCHR_GROUP": "x"}},
        {"config": {"TIEOUT_COMMIT_INTERVAL_MS": 50}},
        {"workloads": {"matchers": {"replicas": 2}}},
        {"workloads": {"matcher": {"replicas": -1}}},
        {"reconciliation": {"dailyRunTime": "2 am"}},
        {"replicaCount": 2},
    ],
    ids=json.dumps,
)
def test_a_wrong_value_is_refused(wrong: dict[str, Any]) -> None:
    assert check(merged(VALUES, wrong)) != []


def test_every_value_has_a_type_in_the_schema() -> None:
    """A value that the schema does not know would be refused; one of any type would be checked by nobody."""
    document = json.loads(SCHEMA.read_text())

    def at(path: str) -> dict[str, Any]:
        node = document
        for part in path.split("."):
            if "properties" not in node:
                return node
            node = node["properties"][part]
            if "$ref" in node:
                node = document["$defs"][node["$ref"].rpartition("/")[2]]
        return node

    assert [one for one in leaves(VALUES) if not {"type", "enum", "anyOf"} & set(at(one))] == []


def test_readme_and_schema_are_made_from_the_values() -> None:
    assert README.read_text() == readme(), "run `make docs`"
    assert SCHEMA.read_text() == schema(), "run `make docs`"


def test_alert_rules_and_dashboard_are_the_ones_of_compose() -> None:
    """Links: there is one copy of each."""
    for name, source in (("alerts.yaml", "prometheus"), ("reconciliation.json", "grafana")):
        assert (CHART / "files" / name).resolve() == CHART.parents[1] / source / name
    mounted = (CHART.parents[1] / "compose" / "compose.yaml").read_text()
    assert "../prometheus/alerts.yaml:" in mounted
    assert "../grafana:" in mounted

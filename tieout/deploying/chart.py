"""Writes what the chart says about its values: README.md from values.yaml, and the variables that `config` may name.

`python -m tieout.deploying.chart` writes them, `--check` refuses what is out of date.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tieout.deploying.env_example import ROOT, settings_classes, variables_of

CHART: Final = ROOT / "deploy" / "helm" / "tieout"
README: Final = CHART / "README.md"
SCHEMA: Final = CHART / "values.schema.json"

GIVEN_BY_THE_CHART: Final = re.compile(
    r"TIEOUT_(KAFKA_(BOOTSTRAP|SECURITY|SASL|SSL|TOPIC)|DATABASE_(URL|ROLE)|HTTP_|LOG_|OTEL_|ENVIRONMENT|INGEST_ROLE"
    r"|GROUP_INSTANCE_ID|SINK_INSTANCE_ID|POLLERS_FILE|CORRECTIONS_FILE|WEBHOOK_SECRETS_FILE)|RECONCILIATION_|EXCHANGE_"
)
"""Values of their own say these, or they make no sense in a pod."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the chart."""

    path: str
    default: str
    meaning: str


def values() -> Iterator[Value]:
    """Every value that has a comment, and each below it that has none with its parent's."""
    comment: list[str] = []
    folders: list[tuple[int, str]] = []
    given = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    for line in (CHART / "values.yaml").read_text(encoding="utf-8").splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped.lstrip("# "))
            continue
        found = re.match(r"^( *)([A-Za-z]\w*):", line)
        if found:
            indent, name = len(found[1]), found[2]
            folders = [*(each for each in folders if each[0] < indent), (indent, name)]
            if comment:
                path = ".".join(each for _, each in folders)
                yield Value(path, _shown(_at(given, path)), " ".join(comment))
        comment = []


def _at(given: Any, path: str) -> Any:
    for part in path.split("."):
        given = given[part]
    return given


def _shown(value: Any) -> str:
    return "see below" if isinstance(value, dict) and len(json.dumps(value)) > 120 else json.dumps(value)


def readme() -> str:
    """The chart's README."""
    rows = "\n".join(f"| `{one.path}` | `{one.default}` | {one.meaning} |" for one in values())
    files = "\n".join(f"| `{path.name}` | {_first_line(path)} |" for path in sorted((CHART / "values").glob("*.yaml")))
    return f"""# Chart tieout

Made by `make docs` from `values.yaml`: do not edit. How it is used: [docs/deploy.md](../../../docs/deploy.md).

```
helm install tieout deploy/helm/tieout -n tieout --create-namespace -f deploy/helm/tieout/values/small.yaml
```

| example | for |
| --- | --- |
{files}

## Values

A wrong value is refused by `values.schema.json` before anything is installed.

| value | default | meaning |
| --- | --- | --- |
{rows}
"""


def _first_line(path: Path) -> str:
    sentences: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        sentences.append(line.lstrip("# "))
    return " ".join(sentences)


def schema() -> str:
    """The schema with the names that `config` may have."""
    document = json.loads(SCHEMA.read_text(encoding="utf-8"))
    document["$defs"]["config"]["propertyNames"]["enum"] = sorted(configurable())
    return json.dumps(document, indent=2) + "\n"


def configurable() -> set[str]:
    """Variables that `config` may hold: settings that no value of the chart gives, secrets excepted."""
    found = {one.name for _, settings in settings_classes() for one in variables_of(settings)}
    return {name for name in found if not GIVEN_BY_THE_CHART.match(name)}


def main() -> int:
    """Write the files, or with `--check` compare them."""
    made = {README: readme(), SCHEMA: schema()}
    if "--check" not in sys.argv[1:]:
        for path, text in made.items():
            path.write_text(text, encoding="utf-8")
            print(path.relative_to(ROOT))
        return 0
    late = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in late:
        print(f"{path.relative_to(ROOT)} is out of date: run `make docs`", file=sys.stderr)
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main())

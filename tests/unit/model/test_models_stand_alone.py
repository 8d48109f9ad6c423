"""An oracle that shares code with what it judges shares its mistakes."""

import ast
from pathlib import Path

import pytest

MODELS = sorted((Path(__file__).parents[2] / "model").glob("*.py"))


@pytest.mark.parametrize("path", MODELS, ids=[path.stem for path in MODELS])
def test_a_model_imports_nothing_of_the_product(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])

    assert imported.isdisjoint({"services", "shared", "tieout"})


def test_the_models_are_found() -> None:
    assert {"match_model", "balance_model", "zero_sum_model", "invariant_model"} <= {path.stem for path in MODELS}

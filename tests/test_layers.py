"""Imports point one way: schemas <- verifiers <- factory <- jobs; heavy libraries are loaded where they are used."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

import factory

ROOT = Path(factory.__file__).parents[1]
LAYERS = ("schemas", "verifiers", "factory", "jobs")
HEAVY = ("ray", "vllm", "torch", "transformers", "datasets")


def _modules(layer: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / layer).rglob("*.py")):
        yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


@lru_cache(maxsize=1)
def _imports() -> dict[str, set[str]]:
    """Return the absolute names that each module of ours imports anywhere in its text, functions included."""
    found: dict[str, set[str]] = {}
    for layer in LAYERS:
        for module, path in _modules(layer):
            names = found.setdefault(module, set())
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names |= {name.name for name in node.names}
                elif isinstance(node, ast.ImportFrom):
                    assert node.level == 0, f"{module} imports relatively"
                    assert node.module is not None
                    names.add(node.module)
    return found


def _importers(package: str) -> set[str]:
    return {module for module, names in _imports().items() if any(name.partition(".")[0] == package for name in names)}


@pytest.mark.parametrize("layer", LAYERS)
def test_no_module_imports_from_a_layer_above_its_own(layer: str) -> None:
    above = set(LAYERS[LAYERS.index(layer) + 1 :])
    wrong = {
        module: names
        for module, names in _imports().items()
        if module.partition(".")[0] == layer and {name.partition(".")[0] for name in names} & above
    }
    assert not wrong


def test_only_the_modules_that_are_meant_to_import_ray_and_vllm() -> None:
    ray = {module for module in _importers("ray") if not module.startswith("jobs")}
    assert ray <= {"factory.actors", "factory.metrics"}
    vllm = {module for module in _importers("vllm") if not module.startswith("jobs.demo_teacher.")}
    assert vllm <= {"factory.teachers.vllm", "jobs.bench.saturation"}


def test_nothing_that_is_published_imports_the_tests() -> None:
    assert not _importers("tests")


@lru_cache(maxsize=8)
def _loaded_by(statement: str) -> frozenset[str]:
    """Return the top-level packages in ``sys.modules`` of a fresh interpreter after a statement."""
    code = (
        f"import json, sys\n{statement}\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return frozenset(json.loads(done.stdout))


@pytest.mark.parametrize("layer", LAYERS)
def test_importing_a_layer_loads_none_above_it(layer: str) -> None:
    above = set(LAYERS[LAYERS.index(layer) + 1 :])
    assert not _loaded_by(f"import {layer}") & above


@pytest.mark.parametrize("layer", ["schemas", "verifiers", pytest.param("factory", marks=pytest.mark.slow)])
def test_every_module_below_the_jobs_can_be_imported_without_vllm_and_without_those_above(layer: str) -> None:
    modules = [module for module, _ in _modules(layer)]
    loaded = _loaded_by("import " + ", ".join(modules))
    assert not loaded & set(LAYERS[LAYERS.index(layer) + 1 :])
    assert "vllm" not in loaded


@pytest.mark.parametrize(
    "statement",
    [
        "import schemas.problem, schemas.trace, schemas.verdict, schemas.config, schemas.manifest, schemas.errors",
        "import verifiers, verifiers.math, verifiers.readability, verifiers.logic",
        "import factory.store, factory.dispatch, factory.selection, factory.journal, factory.coordinator",
        "import jobs.cli",
    ],
)
def test_what_decides_and_stores_loads_nothing_heavy(statement: str) -> None:
    assert not _loaded_by(statement) & set(HEAVY)

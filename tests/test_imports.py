"""Data flows one way: no module needs, at any time, one that needs it."""

from __future__ import annotations

import ast
import importlib
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import csa_deploy

ROOT = Path(csa_deploy.__file__).parent
MODULES = {
    ".".join(("csa_deploy", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}


@cache
def needed(source: str) -> frozenset[str]:
    """Modules of the package that a source imports at the top or later; not those that only types are read from."""
    tree = ast.parse(source)
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = set[str]()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
        if isinstance(node, ast.ImportFrom):
            names = [
                f"{node.module}.{name}" if f"{node.module}.{name}" in MODULES else str(node.module) for name in names
            ]
        found.update(name for name in names if name in MODULES)
    return frozenset(found)


def test_no_module_needs_one_that_needs_it() -> None:
    graph = {name: needed(path.read_text()) - {name} for name, path in MODULES.items()}
    assert sum(map(len, graph.values())) > 500
    assert list(TopologicalSorter(graph).static_order())
    with pytest.raises(CycleError):
        list(TopologicalSorter({**graph, "csa_deploy.errors": {"csa_deploy.pipeline"}}).static_order())


def test_engines_know_nothing_of_trtexec_and_nothing_knows_the_command_line() -> None:
    for name, path in MODULES.items():
        rooms = {".".join(other.split(".")[:2]) for other in needed(path.read_text())}
        assert not (name.startswith("csa_deploy.engine.") and "csa_deploy.trtexec" in rooms), name
        assert name.startswith(("csa_deploy.cli", "csa_deploy.__main__")) or "csa_deploy.cli" not in rooms, name


@pytest.mark.parametrize(
    "module", sorted(path.stem for path in (Path(csa_deploy.__file__).parents[1] / "benchmarks").glob("[!_]*.py"))
)
def test_every_benchmark_finds_what_it_imports(module: str) -> None:
    """They are run by hand, so a name that moved would not be noticed."""
    assert importlib.import_module(f"benchmarks.{module}").__doc__

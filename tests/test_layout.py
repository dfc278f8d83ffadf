"""What the sources as a whole keep to: one idea stands in one place, under one name."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

import csa_deploy

PACKAGE = Path(csa_deploy.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

SHARED_NAMES = {
    "RULE": "one rewrite per file, which the tables of rules and repairs read by this name",
    "SCHEMA_VERSION": "each document that is written has a version of its own",
}
"""Names that several modules define on purpose, and why."""


def _defined(source: str) -> Iterator[str]:
    """Public classes and upper-case constants of a module."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for name in (n for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)):
            if name.id.isupper():
                yield name.id


def _twice(sources: dict[str, str]) -> dict[str, list[str]]:
    """Name -> the modules that define it, where those are several."""
    places = defaultdict(list)
    for module, source in sources.items():
        for name in dict.fromkeys(_defined(source)):
            if not name.startswith("_"):
                places[name].append(module)
    return {name: modules for name, modules in places.items() if len(modules) > 1}


def test_a_name_means_one_thing() -> None:
    twice = _twice({str(file.relative_to(PACKAGE)): file.read_text() for file in FILES})
    assert {name: modules for name, modules in twice.items() if name not in SHARED_NAMES} == {}
    assert SHARED_NAMES.keys() <= twice.keys(), "a reason without a case"


@pytest.mark.parametrize(
    ("second", "found"),
    [
        ("class Plan: ...", ["Plan"]),
        ("LIMIT: int = 3", ["LIMIT"]),
        ("LEFT, LIMIT = 1, 2", ["LIMIT"]),
        ("class _Plan: ...\n_LIMIT = 3\nlimit = 4\ndef f():\n    LIMIT = 5", []),
        ("from first import Plan, LIMIT", []),
    ],
)
def test_names_are_found_where_they_are_defined(second: str, found: list[str]) -> None:
    assert sorted(_twice({"first": "class Plan: ...\nLIMIT = 1", "second": second})) == found

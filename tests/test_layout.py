"""What the sources as a whole keep to: one idea stands in one place, under one name."""

import ast
import re
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


_REPEATED = 6
"""Lines of code in a row that may not stand in two places."""


def _code(source: str) -> list[tuple[int, str]]:
    """Line number and text of what is code: no blank line, comment, docstring, import or signature."""
    left_out: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)) or (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        ):
            left_out.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):  # an interface that several fulfil
            left_out.update(range(node.lineno, node.body[0].lineno))
    lines = ((number, line.strip()) for number, line in enumerate(source.splitlines(), 1))
    return [(n, line) for n, line in lines if line and n not in left_out and not line.startswith("#")]


def _repeated(sources: dict[str, str]) -> list[list[str]]:
    """Places of the same lines in a row, whatever their indentation."""
    places = defaultdict(list)
    for module, source in sources.items():
        code = _code(source)
        for start in range(len(code) - _REPEATED + 1):
            window = tuple(line for _, line in code[start : start + _REPEATED])
            places[window].append(f"{module}:{code[start][0]}")
    return [found for window, found in places.items() if len(found) > 1 and any(map(str.isalnum, "".join(window)))]


def test_no_six_lines_stand_twice() -> None:
    assert _repeated({str(file.relative_to(PACKAGE)): file.read_text() for file in FILES}) == []


_SIX = "\n".join(f"total += weight[{k}] * {k}" for k in range(6))


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (_SIX, True),
        ("def f():\n" + "\n".join("    " + line for line in _SIX.splitlines()), True),
        (_SIX.replace("\n", "\n\n# why\n"), True),
        ("\n".join(_SIX.splitlines()[:5]), False),
        (_SIX.replace("weight[3]", "weight[33]"), False),
    ],
)
def test_repeated_lines_are_found(other: str, found: bool) -> None:
    assert bool(_repeated({"first.py": _SIX, "second.py": other})) is found


def test_the_places_that_contributing_names_are_there() -> None:
    root = PACKAGE.parent
    if not (root / "CONTRIBUTING.md").is_file():
        pytest.skip("not a checkout")
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## To add X")[2].partition("## Rules")[0]
    assert len(re.findall(r"^\| an? ", text, re.MULTILINE)) == 12
    for path in re.findall(r"`([\w/]+(?:/|\.\w+))`", text):
        assert (root / path).exists(), path
    named = re.findall(r"`(\w+)` (?:of|in) `(csa_deploy/[\w/.]+)`", text)
    assert len(named) > 12
    for name, path in named:
        tree = ast.parse((root / path).read_text(encoding="utf-8"))
        keys = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)}
        ids = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        assert name in ids | keys | {getattr(n, "name", None) for n in ast.walk(tree)}, (name, path)

"""The rooms of the package: imports point one way, at run time, those inside functions among them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import csa_deploy

PACKAGE = Path(csa_deploy.__file__).parent

# From the bottom to the top; what stands in no line is a leaf, below all of them, but for the entry points.
LAYERS = (
    ("records",),
    ("graph",),
    ("checkpoint", "cluster", "config", "data", "engine", "instance", "runners", "setting_values", "source", "tasks"),
    ("trtexec", "builders"),
    ("restricted", "export", "context"),
    ("precision", "verify", "profile", "repair", "report", "inspection", "split"),
    ("stages",),
    ("pipeline",),
    ("api", "bundle", "confidence", "doctor", "matrix", "policy", "train"),
    ("cli",),
    ("__main__",),
)
RANK = {room: rank for rank, layer in enumerate(LAYERS, 1) for room in layer}

Edges = dict[str, dict[str, str]]
"""Room -> room that it imports -> a file that does."""


def edges_of(package: Path) -> Edges:
    """What every room imports at run time; the package's own ``__init__`` is no room."""
    found: Edges = {}
    for file in sorted(package.rglob("*.py")):
        relative = file.relative_to(package)
        room = relative.parts[0].removesuffix(".py")
        for module in imported(ast.parse(file.read_text(encoding="utf-8")), package) if room != "__init__" else ():
            if module != room:
                found.setdefault(room, {}).setdefault(module, str(relative))
    return found


def imported(tree: ast.AST, package: Path) -> Iterator[str]:
    """Rooms that a module names in imports, but for those that only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            head, *rest = node.module.split(".")
            if head == package.name:
                names = rest[:1] or [alias.name for alias in node.names]
                yield from (name for name in names if (package / name).is_dir() or (package / f"{name}.py").is_file())
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith(f"{package.name}."))
        yield from imported(node, package)


def circle(edges: Edges) -> list[str]:
    """Rooms that import each other in a circle; none where there is no circle."""
    try:
        TopologicalSorter({room: set(targets) for room, targets in edges.items()}).prepare()
    except CycleError as error:
        return [str(room) for room in error.args[1]]
    return []


def upward(edges: Edges) -> list[str]:
    """Imports of a room that stands higher, with the file."""
    return [
        f"{file}: {room} -> {target}"
        for room, targets in edges.items()
        for target, file in targets.items()
        if RANK.get(target, 0) > RANK.get(room, 0)
    ]


def test_imports_between_rooms_point_down_and_in_no_circle() -> None:
    edges = edges_of(PACKAGE)
    assert circle(edges) == []
    assert upward(edges) == []


def test_every_named_room_is_there() -> None:
    """A room that was renamed would silently become a leaf."""
    there = {path.stem for path in PACKAGE.iterdir()}
    assert set(RANK) <= there


@pytest.mark.parametrize(
    ("text", "circles", "points_up"),
    [
        ("from csa_deploy.graph import a", False, False),
        ("def f():\n    from csa_deploy.pipeline import run", True, True),
        ("import csa_deploy.pipeline", True, True),
        ("from csa_deploy import pipeline", True, True),
        ("if TYPE_CHECKING:\n    from csa_deploy.pipeline import run", False, False),
    ],
)
def test_a_planted_import_is_found(tmp_path: Path, text: str, circles: bool, points_up: bool) -> None:
    package = tmp_path / "csa_deploy"
    for name, content in {
        "verify/a.py": text,
        "pipeline.py": "from csa_deploy.verify import a",
        "graph/a.py": "",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(content)
    edges = edges_of(package)
    assert (bool(circle(edges)), bool(upward(edges))) == (circles, points_up)

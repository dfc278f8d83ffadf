"""Every test can fail by what it finds, not only by an exception on the way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def called(node: ast.AST) -> Iterator[ast.Call]:
    return (inner for inner in ast.walk(node) if isinstance(inner, ast.Call))


def name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def decides(function: ast.AST) -> bool:
    """Whether a function states by itself what has to hold."""
    if any(isinstance(node, ast.Assert) for node in ast.walk(function)):
        return True
    return any(
        name_of(call).startswith("assert_")  # numpy.testing
        or any(key.arg == "check" and ast.unparse(key.value) == "True" for key in call.keywords)  # an exit code
        for call in called(function)
    )


def undecided(sources: dict[str, str]) -> list[str]:
    """Tests that state nothing. A helper that states something counts for those that call it by name."""
    functions = {
        (path, node.name): node
        for path, source in sources.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef)
    }
    calls = {key: {name_of(call) for call in called(node)} for key, node in functions.items() if not decides(node)}
    deciding = {"raises", "fail", "warns"} | {name for path, name in functions if (path, name) not in calls}
    deciding -= {name for name in deciding if name.startswith("test_")}
    while more := {key for key, names in calls.items() if names & deciding}:
        deciding |= {name for _, name in more if not name.startswith("test_")}
        calls = {key: names for key, names in calls.items() if key not in more}
    return [f"{path}: {name}" for path, name in calls if name.startswith("test_")]


def test_each_states_what_has_to_hold() -> None:
    sources = {str(path.relative_to(TESTS)): path.read_text() for path in TESTS.rglob("*.py")}
    assert len(sources) > 100 and undecided(sources) == []


@pytest.mark.parametrize(
    ("body", "fails"),
    [
        ("assert run() == 1", True),
        ("run()", False),
        ("with pytest.raises(ValueError): run()", True),
        ("helper()", True),
        ("outer()", True),
        ("subprocess.run(['x'], check=True)", True),
        ("subprocess.run(['x'], check=False)", False),
        ("np.testing.assert_allclose(run(), 1)", True),
    ],
)
def test_what_counts(body: str, fails: bool) -> None:
    helpers = "def helper():\n    assert True\n\ndef outer():\n    helper()\n\ndef run():\n    return 1\n\n"
    assert undecided({"t.py": f"{helpers}def test_it():\n    {body}\n"}) == ([] if fails else ["t.py: test_it"])

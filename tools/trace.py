"""Writes csa_deploy/confidence/tests.json: which test shows what, as its mark ``shows`` says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from csa_deploy.confidence.trace import TRACE, ShowingTest, Trace
from csa_deploy.results import dump_json

TESTS = Path(__file__).resolve().parents[1] / "tests"


def traced(sources: dict[str, str]) -> Trace:
    """The trace of test files: path -> source. The mark stands at each function: nothing is imported or collected."""
    found = [test for path, source in sorted(sources.items()) for test in _marked(path, source)]
    return Trace({test.id: test for test in found})


def _marked(path: str, source: str) -> Iterator[ShowingTest]:
    for node in ast.walk(ast.parse(source)) if "pytest.mark.shows" in source else ():
        if not isinstance(node, ast.FunctionDef):
            continue
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.shows":
                shows = tuple(ast.literal_eval(word) for word in mark.args)
                needs = next((ast.literal_eval(key.value) for key in mark.keywords if key.arg == "needs"), "")
                yield ShowingTest(f"{path}::{node.name}", shows, needs)


def sources_of_tests(folder: Path = TESTS) -> dict[str, str]:
    """Path from the root of the project -> source, of every file of tests."""
    files = sorted(folder.rglob("test_*.py"))
    return {path.relative_to(folder.parent).as_posix(): path.read_text(encoding="utf-8") for path in files}


if __name__ == "__main__":
    TRACE.write_text(dump_json(traced(sources_of_tests()).to_json()), encoding="utf-8")

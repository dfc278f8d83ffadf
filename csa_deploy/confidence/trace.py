"""Which test shows what: read, linked in both directions, and written for LOBSTER."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from csa_deploy.confidence.schema import ToolConfidence

TRACE = Path(__file__).with_name("tests.json")
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ShowingTest:
    """A test function that shows something.

    Attributes:
        id: as pytest names it, without parameters: ``tests/graph/test_proof.py::test_x``.
        shows: ids of measures and errors.
        needs: what it is skipped without, in words; empty: it always runs.
    """

    id: str
    shows: tuple[str, ...]
    needs: str = ""


@dataclass(frozen=True)
class Trace:
    """All of them, by id of the test."""

    tests: Mapping[str, ShowingTest]

    def of(self, name: str) -> list[ShowingTest]:
        """The tests that show a measure or an error."""
        return [test for test in self.tests.values() if name in test.shows]

    def to_json(self) -> dict[str, Any]:
        """Both directions; the form of ``tests.json`` and of the kit's ``trace.json``."""
        names = sorted({name for test in self.tests.values() for name in test.shows})
        tests = {
            test.id: {"shows": list(test.shows), **({"needs": test.needs} if test.needs else {})}
            for test in sorted(self.tests.values(), key=lambda test: test.id)
        }
        return {
            "schema_version": SCHEMA_VERSION,
            "tests": tests,
            "ids": {name: sorted(test.id for test in self.of(name)) for name in names},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Trace:
        """Read what :meth:`to_json` gave."""
        return cls(
            {name: ShowingTest(name, tuple(t["shows"]), t.get("needs", "")) for name, t in data["tests"].items()}
        )


@lru_cache(maxsize=1)
def packaged_trace() -> Trace:
    """The trace of this version's tests."""
    return Trace.from_json(json.loads(TRACE.read_text(encoding="utf-8")))


def broken_links(confidence: ToolConfidence, trace: Trace) -> Iterator[str]:
    """What is not linked as it has to be, a line each."""
    yield from _broken_owners(confidence, trace)
    yield from _bare(confidence, trace)
    told = {name for error in confidence.errors for name in error.past}
    for problem in confidence.problems.problems:
        if problem.symptom == "wrong-result" and problem.id not in told:
            yield f"known problem {problem.id} belongs to no error"


def _bare(confidence: ToolConfidence, trace: Trace) -> Iterator[str]:
    """What lacks its counterpart: error, measure or test."""
    for use_case in confidence.use_cases:
        if not confidence.errors_of(use_case):
            yield f"{use_case.id} has no potential error"
    for error in confidence.errors:
        if not any(confidence.measure(name).kind != "duty" for name in error.measures if name in _ids(confidence)):
            yield f"{error.id} has no measure inside the tool"
        if error.detection == "TD1" and not trace.of(error.id):
            yield f"{error.id} claims TD1, and no test brings the error about"
    for measure in confidence.measures:
        if measure.kind != "duty" and not trace.of(measure.id):
            yield f"{measure.id} has no test"
        if not confidence.errors_against(measure):
            yield f"{measure.id} is against no error"


def _ids(confidence: ToolConfidence) -> list[str]:
    cases, errors = ([item.id for item in items] for items in (confidence.use_cases, confidence.errors))
    return [*cases, *errors, *(measure.id for measure in confidence.measures)]


def _broken_owners(confidence: ToolConfidence, trace: Trace) -> Iterator[str]:
    """Ids that are used and not defined, or defined twice."""
    ids = _ids(confidence)
    yield from (f"{name} is defined twice" for name in sorted({name for name in ids if ids.count(name) > 1}))
    problems = {problem.id for problem in confidence.problems.problems}
    used = [(error.id, (error.use_case, *error.measures)) for error in confidence.errors]
    used += [(test.id, test.shows) for test in trace.tests.values()]
    for user, names in used:
        yield from (f"{user} names {name}, which nobody defines" for name in names if name not in ids)
    for error in confidence.errors:
        yield from (f"{error.id} names the problem {n}, which is not listed" for n in error.past if n not in problems)


def lobster_files(confidence: ToolConfidence, trace: Trace, status: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The same for LOBSTER: errors and measures as requirements, tests as activities that refer to them.

    Args:
        confidence: what there is to show.
        trace: what shows it.
        status: of a test, in LOBSTER's words: ``ok``, ``fail`` or ``not run``.
    """
    duty = ["a duty of the user: its record shows it"]
    requirements = [_requirement(error.id, error.title, "potential error", "errors") for error in confidence.errors]
    for measure in confidence.measures:
        refs = [f"req {error.id}" for error in confidence.errors_against(measure)]
        found = _requirement(measure.id, measure.title, measure.kind, "measures")
        requirements.append({**found, "refs": refs, "just_down": duty if measure.kind == "duty" else []})
    activities = [
        {
            **_item(f"pytest {test.id}", test.id.rpartition("::")[2], test.id.partition("::")[0]),
            "refs": [f"req {name}" for name in test.shows],
            "framework": "pytest",
            "kind": "test",
            "status": status.get(test.id, "not run"),
        }
        for test in trace.tests.values()
    ]
    return {
        "requirements.lobster": _lobster("lobster-req-trace", 4, requirements),
        "tests.lobster": _lobster("lobster-act-trace", 3, activities),
    }


def _lobster(schema: str, version: int, data: list[dict[str, Any]]) -> dict[str, Any]:
    return {"data": data, "generator": "csa-deploy", "schema": schema, "version": version}


def _item(tag: str, name: str, file: str) -> dict[str, Any]:
    nothing: dict[str, list[str]] = {"refs": [], "just_up": [], "just_down": [], "just_global": []}
    location = {"kind": "file", "file": file, "line": None, "column": None}
    return {"tag": tag, "name": name, "location": location, **nothing}


def _requirement(name: str, title: str, kind: str, file: str) -> dict[str, Any]:
    item = _item(f"req {name}", name, f"csa_deploy/confidence/facts/{file}.toml")
    return {**item, "framework": "csa-deploy", "kind": kind, "text": title, "status": None}

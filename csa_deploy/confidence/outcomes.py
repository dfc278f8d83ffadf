"""The results of a run of the tests, from the JUnit XML that pytest writes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from csa_deploy.confidence.trace import ShowingTest, Trace
from csa_deploy.errors import UsageError
from csa_deploy.validation import read_xml
from csa_deploy.workspace import sha256_of

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

Outcome = Literal["passed", "failed", "skipped", "not run"]
WORST: tuple[Outcome, ...] = ("failed", "skipped", "passed")
"""What a test with several parameters counts as, when one of them came out so."""

_HOW = "run `pytest --junitxml=results.xml` in the checkout of this version"


@dataclass(frozen=True)
class TestResult:
    """What came out of a test.

    Attributes:
        outcome: over all its parameters.
        cases: parameters that ran or were skipped.
        reason: of a failure or a skip, in a line.
    """

    __test__ = False  # no test of pytest's

    outcome: Outcome = "not run"
    cases: int = 0
    reason: str = ""


@dataclass(frozen=True)
class TestResults:
    """Results by id of the test.

    Attributes:
        source: file that they were read from; empty: none was given.
        when: time of the run, as the file states it.
        found: result of each test of the trace that is in the file.
    """

    __test__ = False

    source: str = ""
    sha256: str = ""
    when: str = ""
    found: Mapping[str, TestResult] = field(default_factory=dict)

    def of(self, test: ShowingTest) -> TestResult:
        """Its result."""
        return self.found.get(test.id, TestResult())

    def count(self, tests: list[ShowingTest]) -> dict[Outcome, int]:
        """Number of tests by outcome; those that occur only."""
        return dict(Counter(self.of(test).outcome for test in tests))


def read_results(path: Path, trace: Trace) -> TestResults:
    """Read JUnit XML, and hold it against the trace.

    Raises:
        UsageError: no such file, no JUnit XML, or of other tests: one shows something else than the trace says.
    """
    root = read_xml(path, "results", missing=_HOW, broken=_HOW)
    cases: dict[str, list[TestResult]] = defaultdict(list)
    for case in root.iter("testcase"):
        name = _test_id(case)
        if name not in trace.tests:
            continue
        said = {p.get("value", "") for p in case.iter("property") if p.get("name") == "shows"}
        result = _result(case)
        # pytest leaves the marks out of a case whose teardown fails as well: what did not pass may lack them
        if (said or result.outcome == "passed") and said != set(trace.tests[name].shows):
            here, there = ", ".join(trace.tests[name].shows), ", ".join(sorted(said)) or "nothing"
            raise UsageError(f"{path}: {name} shows {there} there and {here} here", fix=_HOW)
        cases[name].append(result)
    if not cases:
        raise UsageError(f"{path}: no test of this version's trace is in it", fix=_HOW)
    when = next((suite.get("timestamp", "") for suite in root.iter("testsuite")), "")
    return TestResults(path.name, sha256_of(path), when, {name: _joined(found) for name, found in cases.items()})


def _test_id(case: Element) -> str:
    """``tests/a/test_b.py::test_c`` of the dotted class name and the name with its parameters."""
    file = case.get("classname", "").replace(".", "/")
    return f"{file}.py::{case.get('name', '').partition('[')[0]}"


def _result(case: Element) -> TestResult:
    for tag, outcome in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        if (found := case.find(tag)) is not None:
            return TestResult(outcome, 1, " ".join(found.get("message", "").split()))  # type: ignore[arg-type]
    return TestResult("passed", 1)


def _joined(results: list[TestResult]) -> TestResult:
    outcome = next(outcome for outcome in WORST if any(result.outcome == outcome for result in results))
    reasons = list(dict.fromkeys(r.reason for r in results if r.outcome == outcome and r.reason))
    return TestResult(outcome, len(results), "; ".join(reasons))


def unstated_skips(trace: Trace, results: TestResults) -> Iterator[str]:
    """Tests that were skipped, although the trace does not say what they need."""
    for test in trace.tests.values():
        if results.of(test).outcome == "skipped" and not test.needs:
            yield test.id

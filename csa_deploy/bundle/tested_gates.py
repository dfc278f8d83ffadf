"""The gates of a run as lists of tests that passed, warned or failed, from the records that travel with a bundle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from csa_deploy.records.build import BuildRecord
from csa_deploy.records.check import CheckRecord
from csa_deploy.records.export import ExportRecord
from csa_deploy.records.profile import Profiled
from csa_deploy.records.verify import CandidateRecord, HeldBound, VerifyRecord
from csa_deploy.report.verdict import limit_gate, loadgen_gate

Outcome = Literal["passed", "warned", "failed"]
_OF_STATE: dict[str, Outcome] = {"pass": "passed", "fail": "failed"}
_OF_SCOPE: dict[str, Outcome] = {"allowed": "passed", "with GPU fallback": "passed", "denied": "failed"}


@dataclass(frozen=True)
class TestedGate:
    """What one gate found, in the terms of in-toto's test-result predicate.

    Attributes:
        passed: what holds.
        warned: what is undecided, was not measured, or does not count.
        failed: what does not hold.
    """

    passed: tuple[str, ...]
    warned: tuple[str, ...]
    failed: tuple[str, ...]

    @property
    def result(self) -> Literal["PASSED", "WARNED", "FAILED"]:
        """The worst of its tests."""
        return "FAILED" if self.failed else "WARNED" if self.warned else "PASSED"

    def predicate(self) -> dict[str, Any]:
        """Result and tests as the predicate has them; an empty list is left out."""
        tests = {"passedTests": self.passed, "warnedTests": self.warned, "failedTests": self.failed}
        return {"result": self.result, **{name: list(found) for name, found in tests.items() if found}}


def gate_results(records: Mapping[str, Any], profile: Profiled | None, precision: str) -> dict[str, TestedGate]:
    """Every gate that tested something, by stage.

    Args:
        records: of stages, as plain data.
        precision: of the bundle; engines and graphs of others are left out.
    """
    found: dict[str, list[tuple[Outcome, str]]] = {}
    if "export" in records:
        found["export"] = list(_export(ExportRecord.from_json(records["export"])))
    if "check" in records:
        found["check"] = list(_check(CheckRecord.from_json(records["check"])))
    if "build" in records:
        found["build"] = list(_build(BuildRecord.from_json(records["build"]), precision))
    if "verify" in records:
        found["verify"] = list(_verify(VerifyRecord.from_json(records["verify"]), precision))
    if profile is not None:
        gates = [limit_gate(gate, {}) for gate in profile.gates if precision in gate.label.split()]
        gates += [loadgen_gate(run, {}) for run in profile.loadgen if precision in run.label.split()]
        found["profile"] = [(_OF_STATE.get(gate.state, "warned"), gate.text) for gate in gates]
    return {stage: _result(tests) for stage, tests in found.items() if tests}


def _result(tests: list[tuple[Outcome, str]]) -> TestedGate:
    return TestedGate(
        *(tuple(text for outcome, text in tests if outcome == wanted) for wanted in ("passed", "warned", "failed"))
    )


def _export(record: ExportRecord) -> Iterator[tuple[Outcome, str]]:
    for found in record.differences:
        within: Outcome = "passed" if found.relative <= record.tolerance else "failed"
        where = f"{found.output} on {found.samples} samples of {found.inputs}"
        yield (
            within,
            f"{where}: difference from PyTorch {found.relative:.3g}, at most {record.tolerance:g} of the range",
        )


def _check(record: CheckRecord) -> Iterator[tuple[Outcome, str]]:
    for scope in record.scopes:
        said = f"{scope.scope}: {scope.said} ({scope.level})"
        counts = scope.scope in record.gate
        yield (_OF_SCOPE.get(scope.verdict, "warned"), said) if counts else ("warned", f"{said}, does not count")


def _build(record: BuildRecord, precision: str) -> Iterator[tuple[Outcome, str]]:
    engine = record.engines.get(precision)
    for scope in engine.scopes if engine else ():
        said = f"{scope.scope}: {scope.said} ({scope.level}), {scope.graph}{f', {scope.of}' if scope.of else ''}"
        yield _OF_SCOPE.get(scope.verdict, "warned"), said


def _verify(record: VerifyRecord, precision: str) -> Iterator[tuple[Outcome, str]]:
    for candidate in (c for c in record.candidates if c.precision == precision):
        yield from _candidate(candidate)
    if record.accuracy is not None and record.accuracy.verdict != "not expected":
        yield _OF_STATE.get(record.accuracy.verdict, "warned"), record.accuracy.statement
    if record.partial:
        yield "warned", record.partial
    for item in record.not_measured:
        if item.what == f"engine {precision}":
            yield "warned", f"{item.what} was not compared: {item.reason}"


def _candidate(candidate: CandidateRecord) -> Iterator[tuple[Outcome, str]]:
    counting = [check for check in candidate.checks if check.asked or check.state != "not measured"]
    for check in counting:
        yield _OF_STATE.get(check.state, "warned"), f"{candidate.label}: {_bound(check)}"
    if (batch := candidate.batch) is not None and batch.verdict != "not measured":
        yield _OF_STATE[batch.verdict], f"{candidate.label}: the same in other batches: {batch.statement}"
    broken = batch is not None and batch.verdict == "fail"
    if candidate.verdict == "fail" and not broken and all(check.state != "fail" for check in counting):
        yield "failed", f"{candidate.label}: finite outputs and the network's own preprocessing"


def _bound(check: HeldBound) -> str:
    return f"{check.metric} of {check.output} {'>=' if check.side == 'min' else '<='} {check.bound:g}: {check.value}"

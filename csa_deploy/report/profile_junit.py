"""Limits, baselines and runs of the load generator as JUnit XML, a case each."""

from __future__ import annotations

from typing import Literal

from csa_deploy import junit
from csa_deploy.records.profile import Profiled
from csa_deploy.report.verdict import limit_gate

_OUTCOME: dict[str, Literal["passed", "failure", "skipped"]] = {"pass": "passed", "fail": "failure"}


def profile_as_junit(profiled: Profiled) -> str:
    """A profile's gates; what was not measured or is undecided was skipped."""
    limits = [
        _case(f"{gate.label} {gate.quantity}", gate.verdict, limit_gate(gate, {}).text) for gate in profiled.gates
    ]
    runs = [_case(f"{run.label} {run.scenario}", run.state, run.statement) for run in profiled.loadgen]
    suites = [junit.Suite(name, cases) for name, cases in (("limits", limits), ("load generator", runs)) if cases]
    return junit.document("csa-deploy profile", suites or [junit.Suite("limits", [])])


def _case(name: str, state: str, said: str) -> junit.JUnitCase:
    return junit.JUnitCase(name, _OUTCOME.get(state, "skipped"), said)

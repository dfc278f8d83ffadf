"""What the deployment's gates said, as it travels with a bundle."""

from __future__ import annotations

from dataclasses import dataclass, field

from csa_deploy.errors import (
    AccuracyGateError,
    BuildFailedError,
    CsaDeployError,
    OperationRejectedError,
    PerformanceGateError,
)
from csa_deploy.records.report import GateState
from csa_deploy.report.data import collect
from csa_deploy.results import NOT_JSON, Stored
from csa_deploy.workspace import Workspace

# The error, and so the exit code, of each stage that can fail.
_ERRORS: dict[str, type[CsaDeployError]] = {
    "export": AccuracyGateError,
    "check": OperationRejectedError,
    "optimize": AccuracyGateError,
    "precision": AccuracyGateError,
    "split": OperationRejectedError,
    "build": BuildFailedError,
    "verify": AccuracyGateError,
    "profile": PerformanceGateError,
}
_GATES: dict[str, type[CsaDeployError]] = {
    "restricted mode": OperationRejectedError,
    "latency and memory": PerformanceGateError,
}


@dataclass(frozen=True)
class Verdict(Stored):
    """The verdict of the report, with its reasons.

    Attributes:
        state: ``pass``, ``fail``, or ``incomplete`` where a gate did not run or is undecided.
        reasons: one line for each gate and stage that is not a pass.
        gates: every gate with its state, as the report has them.
        failed: the exit code's exception of the first failure; None without one.
    """

    state: str
    reasons: tuple[str, ...]
    gates: tuple[GateState, ...]
    failed: type[CsaDeployError] | None = field(default=None, compare=False, metadata=NOT_JSON)

    @property
    def text(self) -> str:
        """``FAIL: ...``, in one line."""
        return ": ".join(filter(None, (self.state.upper(), "; ".join(self.reasons))))


def verdict_of(workspace: Workspace) -> Verdict:
    """The verdict of what a workspace holds."""
    found = collect(workspace)
    said, gates = found.verdict, found.verdict.checks
    failed = [_ERRORS[stage.name] for stage in found.stages if stage.state == "failed"]
    failed += [_GATES.get(gate.name, AccuracyGateError) for gate in gates if gate.state == "fail"]
    state = "fail" if failed else said.state
    reasons = [f"{gate.state}: {gate.text}" for gate in gates if gate.state not in ("pass", "not counted")]
    return Verdict(state, (*reasons, *said.reasons), gates, failed[0] if failed else None)


def refuse_failed(verdict: Verdict, where: str) -> None:
    """Raise the failed gate's own error: what it refused is not handed over unless that is asked for."""
    if verdict.failed is not None:
        raise verdict.failed(
            f"{where}: not bundled, a gate failed: {verdict.text}",
            fix="correct what failed, or hand it over all the same with --despite-failure; the bundle says so",
        )

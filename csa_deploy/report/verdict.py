"""The headline: what a pass covers, each gate with its own state and evidence. Gates are never mixed up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from csa_deploy import units
from csa_deploy.records.build import EngineRecord
from csa_deploy.records.loadgen import LoadgenRun
from csa_deploy.records.profile import Gate, Profiled
from csa_deploy.records.report import GateState, Headline, Records
from csa_deploy.records.split import DlaPlacement
from csa_deploy.records.verify import VerifyRecord
from csa_deploy.report.labels import rank

GATE_OF = {"verify": "accuracy", "profile": "latency and memory"}
_OF_SCOPE: dict[str, Literal["pass", "fail"]] = {"allowed": "pass", "with GPU fallback": "pass", "denied": "fail"}


def gate_states(records: Records, profiled: Profiled | None) -> list[GateState]:
    """Every gate.

    Restricted mode counts only where it was asked for, and always with its level of evidence.
    """
    found = [_accuracy(records.verify)] if records.verify else []
    found += _built(records.build.engines) if records.build else []
    measured_by = records.profile.evidence if records.profile else {}
    found += [limit_gate(gate, measured_by) for gate in (profiled.gates if profiled else ())]
    found += [loadgen_gate(run, measured_by) for run in (profiled.loadgen if profiled else ())]
    asked = records.check and (records.check.gate_why or records.check.gate)
    found += [_placed(part) for part in records.split.placements] if records.split and asked else []
    if records.check and not asked:
        text = "restricted mode was checked and does not count: --restricted was not given"
        found.append(GateState("restricted mode", "not counted", text, ""))
    return found


def _accuracy(verified: VerifyRecord) -> GateState:
    by_state: dict[str, list[str]] = {}
    for candidate in verified.candidates:
        by_state.setdefault(candidate.verdict, []).append(candidate.label)
    lacking = [item.what for item in verified.not_measured if item.what.startswith("engine")]
    covered = "; ".join((f"{state}: " if len(by_state) > 1 else "") + ", ".join(by_state[state]) for state in by_state)
    text = f"accuracy budgets on {verified.data.samples} samples: {covered}"
    if lacking:
        text += f"; {', '.join(sorted(lacking, key=rank))} did not run here"
    evidence = f"compared with {verified.reference_name} on {verified.data.name}"
    return GateState("accuracy", verified.verdict, text, evidence)


def _built(engines: Mapping[str, EngineRecord]) -> Iterable[GateState]:
    """One gate per scope, verdict and level, with all graphs that it holds for."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for precision, engine in engines.items():
        for scope in engine.scopes:
            said = (scope.scope, scope.verdict, scope.said, scope.level, scope.of)
            alike.setdefault(said, []).append(precision)
    for (name, verdict, words, level, of), precisions in alike.items():
        listed, what = ", ".join(sorted(precisions, key=rank)), f"({of})" if of else "as built"
        text = f"restricted mode, {listed} {what}: {name} {words} (evidence: {level})"
        yield GateState("restricted mode", _OF_SCOPE.get(verdict, "undecided"), text, level)


def _placed(part: DlaPlacement) -> GateState:
    """The gate of a part that is for a DLA."""
    text = f"restricted mode, {part.part} on its DLA: {part.scope} {part.verdict}, {part.said} (evidence: static)"
    return GateState("restricted mode", _OF_SCOPE.get(part.verdict, "undecided"), text, "static")


def limit_gate(gate: Gate, measured_by: Mapping[str, str]) -> GateState:
    """A limit or a baseline that something was held against, as a gate."""
    text = f"{gate.label} {gate.quantity} "
    if "baseline" in gate.quantity:
        text += against_baseline(gate)
        text += "" if word_of(gate) == gate.verdict else f": {word_of(gate)}"
    else:
        text += f"at most {gate.bound:g}"
        text += "" if gate.value is None else f": {gate.value:g} ({units.span(gate.low, gate.high)})"
    if gate.reason:
        text += f": {gate.reason}"
    evidence = measured_by.get(gate.label, "")
    if gate.quantity.endswith("_mib"):
        evidence = "counted in the file" if gate.value is not None else ""
    return GateState(GATE_OF["profile"], gate.verdict, text, evidence)


def loadgen_gate(run: LoadgenRun, measured_by: Mapping[str, str]) -> GateState:
    """A run of the load generator, as a gate."""
    return GateState(GATE_OF["profile"], run.state, f"{run.label} in {run.statement}", measured_by.get(run.label, ""))


def against_baseline(gate: Gate) -> str:
    """``+10.9 % (99 % interval -1.0 to +20.0 %), allowed 2 %``: a baseline's gate in percent, as people say it."""
    allowed = f"allowed {100 * gate.bound:g} %"
    if gate.value is None:
        return allowed
    between = units.span(gate.low, gate.high, units.slowdown)
    return f"{units.slowdown(gate.value)} % (99 % interval {between} %), {allowed}"


def word_of(gate: Gate) -> str:
    """A gate's verdict in a word that says no more than was shown.

    A baseline's gate fails only where a slow-down is shown. One whose interval reaches beyond the allowed slow-down
    did not fail, but did not show that it is within it either: ``no difference shown``, or ``undecided`` where a
    slow-down is shown and its size is not.
    """
    if "baseline" not in gate.quantity or gate.verdict != "pass":
        return gate.verdict
    if gate.high is not None and gate.high <= 1 + gate.bound:
        return "pass"
    return "no difference shown" if gate.low is not None and gate.low <= 1 else "undecided"


def verdict(passed: Mapping[str, bool], order: Sequence[str], records: Records, profiled: Profiled | None) -> Headline:
    """The headline.

    Args:
        passed: whether each stage that was run passed.
        order: all stages.
    """
    checks = gate_states(records, profiled)
    failed = [name for name in records.done if not passed[name]]
    said = {check.name for check in checks if check.state == "fail"}
    reasons = [f"{name} failed: {records.done[name].summary}" for name in failed if GATE_OF.get(name) not in said]
    missing = [name for name in order if name not in records.done]
    reasons += [f"{name} was not run" for name in missing]
    undecided = any(check.state in ("undecided", "not measured") for check in checks)
    state: Literal["fail", "incomplete", "pass"] = (
        "fail" if failed else "incomplete" if missing or undecided else "pass"
    )
    return Headline(state, tuple(reasons), tuple(checks))

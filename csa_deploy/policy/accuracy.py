"""A policy's accuracy bounds and limits, held against what a deployment measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from csa_deploy import units
from csa_deploy.policy.deployment import Deployment
from csa_deploy.policy.schema import Policy
from csa_deploy.policy.verdict import Requirement
from csa_deploy.profile.gates import limit_gates, memory_of
from csa_deploy.records.build import BuildRecord
from csa_deploy.records.profile import Gate, ProfileRecord
from csa_deploy.records.verify import JudgedCandidate, VerifyRecord
from csa_deploy.verify.judging import Judgement, judge_results

_NOT_COMPARED = "the deployment holds no comparison of every sample: run `csa-deploy verify`, and bundle it anew"
_NOT_TIMED = "the deployment holds no measurements of the profile stage: run `csa-deploy profile`, and bundle it anew"


def accuracy_requirements(policy: Policy, deployment: Deployment) -> Iterator[Requirement]:
    """A requirement for each bound of each output of each graph or engine, judged from the stored samples."""
    wanted = {precision: bounds for precision, bounds in policy.budgets.items() if bounds}
    for precision in wanted:
        if not deployment.has(precision):
            yield Requirement("accuracy", f"{precision} budget", "not applicable", f"it is {deployment.precision}")
    here = {precision: bounds for precision, bounds in wanted.items() if deployment.has(precision)}
    if deployment.results is None:
        for precision in here:
            yield Requirement("accuracy", f"{precision} budget", "not measured", _NOT_COMPARED)
        return
    if here:
        judged = judge_results(deployment.results, lambda p: here.get(p, {}), lambda p: tuple(here.get(p, {})))  # type: ignore[call-overload]
        yield from _whole(judged)
        for precision in here:
            yield from _candidates(precision, policy.measured_on, judged, deployment)


def _whole(judged: Judgement) -> Iterator[Requirement]:
    """What holds for all candidates: all data were compared, and the reference itself is any good."""
    if judged.partial:
        yield Requirement("accuracy", "all samples were compared", "undecided", judged.partial)
    if judged.accuracy is not None and judged.accuracy.verdict in ("fail", "undecided"):
        verdict: Any = judged.accuracy.verdict
        yield Requirement("accuracy", "the reference is better than chance", verdict, judged.accuracy.statement)


def _candidates(precision: str, on: str, judged: Judgement, deployment: Deployment) -> Iterator[Requirement]:
    label = f"engine {precision}" if on == "engine" else precision
    found = [c for c in judged.candidates if c.precision == precision]
    if not any(c.label == label for c in found):
        compared = ", ".join(c.label for c in judged.candidates) or "nothing"
        yield Requirement(
            "accuracy", f"{label} was compared", "not measured", f"compared was {compared}: run `csa-deploy verify`"
        )
    for candidate in found:
        yield from _candidate(candidate, deployment)


def _candidate(candidate: JudgedCandidate, deployment: Deployment) -> Iterator[Requirement]:
    assert deployment.results is not None
    label, record = candidate.label, deployment.find(VerifyRecord)
    evidence = units.counted(len(deployment.results.ids), "sample")
    evidence += (
        f" of {record.data.name}, compared with {record.reference.get('executes', 'the reference')}" if record else ""
    )
    for name, (ours, theirs) in candidate.preprocessing_differs.items():
        said = f"{name} is {theirs}, the network's is {ours}"
        yield Requirement("accuracy", f"{label}: the network's preprocessing", "fail", said)
    for non_finite, whose in ((candidate.non_finite, label), (candidate.reference_non_finite, "the reference")):
        for name, ids in non_finite.items():
            said = f"'{name}' is not finite on sample {ids[0]}"
            yield Requirement("accuracy", f"{whose}: finite outputs", "fail", said, evidence)
    if candidate.batch is not None and candidate.batch.broken is not None:
        yield Requirement(
            "accuracy", f"{label}: the same in other batches", "fail", candidate.batch.statement, evidence
        )
    for check in candidate.checks:
        sure = "" if check.sure is None else f", 95 % sure of {units.metric(check.sure, check.metric)}"
        reason = f"; {check.reason}" if check.reason else ""
        yield Requirement(
            "accuracy",
            f"{label}: {check.metric} of {check.output} {check.limit}",
            check.state,
            f"{check.measured}{sure}{reason}",
            evidence,
        )


def limit_requirements(policy: Policy, deployment: Deployment) -> Iterator[Requirement]:
    """A requirement for each limit."""
    here = {}
    for label, bounds in policy.limits.items():
        precision = label.removeprefix("engine ").partition(" ")[0]
        if precision in ("fp32", "fp16", "int8") and not deployment.has(precision):
            yield Requirement("limit", label, "not applicable", f"it is {deployment.precision}")
        else:
            here[label] = bounds
    if not here:
        return
    record, profile = deployment.find(ProfileRecord), deployment.profile
    if record is None or profile is None:
        for label in here:
            yield Requirement("limit", label, "not measured", _NOT_TIMED)
        return
    built = deployment.find(BuildRecord)
    sizes = {p: engine.engine_bytes for p, engine in (built.engines if built else {}).items() if engine.engine_bytes}
    for gate in limit_gates(here, profile.latency, memory_of(record.cost, sizes, profile.engines)):
        yield _limit(gate, record.evidence.get(gate.label, ""))


def _limit(gate: Gate, timed: str) -> Requirement:
    found = "" if gate.value is None else f"{gate.value:g}"
    found += f" ({units.span(gate.low, gate.high)})" if gate.low != gate.high else ""
    said = "; ".join(filter(None, (found, gate.reason)))
    evidence = "counted in the file" if gate.quantity.endswith("_mib") else timed
    return Requirement("limit", f"{gate.label} {gate.quantity} at most {gate.bound:g}", gate.verdict, said, evidence)

"""Findings that say the same of many nodes, as one group; what people read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from csa_deploy.records.check import Finding, Inspected, Placement, ScopeRecord
from csa_deploy.records.errata import ErrataReport
from csa_deploy.restricted.judge import NO_RULE


@dataclass(frozen=True)
class Group:
    """Findings of one rule.

    Attributes:
        first: the first of them.
        messages: what is wrong, in the words of each instance, and the places where exactly that is wrong.
    """

    first: Finding
    messages: Mapping[str, tuple[str, ...]]

    @property
    def count(self) -> int:
        """Number of findings."""
        return sum(map(len, self.messages.values()))

    @property
    def layer(self) -> str:
        """The layer type, where there is one that all share."""
        return "" if self.first.rule == NO_RULE else self.first.layer


def grouped(findings: Sequence[Finding]) -> list[Group]:
    """Findings by verdict, rule and layer type, in order of appearance; layers without a rule are one group."""
    found: dict[tuple[str, ...], list[Finding]] = {}
    for finding in findings:
        layer = "" if finding.rule == NO_RULE else finding.layer
        found.setdefault((finding.verdict, finding.rule, layer), []).append(finding)
    return [_group(findings) for findings in found.values()]


def _group(findings: Sequence[Finding]) -> Group:
    messages: dict[str, list[str]] = {}
    for finding in findings:
        messages.setdefault(finding.message, []).append(place(finding))
    return Group(findings[0], {message: tuple(places) for message, places in messages.items()})


def place(finding: Finding) -> str:
    """Where a finding is: the node, and the PyTorch module it came from."""
    if not finding.node:
        return "the network"
    return f"{finding.node} (in {finding.module})" if finding.module else finding.node


def some(places: Sequence[str], shown: int) -> str:
    """The first of several places, and how many more there are."""
    rest = len(places) - shown
    return ", ".join(places[:shown]) + (f" and {rest} more" if rest > 0 else "")


def errata_findings(errata: ErrataReport) -> list[Finding]:
    """Known problems that are certain, as findings of a scope: a severe one counts as a doubt, the others are notes."""
    return [
        Finding(
            rule=problem.id,
            verdict="unknown" if problem.severity == "high" else "note",
            node=node,
            op="",
            layer="",
            module="",
            message=f"{problem.title} ({problem.symptom}; {problem.versions})",
            since="",
            evidence="issue",
            source="; ".join(problem.sources),
            instead=problem.workaround,
            repair=problem.repair,
        )
        for problem in errata.affected
        for node in (problem.nodes or ("",))
    ]


def since(finding: Finding, tensorrt: str) -> str:
    """Since which version a rule holds, or in which one it is known to hold."""
    return f"since {finding.since}" if finding.since else f"seen in {tensorrt}, not known since when"


def validator_line(scope: ScopeRecord) -> str:
    """What NVIDIA's validator says of a scope, in one line; empty where it was not asked."""
    answer = scope.validator
    if not answer:
        return ""
    refused = [" ".join(filter(None, (layer.layer, layer.name))) for layer in answer.refused]
    detail = some(refused, 3) or " ".join(answer.reason.split())
    return f"TensorRT-RTX {answer.version}: {answer.answer}" + (f" ({detail})" if detail else "")


def parsed_line(data: Inspected) -> str:
    """What NVIDIA's parser built, against the mapping; empty where it was not asked."""
    parsed = data.parsed
    if not parsed:
        return ""
    built = f"TensorRT-RTX {parsed.version} parsed {parsed.layers} layers"
    return f"{parsed.answer} ({' '.join(parsed.reason.split()) or built})"


def crossing_line(placement: Placement) -> str:
    """What DLA and GPU hand over to each other."""
    size, tensors = placement.bytes_crossing, placement.tensors_crossing
    told = f"bytes unknown for {placement.crossing_unknown}" if size is None else f"{size:,} bytes as FP16"
    return f"{tensors} tensors cross, {told}"

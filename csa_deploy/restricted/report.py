"""The result of a check: one data object that every reporter reads."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["allowed", "with GPU fallback", "denied", "unknown"]

_WORST: tuple[Verdict, ...] = ("denied", "unknown", "with GPU fallback", "allowed")


def worst(verdicts: set[Verdict]) -> Verdict:
    """The worst of several verdicts; of none: allowed."""
    return next((verdict for verdict in _WORST if verdict in verdicts), "allowed")


@dataclass(frozen=True)
class Finding:
    """One reason why a scope does not simply allow the network.

    Attributes:
        rule: id of the rule, as ``check --explain`` takes it.
        verdict: denied, unknown, or note (changes nothing).
        node: ONNX node, enclosing nodes included ('' for the network).
        op: ONNX operator ('' for the network).
        layer: TensorRT layer type, or pseudo layer.
        module: path of the PyTorch module that the node came from ('' not known).
        message: what is wrong in this instance, with the values.
        since: TensorRT version since which the rule holds ('' not known).
        evidence: evidence tag of the rule.
        source: source of the rule.
        instead: what to write instead ('' nothing known).
        repair: names of the exact repairs to try, comma-separated ('' none).
    """

    rule: str
    verdict: Literal["denied", "unknown", "note"]
    node: str
    op: str
    layer: str
    module: str
    message: str
    since: str
    evidence: str
    source: str
    instead: str
    repair: str


@dataclass(frozen=True)
class Fallback:
    """A node that does not run on DLA, and the rule that says why."""

    node: str
    op: str
    rule: str
    why: str


@dataclass(frozen=True)
class Placement:
    """Where the nodes of a network run when DLA is asked for.

    Attributes:
        dla: nodes that run on DLA.
        fallbacks: nodes that run on the GPU, or may have to.
        subgraphs: DLA subgraphs that the network is cut into; each is one loadable.
        limit: loadables that the scope takes.
        tensors_crossing: tensors handed over between DLA and GPU.
        bytes_crossing: their size in bytes, as FP16; None where that of one is not known.
        crossing_unknown: number of these.
        whole: rules with a finding that is about no node, which no fallback cures.
        method: how the subgraphs were counted.
    """

    dla: tuple[str, ...]
    fallbacks: tuple[Fallback, ...]
    subgraphs: int
    limit: int
    tensors_crossing: int
    bytes_crossing: int | None
    method: str
    crossing_unknown: int = 0
    whole: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScopeReport:
    """Verdict of one scope.

    Attributes:
        scope: name of the scope.
        title: the scope in words.
        tensorrt: TensorRT version of its rules.
        limits: what its pack cannot tell.
        nodes: ONNX nodes judged (constants folded away are not counted).
        layers: TensorRT layers they become.
        findings: reasons, worst first and then in graph order.
        placement: for a DLA scope, where the nodes run.
        level: level of evidence of the verdict.
        accepted: what falls back to the GPU is within ``--max-fallback``; see :mod:`csa_deploy.restricted.fallback`.
        fallback: what runs where in that case, or why it is not within it; empty where nothing was bounded.
    """

    scope: str
    title: str
    tensorrt: str
    limits: str
    nodes: int
    layers: int
    findings: tuple[Finding, ...]
    placement: Placement | None = None
    level: str = "static"
    accepted: bool = False
    fallback: str = ""

    @property
    def verdict(self) -> Verdict:
        """The worst finding; where there is none because the GPU may take some nodes, that is said."""
        found: set[Verdict] = {finding.verdict for finding in self.findings if finding.verdict != "note"}
        return worst(found | ({"with GPU fallback"} if self.accepted else set()))

    @property
    def said(self) -> str:
        """The verdict in words."""
        return f"{self.verdict}: {self.fallback}" if self.accepted else self.verdict

    @property
    def counts(self) -> dict[str, int]:
        """Findings by verdict."""
        counted = Counter(finding.verdict for finding in self.findings)
        return {name: counted[name] for name in ("denied", "unknown", "note")}

    @property
    def repairs(self) -> tuple[str, ...]:
        """Names of the exact repairs that cure findings, in order of appearance."""
        return tuple(dict.fromkeys(name for f in self.findings if f.repair for name in f.repair.split(", ")))

    def to_json(self) -> dict[str, Any]:
        """JSON form, verdict and counts included."""
        return {**asdict(self), "verdict": self.verdict, "said": self.said, "counts": self.counts}


@dataclass(frozen=True)
class CheckReport:
    """Result of a check.

    Attributes:
        model: name of what was checked.
        scopes: one report per scope, in the order asked for.
        strict: whether unknown counts as denied.
        not_done: what was not done, and why.
    """

    model: str
    scopes: tuple[ScopeReport, ...]
    strict: bool = False
    not_done: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all scopes."""
        return worst({scope.verdict for scope in self.scopes})

    @property
    def rejected(self) -> bool:
        """Whether the command fails: something is denied, or unknown under ``strict``."""
        return self.verdict == "denied" or (self.strict and self.verdict == "unknown")

    def to_json(self) -> dict[str, Any]:
        """JSON form, with ``schema_version``."""
        return {
            "schema_version": 1,
            "model": self.model,
            "strict": self.strict,
            "verdict": self.verdict,
            "rejected": self.rejected,
            "not_done": list(self.not_done),
            "scopes": [scope.to_json() for scope in self.scopes],
        }

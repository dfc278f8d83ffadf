"""What the check stage states: verdicts of safety scopes, with their reasons and evidence."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from csa_deploy.records.errata import ErrataReport
from csa_deploy.results import IF_KNOWN, NOT_JSON, StageRecord, Stored

Verdict = Literal["allowed", "with GPU fallback", "denied", "unknown"]

ValidatorAnswer = Literal["accepted", "refused", "skipped", "not-parsed", "crashed", "timed-out", "not-available"]
MappingAnswer = Literal["agrees", "differs", "not-parsed", "crashed", "timed-out", "not-available"]

VALIDATOR_VERSION = "1.4.0.76"
"""TensorRT-RTX whose safety-scope validator acts; later ones accept the flag and ignore it."""

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
        whole: rules that deny and are about no node, which no fallback cures.
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
class ScopeReport(Stored):
    """Verdict of one scope.

    Attributes:
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
    derived: ClassVar[tuple[str, ...]] = ("verdict", "said", "counts")

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


@dataclass(frozen=True)
class RefusedLayer:
    """One layer that the validator refused.

    Attributes:
        layer: TensorRT's layer type as the validator prints it (``LRN``), or ``Network`` for inputs and outputs.
        name: the layer's name; empty for the network.
        reasons: the limits that do not hold, in the validator's words; empty where it gives none.
    """

    layer: str
    name: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class ValidatorVerdict(Stored):
    """What the validator said of one network.

    Attributes:
        answer: ``accepted`` is the only pass. ``skipped``: not validated (dynamic shapes). ``not-parsed``: the
            parser or the builder's general checks refused the network before its scope was validated.
        reason: one line on why, empty when accepted.
        log: the validator's warnings and errors.
        version: version of TensorRT-RTX that answered, or would have.
        compute_capability: the target of the build that carried the validation.
        seconds: wall-clock seconds (no part of the JSON form), the start of the child process included.
    """

    answer: ValidatorAnswer
    refused: tuple[RefusedLayer, ...] = ()
    reason: str = ""
    log: tuple[str, ...] = ()
    version: str = VALIDATOR_VERSION
    compute_capability: str = "8.6"
    seconds: float = field(default=0.0, compare=False, metadata=NOT_JSON)

    @property
    def is_pass(self) -> bool:
        """Whether the validator looked at every layer and accepted all of them."""
        return self.answer == "accepted"


@dataclass(frozen=True)
class LayerDifference:
    """Where the mapping and the parser disagree.

    Attributes:
        where: the ONNX node, or 'the network' for counts over all of it.
        layer: TensorRT layer type.
        mapped: layers of this type by the mapping.
        built: layers of this type that the parser built.
    """

    where: str
    layer: str
    mapped: int
    built: int


@dataclass(frozen=True)
class CrossCheck:
    """Result of the comparison.

    Attributes:
        version: version of TensorRT-RTX ('' when it is not there).
        layers: layers that the parser built, those that only compute constants left out.
        differences: disagreements, by node first.
        reason: why there is no comparison ('' when there is).
        answer: the outcome in one word.
    """

    answer: MappingAnswer
    version: str = ""
    layers: int = 0
    differences: tuple[LayerDifference, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class ScopeRecord(ScopeReport):
    """The same with what NVIDIA's validator adds: findings of its own, doubts that it clears.

    Attributes:
        static: verdict of the rules alone.
        why_not_next: why the evidence is not of the next level.
        differs: where rules and validator contradict each other, in one line; empty otherwise.
        validator: its answer; None for a scope that it does not speak for.
    """

    static: Verdict = "unknown"
    why_not_next: str = ""
    differs: str = ""
    validator: ValidatorVerdict | None = None


@dataclass(frozen=True)
class RuleReport(Stored):
    """What the rules of scopes say of one network.

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
    derived: ClassVar[tuple[str, ...]] = ("schema_version", "verdict", "rejected")
    schema_version: ClassVar[int] = 1

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all scopes."""
        return worst({scope.verdict for scope in self.scopes})

    @property
    def rejected(self) -> bool:
        """Whether the command fails: something is denied, or unknown under ``strict``."""
        return self.verdict == "denied" or (self.strict and self.verdict == "unknown")


@dataclass(frozen=True, kw_only=True)
class Inspected(Stored):
    """What rules, validator and parser say of one network.

    Attributes:
        scopes: one per scope, in the order asked for.
        strict: whether unknown counts as denied.
        notes: contradictions between sources of evidence.
        not_done: what was not done, and why.
        parsed: the mapping to layers held against what NVIDIA's parser builds; None when that was not asked.
        errata: known problems of TensorRT that it meets; None when that was not asked.
    """

    derived: ClassVar[tuple[str, ...]] = RuleReport.derived
    schema_version: ClassVar[int] = 1
    model: str
    scopes: tuple[ScopeRecord, ...]
    strict: bool = False
    notes: tuple[str, ...] = ()
    not_done: tuple[str, ...] = ()
    parsed: CrossCheck | None = None
    errata: ErrataReport | None = field(default=None, metadata=IF_KNOWN)

    @property
    def verdict(self) -> Verdict:
        """The worst of all scopes."""
        return worst({scope.verdict for scope in self.scopes})

    @property
    def rejected(self) -> bool:
        """Whether a scope denies it, or with ``strict`` does not know."""
        verdicts = {scope.verdict for scope in self.scopes}
        return "denied" in verdicts or (self.strict and "unknown" in verdicts)


@dataclass(frozen=True, kw_only=True)
class CheckRecord(Inspected, StageRecord):
    """The check of a workspace's graph.

    Attributes:
        gate: scopes that decide; none without ``--restricted``.
        judged: name of the graph.
        of: which graph that is: exported, optimized or repaired.
    """

    stage: ClassVar[str] = "check"
    unstated: ClassVar[tuple[str, ...]] = ("not_measured",)
    gate: tuple[str, ...] = ()
    gate_why: str = ""
    judged: str = ""
    of: str = "exported"

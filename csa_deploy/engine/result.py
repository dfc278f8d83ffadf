"""What an engine build gave, with its evidence. Imports nothing heavy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from csa_deploy.engine.parts import Part
from csa_deploy.engine.plan import BuildPlan
from csa_deploy.levels import is_at_least, why_not

_NEXT = {
    "validator": "the flag does not act in the builder itself, which stood in for the target's",
    "restricted-build": "the engine is a standard one; add --safe on DRIVE OS with the safety packages",
}


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of the parsed network; ``dtype`` is TensorRT's name (``"FLOAT"``, ``"HALF"``), -1 a dynamic axis."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ParsedLayer:
    """One layer that NVIDIA's parser made.

    Attributes:
        index: position in the network.
        name: layer name; the parser makes it unique, so it can differ from the node's.
        type: TensorRT layer type (``"CONVOLUTION"``).
        onnx_node: ONNX node that the layer comes from; empty for what the parser adds itself (constants). For a node
            in a local function: ``node | calling node (function)``.
        inputs: input tensors, in order; optional inputs that are absent are left out.
        outputs: output tensors, in order.
    """

    index: int
    name: str
    type: str
    onnx_node: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True)
class RestrictedFlag:
    """The safety-scope flag in one build, and what it proves.

    Attributes:
        builder: builder and version, in words.
        requested: whether the plan asked for it.
        accepted: whether this version has the flag and took it.
        acts: whether this version checks anything when the flag is set.
        evidence: level of evidence that an acting flag, or a safety build, gives (:data:`csa_deploy.levels.LEVELS`).
        skipped: the builder's own log line that says that it skipped the check; empty when it did not.
        beyond: why a safety build's evidence is not of the next level; empty for others.
    """

    builder: str
    requested: bool
    accepted: bool
    acts: bool
    evidence: str
    skipped: str = ""
    beyond: str = ""

    @property
    def level(self) -> str | None:
        """Level of evidence this build adds; None when it adds none."""
        return self.evidence if self.requested and self.accepted and self.acts and not self.skipped else None

    @property
    def statement(self) -> str:
        """One sentence for the report: the level reached, or why the build adds nothing."""
        if not self.requested:
            return "restricted: not requested, so this build says nothing about restricted mode"
        if self.level is not None:
            what = "built it as a safety engine" if self.is_safe else "checked the network and accepted it"
            return f"restricted: {self.builder} {what} (level {self.level})"
        return f"restricted: no evidence from this build, {self._why_not()}; the level stays what the checker reached"

    @property
    def is_safe(self) -> bool:
        """Whether the evidence is a safety build's, and not of the flag alone."""
        return is_at_least(self.evidence, "safety-build")

    @property
    def why_not_next(self) -> str:
        """Why the evidence is not of the next level, which is named; empty at the strongest."""
        if self.level is None:
            return ""  # the statement says it
        return why_not(self.level, self.beyond or _NEXT.get(self.level, ""))

    def _why_not(self) -> str:
        if not self.accepted:
            return f"{self.builder} has no safety-scope flag"
        if not self.acts:
            return f"{self.builder} accepts the safety-scope flag and ignores it"
        return f"{self.builder} skipped the check ({self.skipped})"

    def to_json(self) -> dict[str, Any]:
        """JSON form with the level and the statement."""
        stated = {key: value for key, value in asdict(self).items() if key != "beyond"}
        return {**stated, "level": self.level, "why_not_next": self.why_not_next, "statement": self.statement}


@dataclass(frozen=True)
class BuildResult:
    """A finished build.

    Attributes:
        backend: ``"tensorrt"``, ``"tensorrt-rtx"`` or ``"trtexec"``.
        version: its version.
        model: file name of the ONNX graph.
        plan: what was asked.
        engine: path of the engine file.
        engine_bytes: size of the engine file.
        engine_sha256: hash of the engine file. TensorRT-RTX gives the same bytes for the same graph, plan and
            version; TensorRT times tactics, so its engines differ between builds.
        log: path of the builder's log; it holds durations, so it is no reproducible artifact.
        inspection: path of the engine inspector's JSON; None when it could not run (``not_done`` says why).
        compute_capabilities: what the engine was built for.
        flags: builder flags that were set, read back from the builder.
        inputs: network inputs as parsed.
        outputs: network outputs as parsed.
        layers: the parsed network, before the builder's fusions.
        warnings: the builder's warnings, each once.
        restricted: the safety-scope flag and what it proves.
        parse_seconds: wall time of parsing; None where trtexec does not tell it.
        build_seconds: wall time of building; with trtexec that of parsing as well, as it prints it.
        peak_memory_bytes: largest resident memory of the build process; None for one on a target.
        not_done: what was not done or measured, each with its reason.
        command: trtexec's command line; empty for the other builders.
        machine: the target, in its own words; empty for this machine.
        size_note: why the engine is much larger than its weights; empty where it is not.
        parts: files that belong to the engine, beside it.
    """

    backend: str
    version: str
    model: str
    plan: BuildPlan
    engine: Path
    engine_bytes: int
    engine_sha256: str
    log: Path
    inspection: Path | None
    compute_capabilities: tuple[str, ...]
    flags: tuple[str, ...]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    layers: tuple[ParsedLayer, ...]
    warnings: tuple[str, ...]
    restricted: RestrictedFlag
    parse_seconds: float | None
    build_seconds: float | None
    peak_memory_bytes: int | None
    not_done: tuple[str, ...]
    command: tuple[str, ...] = ()
    machine: Mapping[str, Any] = field(default_factory=dict)
    size_note: str = ""
    parts: tuple[Part, ...] = ()

    @property
    def layer_counts(self) -> dict[str, int]:
        """Layers per TensorRT type, most frequent first."""
        return dict(Counter(layer.type for layer in self.layers).most_common())

    @property
    def dtype_counts(self) -> dict[str, int]:
        """Layer outputs per TensorRT type, most frequent first."""
        return dict(Counter(tensor.dtype for layer in self.layers for tensor in layer.outputs).most_common())

    def to_json(self) -> dict[str, Any]:
        """JSON form; files by name, without this machine's folders."""
        stated = asdict(self)
        if not self.parts:
            del stated["parts"]
        return {
            **stated,
            "plan": self.plan.to_json(),
            "engine": self.engine.name,
            "log": self.log.name,
            "inspection": self.inspection.name if self.inspection else None,
            "restricted": self.restricted.to_json(),
            "layer_counts": self.layer_counts,
            "dtype_counts": self.dtype_counts,
        }

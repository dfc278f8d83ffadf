"""What the split stage states: the parts of a network, what crosses between them, and how each is built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from csa_deploy.network_parts import PartSetting
from csa_deploy.records.check import Fallback
from csa_deploy.results import IF_KNOWN, StageRecord, Stored


@dataclass(frozen=True, kw_only=True)
class SplitPart(Stored):
    """One part; paths are inside the workspace.

    Attributes:
        name: ``encoder``, or of a head its outputs with + between them.
        nodes: number of nodes in its FP32 graph.
        inputs: what it reads: tensors of the cut, and inputs of the network.
        outputs: what it makes: tensors of the cut, and outputs of the network.
        graph: the typed graph, which is what was compared.
        floating: the FP32 graph, which TensorRT builds from where it makes the precision itself.
        cache: calibration cache of that, with the scales of the typed graph; None for a part that is not INT8.
    """

    name: str
    setting: PartSetting
    nodes: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    graph: str
    floating: str
    cache: str | None = None


@dataclass(frozen=True)
class BoundarySide(Stored):
    """One part's side of a tensor that crosses the cut, as its engine has it.

    Attributes:
        kind: fp32, fp16, int8, ...
        layout: TensorRT's name of the memory format, such as ``chw32``.
        scale: INT8 scale; None where it is not INT8, or nobody states it.
    """

    part: str
    kind: str
    layout: str
    scale: float | None = None

    def __str__(self) -> str:
        scale = f" of scale {self.scale:.9g}" if self.scale is not None else ""
        return f"{self.part} {self.kind}:{self.layout}{scale}"


@dataclass(frozen=True)
class SplitFinding(Stored):
    """What does not fit at a boundary or on a target.

    Attributes:
        kind: ``mismatch``: wrong numbers; ``converts``: the application has to convert; ``falls back``: DLA does not
            run it; ``not built``: this TensorRT cannot build the part; ``note``.
        where: tensor or part.
        message: with both sides.
    """

    kind: Literal["mismatch", "converts", "falls back", "not built", "note"]
    where: str
    message: str
    fix: str


@dataclass(frozen=True)
class CutTensor(Stored):
    """A tensor that crosses the cut.

    Attributes:
        bytes: of one inference, as it crosses.
        producer: the encoder's side; None for an input of the network that heads read as well.
        consumers: the heads' sides.
    """

    name: str
    shape: tuple[int, ...]
    bytes: int
    producer: BoundarySide | None
    consumers: tuple[BoundarySide, ...]


@dataclass(frozen=True)
class PartBuild(Stored):
    """How trtexec builds a part.

    Attributes:
        graph: that is built, a path inside the workspace.
        command: trtexec's words, in the folder of the workspace; none where this version cannot build it.
    """

    part: str
    graph: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class DlaPlacement(Stored):
    """What of a part runs on its DLA, by one scope.

    Attributes:
        scope: rules by which it was judged.
        said: how much runs there, in words.
        fallbacks: nodes that do not.
    """

    part: str
    scope: str
    verdict: str
    said: str
    fallbacks: tuple[Fallback, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SplitRecord(StageRecord):
    """A network in parts.

    Attributes:
        tensors: it was cut at.
        precision: whose budget the whole is held against: the lowest of the parts.
        graph: the typed graph that was cut.
        error: largest difference of the parts, one after another, from the graph that was cut, on random inputs and
            node by node in ONNX Runtime: 0 where every bit is the same.
        parts: the encoder first.
        tensorrt: version that formats and commands are for.
        placements: of the parts that are for DLA.
    """

    stage: ClassVar[str] = "split"
    unstated: ClassVar[tuple[str, ...]] = ("not_measured",)
    tensors: tuple[str, ...]
    precision: str
    graph: str
    outputs: tuple[str, ...]
    error: float
    parts: tuple[SplitPart, ...]
    tensorrt: str
    crossing: tuple[CutTensor, ...]
    builds: tuple[PartBuild, ...]
    placements: tuple[DlaPlacement, ...]
    findings: tuple[SplitFinding, ...] = field(default=(), metadata=IF_KNOWN)

    def command_of(self, part: str) -> tuple[str, ...]:
        """Trtexec's words for a part."""
        return next((build.command for build in self.builds if build.part == part), ())

    def placed(self, part: str) -> list[DlaPlacement]:
        """What its DLA runs of a part, by scope."""
        return [placement for placement in self.placements if placement.part == part]

    def rows(self) -> list[dict[str, Any]]:
        """One row per part."""
        return [
            {
                "part": part.name,
                "precision": part.setting.precision,
                "target": part.setting.target,
                "nodes": part.nodes,
                "inputs": ", ".join(part.inputs),
                "outputs": ", ".join(part.outputs),
                "on_dla": "; ".join(f"{p.scope}: {p.said}" for p in self.placed(part.name)),
            }
            for part in self.parts
        ]

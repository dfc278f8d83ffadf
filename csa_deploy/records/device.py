"""What is measured of devices: what one reaches, an engine's layers and memory, and what a target's own tool told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from csa_deploy.results import IF_KNOWN, Stored

MappedBy = Literal["metadata", "name", "range", "nothing"]


@dataclass(frozen=True)
class EngineLayer:
    """One layer after fusion.

    Attributes:
        name: TensorRT's.
        time_us: median of the inferences, or their average where trtexec timed them.
        share: of the sum of all layers.
        nodes: of the ONNX graph, in its order.
        modules: PyTorch modules of these nodes, each once.
        mapped_by: what tells the nodes: the engine's ``metadata``, the layer's ``name``, a name that gives the first
            and the last node of a ``range`` of the graph's order (what lies between is taken to belong to it), or
            ``nothing`` (a copy that TensorRT put in, or a name that the graph does not have).
        operations: of the nodes; None when a shape is unknown or there are no nodes.
        bytes: read from and written to outside the layer, weights included; None likewise.
        precision: of the nodes that compute most.
        floor_us: least time under the device's ceilings; None without these, or when its cost is unknown.
    """

    name: str
    time_us: float
    share: float
    nodes: tuple[str, ...]
    modules: tuple[str, ...]
    mapped_by: MappedBy
    operations: int | None
    bytes: int | None
    precision: str
    floor_us: float | None = None


@dataclass(frozen=True)
class EngineMemory(Stored):
    """Bytes of one engine with one execution context.

    Attributes:
        weights_bytes: weights on the device; None when this TensorRT does not say.
        context_bytes: activations and workspace, one block.
        streamable_weights_bytes: weights that may stay on the host; None when this TensorRT does not say.
        loaded_bytes: by how much the device's free memory fell when engine and context were made; None when no
            bindings could ask.
        peak_bytes: the most that it fell, the first inference included; None likewise.
        device: why the last two are None; empty when they are not.
    """

    derived: ClassVar[tuple[str, ...]] = ("activations_and_workspace", "seen")
    activations_and_workspace: ClassVar[str] = "TensorRT holds activations and workspace in one block per context"
    seen: ClassVar[str] = (
        "the device's free memory, before the engine was loaded and after loading it and running it once; "
        "what other processes take or give back meanwhile counts as well"
    )
    engine_bytes: int
    weights_bytes: int | None
    context_bytes: int
    streamable_weights_bytes: int | None
    loaded_bytes: int | None
    peak_bytes: int | None
    device: str


@dataclass(frozen=True, kw_only=True)
class EngineProfile(Stored):
    """What was found in one engine.

    Attributes:
        memory: None where it was not measured.
        layers: likewise.
        layers_method: how their times were taken.
        layers_iterations: of how many inferences; None where a target's trtexec did it.
    """

    memory: EngineMemory | None = None
    layers: tuple[EngineLayer, ...] | None = None
    layers_method: str
    layers_iterations: int | None = field(default=None, metadata=IF_KNOWN)


@dataclass(frozen=True)
class Ceilings:
    """What the device reached in a plain test.

    Attributes:
        operations_per_second: by precision, of a 4096 x 4096 matrix product; one that PyTorch cannot multiply here is
            absent.
        bytes_per_second: read and written while copying 1 GiB.
    """

    device: str
    operations_per_second: dict[str, float]
    bytes_per_second: float


@dataclass(frozen=True, kw_only=True)
class Roofline(Stored):
    """The device's ceilings, and what the graphs need at least under them.

    Attributes:
        ceilings: None where they were not measured.
        floor_ms: by label of a graph; None where its cost is not known, or a precision has no ceiling.
        reason: why there are no ceilings.
    """

    ceilings: Ceilings | None = None
    floor_ms: dict[str, float | None] | None = field(default=None, metadata=IF_KNOWN)
    reason: str = field(default="", metadata=IF_KNOWN)


@dataclass(frozen=True)
class ClockReadings:
    """Clocks and governors of a target by name, before and after a measurement."""

    before: dict[str, str]
    after: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class TargetRun:
    """How a target's trtexec timed an engine, beside the times.

    Attributes:
        conditions: see :class:`csa_deploy.trtexec.command.TimingRequest`.
        notes: which clocks changed.
    """

    conditions: dict[str, Any]
    clocks: ClockReadings
    notes: tuple[str, ...]


@dataclass(frozen=True)
class LayerAverage:
    """A layer as trtexec timed it: milliseconds of an inference, and percent of all layers."""

    name: str
    average_ms: float
    percent: float


@dataclass(frozen=True, kw_only=True)
class TargetTiming(TargetRun):
    """What a target's trtexec measured of an engine.

    Attributes:
        samples_ms: latency of each inference, transfers included where they are timed.
        compute_ms: of each, on the device.
        layers: where it profiled them.
        evidence: what the times are, where they are not trtexec's.
    """

    samples_ms: tuple[float, ...]
    compute_ms: tuple[float, ...]
    layers: tuple[LayerAverage, ...] = ()
    evidence: str = ""

    @property
    def run(self) -> TargetRun:
        """All but the times."""
        return TargetRun(conditions=self.conditions, clocks=self.clocks, notes=self.notes)

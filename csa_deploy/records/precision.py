"""What the precision stage states."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from csa_deploy.options import CalibrationMethod
from csa_deploy.records.graphs import GraphStatistics
from csa_deploy.results import IF_KNOWN, OneOfSeveral, StageRecord, Stored


@dataclass(frozen=True)
class KeptNode:
    """A node that computes in FP32 in the FP16 graph."""

    name: str
    op: str
    reason: str


@dataclass(frozen=True)
class Layer:
    """A node that runs in INT8.

    Attributes:
        activations: tensor by input index.
        weight: name of the weight, or None.
        axis: output-channel axis of the weight.
        results: tensors that it writes and that everybody reads quantized; DLA wants that.
    """

    name: str
    op: str
    activations: dict[int, str]
    weight: str | None = None
    axis: int = 0
    results: tuple[str, ...] = ()


@dataclass(frozen=True)
class TechniqueFinding(Stored):
    """Whether a technique is used, and why.

    Attributes:
        reason: what it found to do, or why it was not tried.
        snr_db_without: signal-to-noise ratio of the worst output with all layers in INT8, without it.
        snr_db_with: with it; None where it was not tried.
        gain_db: mean over images of what each image gains at its worst output.
        gain_error_db: standard error of that mean; None for a single image.
        images: number of images that all this was measured on.
    """

    used: bool
    reason: str
    snr_db_without: float | None = field(default=None, metadata=IF_KNOWN)
    snr_db_with: float | None = field(default=None, metadata=IF_KNOWN)
    gain_db: float | None = field(default=None, metadata=IF_KNOWN)
    gain_error_db: float | None = field(default=None, metadata=IF_KNOWN)
    images: int = 0

    @property
    def gain(self) -> float | None:
        """dB of the worst output over all images, with it against without."""
        if self.snr_db_with is None or self.snr_db_without is None:
            return None
        return self.snr_db_with - self.snr_db_without


@dataclass(frozen=True, kw_only=True)
class TypedGraph(OneOfSeveral):
    """The graph of one precision.

    Attributes:
        graph: path inside the workspace.
    """

    graph: str
    statistics: GraphStatistics


@dataclass(frozen=True, kw_only=True)
class HalfFigures:
    """What became FP16 of a graph.

    Attributes:
        kept: nodes that stay in FP32, each with the reason.
        nodes: nodes that compute in FP16.
        casts: Cast nodes inserted.
        weights: weight values now stored in FP16.
        underflowed: weight values that became zero by rounding to FP16.
        subnormal: weight values below FP16's normal range, stored with fewer than 11 significant bits.
        overflowing: weight values beyond FP16's range; their nodes are among ``kept``.
        largest_weight: largest absolute weight stored in FP16.
    """

    kept: tuple[KeptNode, ...]
    nodes: int
    casts: int
    weights: int
    underflowed: int
    subnormal: int
    overflowing: int
    largest_weight: float


@dataclass(frozen=True, kw_only=True)
class HalfGraph(HalfFigures, TypedGraph):
    """The FP16 graph."""


@dataclass(frozen=True)
class OffDla:
    """A node that the GPU runs in an INT8 graph for DLA."""

    node: str
    op: str
    reason: str


@dataclass(frozen=True)
class DlaGraph:
    """What an INT8 graph is for DLA.

    Attributes:
        scope: whose rules say what runs there.
        nodes: number of nodes that run on DLA, by these rules.
        off: nodes that the GPU runs.
        tensors: number of tensors with a scale.
        shared: groups of tensors with one scale.
        io: type of the network's inputs and outputs.
        ranges: dB of the worst output on calibration images, by method of the thresholds; empty where none was tried.
        rounding: how DLA rounds halves; ONNX Runtime and the GPU round them to even.
    """

    scope: str
    nodes: int
    off: tuple[OffDla, ...]
    tensors: int
    shared: tuple[tuple[str, ...], ...]
    io: Literal["fp32", "fp16"]
    ranges: dict[str, float] = field(default_factory=dict)
    rounding: str = "half away from zero"


@dataclass(frozen=True)
class Sensitivity(Stored):
    """What one layer's INT8 costs.

    Attributes:
        measured: energy of the error with only this layer in INT8, relative to the energy of the output; of several
            outputs that of the one that suffers most.
        estimated: the same, from one run; see :mod:`csa_deploy.precision.propagation`. None where there is no estimate.
        saved: seconds that INT8 saves, estimated; None where the layer's cost is not known.
    """

    derived: ClassVar[tuple[str, ...]] = ("rank",)
    name: str
    op: str
    measured: float
    estimated: float | None
    saved: float | None

    @property
    def rank(self) -> float | None:
        """Accuracy lost per time saved: the higher, the earlier the layer goes back; None where that is not known."""
        return None if self.saved is None else self.measured / max(self.saved, 1e-9)


@dataclass(frozen=True)
class SearchPoint(Stored):
    """One choice of layers.

    Attributes:
        returned: number of layers in floating point.
        metrics: measured on the search images against FP32; of several outputs the worst.
        broken: bounds that do not hold there, in words.
        latency_ms: estimated by the cost model; None where the cost of a node is not known.
    """

    derived: ClassVar[tuple[str, ...]] = ("holds",)
    returned: int
    metrics: dict[str, float]
    broken: tuple[str, ...]
    latency_ms: float | None

    @property
    def holds(self) -> bool:
        """Whether the budget holds."""
        return not self.broken


@dataclass(frozen=True, kw_only=True)
class Search(Stored):
    """What the search measured.

    Attributes:
        pareto: every choice that was measured, by number of returned layers.
        sensitivities: of the layers, in the order in which they go back; empty where all of them could stay INT8.
        estimate_agrees: rank correlation of measured and estimated sensitivity; None where one has no estimate.
        returned: layers chosen for floating point.
        budget: the bounds that were held.
        not_judged: bounds that could not be, with the reason: the accuracy gate judges them alone.
        outputs: number of outputs that were judged.
        device: of the cost model.
    """

    derived: ClassVar[tuple[str, ...]] = ("latency_is",)
    pareto: tuple[SearchPoint, ...]
    sensitivities: tuple[Sensitivity, ...]
    estimate_agrees: float | None
    returned: tuple[str, ...]
    images: int
    budget: dict[str, float]
    not_judged: dict[str, str] = field(default_factory=dict)
    outputs: int = 1
    device: str

    @property
    def latency_is(self) -> str:
        """Where the latencies come from."""
        return f"estimated for {self.device} by operations and bytes, without fusions"

    @property
    def chosen(self) -> SearchPoint | None:
        """The choice that was taken."""
        return next((point for point in self.pareto if point.returned == len(self.returned)), None)


@dataclass(frozen=True)
class NotSearched:
    """Why no search was done."""

    not_done: str


@dataclass(frozen=True, kw_only=True)
class Int8Graph(TypedGraph):
    """The INT8 graph; see :class:`csa_deploy.precision.int8.Int8Result`.

    Attributes:
        key: hash of what decided it.
        cache: TensorRT's calibration cache, a path inside the workspace.
        equalized: the FP32 graph that the scales belong to, where it is another; likewise.
        int8: layers in INT8.
        kept_floating: nodes that could be INT8 and stay in ``rest``, with the reason.
        kept: nodes that stay in FP32 although the rest is FP16.
        rest: precision of everything else.
        scales: of the activations, by tensor.
        notes: what a user must know.
        search: which layers are INT8, by measurement; or why it was not done.
        techniques: what was found about each.
        estimated_latency_ms: by precision; None where a cost is not known.
        cost_unknown: nodes whose cost is not known.
        dla: what it is for DLA; None where it is for the GPU.
        method: of the thresholds, where one was taken in place of the usual one.
    """

    key: str
    cache: str
    equalized: str | None
    int8: tuple[Layer, ...]
    kept_floating: dict[str, str]
    kept: tuple[KeptNode, ...]
    rest: str
    scales: dict[str, float]
    notes: tuple[str, ...]
    search: Search | NotSearched
    techniques: dict[str, TechniqueFinding]
    estimated_latency_ms: dict[str, float | None]
    cost_unknown: tuple[str, ...]
    dla: DlaGraph | None = field(default=None, metadata=IF_KNOWN)
    method: CalibrationMethod | None = field(default=None, metadata=IF_KNOWN)


@dataclass(frozen=True)
class Calibration:
    """What INT8 was calibrated on, and with what.

    Attributes:
        data: name of the samples.
        skipped: samples that could not be used.
        method: how thresholds were chosen.
        tensors: how many have one.
        constant_inputs: inputs that are the same in all samples.
        leaks: samples that accuracy is measured on, or nearly, in words.
        audit: path inside the workspace; None where it failed.
        statistics: path inside the workspace.
    """

    data: str
    images: int
    skipped: int
    method: str
    tensors: int
    constant_inputs: tuple[str, ...]
    leaks: tuple[str, ...]
    audit: str | None
    statistics: str


@dataclass(frozen=True, kw_only=True)
class PrecisionRecord(StageRecord):
    """The typed graphs.

    Attributes:
        calibration: of INT8; None where nothing was calibrated.
    """

    stage: ClassVar[str] = "precision"
    unstated: ClassVar[tuple[str, ...]] = ()
    precisions: dict[str, Int8Graph | HalfGraph | TypedGraph]
    calibration: Calibration | None = field(default=None, metadata=IF_KNOWN)

    @property
    def int8(self) -> Int8Graph | None:
        """The INT8 graph."""
        found = self.precisions.get("int8")
        return found if isinstance(found, Int8Graph) else None

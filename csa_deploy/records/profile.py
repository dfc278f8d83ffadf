"""What the profile stage states: what was timed and how, and what each graph costs; and what it measures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from csa_deploy.records.device import EngineProfile, Roofline, TargetRun
from csa_deploy.records.loadgen import LoadgenRun
from csa_deploy.results import IF_KNOWN, NotMeasured, StageRecord, Stored

Interval = tuple[float | None, float | None]


@dataclass(frozen=True)
class NodeCost(Stored):
    """One node.

    Attributes:
        name: name of the node, or of its first output when it has none.
        module: PyTorch module that it came from; empty when the graph does not say.
        precision: ``int8`` where the node reads two dequantized tensors, as an engine then computes in INT8; else the
            element type of its first output.
        macs: multiply-accumulates as :func:`csa_deploy.graph.stats.node_macs` counts them; None when not known.
        operations: arithmetic operations: two per multiply-accumulate, else one per element of the output (of the
            input for pooling), none for nodes that move data; None when a shape is unknown.
        bytes: read and written, weights included, as if nothing were fused or cached; None when a shape is unknown.
        shape: of the first output.
        inputs: names of the nodes that it reads.
    """

    derived: ClassVar[tuple[str, ...]] = ("intensity",)
    name: str
    op: str
    module: str
    precision: str
    macs: int | None
    operations: int | None
    bytes: int | None
    shape: tuple[int, ...] | None
    inputs: tuple[str, ...]

    @property
    def intensity(self) -> float | None:
        """Operations per byte."""
        return None if self.operations is None or not self.bytes else round(self.operations / self.bytes, 3)


@dataclass(frozen=True)
class GraphCost:
    """All nodes but constants, in the graph's order, and the graph's memory.

    Attributes:
        weight_bytes: initializers and constants.
        activation_bytes: largest sum of tensors alive at once when nodes run in the graph's order, each tensor living
            from its node to its last reader; None when a shape is unknown. An engine fuses and reorders: its figure
            differs.
        io_bytes: inputs and outputs of the graph; None when a shape is unknown.
    """

    nodes: tuple[NodeCost, ...]
    weight_bytes: int
    activation_bytes: int | None
    io_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class TimedEntry(Stored):
    """One graph or engine that was timed.

    Attributes:
        path: inside the workspace.
        runner: what executed it, as it describes itself.
        iterations: asked of trtexec on a target, as are those that follow;
            see :class:`csa_deploy.trtexec.command.TimingRequest`.
    """

    label: str
    path: str
    runner: dict[str, Any]
    evidence: str
    iterations: int | None = field(default=None, metadata=IF_KNOWN)
    warmup_ms: int | None = field(default=None, metadata=IF_KNOWN)
    transfers: bool | None = field(default=None, metadata=IF_KNOWN)
    cuda_graph: bool | None = field(default=None, metadata=IF_KNOWN)
    spin_wait: bool | None = field(default=None, metadata=IF_KNOWN)


@dataclass(frozen=True, kw_only=True)
class Contract(Stored):
    """How everything is timed, in words where no unit is given.

    Attributes:
        timed: what one latency is.
        timed_on_device: by label, what the device's own clock times.
        clock: that is read.
        order: in which graphs and engines take turns.
        baseline: how an older run is timed beside them; None without one.
        warmup: untimed inferences of each.
        warmup_on_device: what runs before the device's clock is read.
        iterations: timed inferences of each; None where ``seconds`` says how long.
        seconds: of each; None where ``iterations`` says how many.
        batch: samples of one inference.
        threads: of the CPU, a number or in words.
        spin_wait: who waits busily.
        cuda_graph: where inferences are launched through one.
        clocks_and_power_mode: of the machine.
        telemetry: when it is read.
        loadgen: how MLPerf's load generator measures; None where it was not asked for.
        inputs: what the networks are run on.
        percentiles: which are given.
    """

    timed: str
    timed_on_device: dict[str, str]
    clock: str
    order: str
    baseline: str | None
    warmup: int
    warmup_on_device: str
    iterations: int | None
    seconds: float | None
    batch: int | None
    threads: int | Literal["one per core"]
    streams: int
    spin_wait: str
    cuda_graph: str
    clocks_and_power_mode: str
    telemetry: str
    loadgen: dict[str, str] | None = field(default=None, metadata=IF_KNOWN)
    inputs: str
    percentiles: str
    interval: str
    csa_deploy: str


@dataclass(frozen=True, kw_only=True)
class ProfileRecord(StageRecord):
    """What was timed.

    Attributes:
        measured: what ran.
        cost: of each graph, by label.
        layers: ``method``: how the times of nodes were taken.
    """

    stage: ClassVar[str] = "profile"
    unstated: ClassVar[tuple[str, ...]] = ("notes",)
    contract: Contract
    measured: tuple[TimedEntry, ...]
    cost: dict[str, GraphCost]
    layers: dict[str, str]

    @property
    def evidence(self) -> dict[str, str]:
        """What the times of each graph and engine are, by label."""
        return {entry.label: entry.evidence for entry in self.measured}


@dataclass(frozen=True)
class Drift:
    """Whether latency moved while it was measured.

    Attributes:
        change: median of the last quarter over that of the first, minus 1.
        rank_correlation: Spearman's, of latency with position.
        flagged: the correlation is no chance (z above 3.29, for as many independent samples as the series is worth
            without its trend) and the change is at least 2 %.
    """

    change: float
    rank_correlation: float
    flagged: bool


@dataclass(frozen=True)
class Outliers:
    """Samples with a modified z-score above 3.5; they stay in every figure.

    Attributes:
        share: of all samples.
        above_ms: from which latency on a sample counts as one; None when all samples are equal.
        first: position of the first ones, at most ten.
    """

    count: int
    share: float
    above_ms: float | None
    first: tuple[int, ...]


PERCENTILE_OF = {"p50_ms": 50.0, "p90_ms": 90.0, "p95_ms": 95.0, "p99_ms": 99.0, "p999_ms": 99.9}
"""Percentiles of a series of latencies by the name of a limit on them: all are measured, and shown."""


@dataclass(frozen=True, kw_only=True)
class LatencySummary(Stored):
    """A series of latencies.

    Attributes:
        samples_ms: every timed inference in order, milliseconds.
        percentiles_ms: by percentile; None where the series is too short for it.
        intervals_ms: by percentile, each end None where so few samples have none; None without either.
        confidence: of the intervals.
        independent: as how many independent samples the series counts.
        too_few: by percentile without a value, the samples that it needs.
        jitter_ms: standard deviation.
        throughput: samples of the network per second.
        drift: whether it moved.
        outliers: what lies far out.
    """

    samples_ms: tuple[float, ...]
    percentiles_ms: dict[str, float | None]
    intervals_ms: dict[str, Interval | None]
    confidence: float
    independent: int
    too_few: dict[str, int]
    mean_ms: float
    min_ms: float
    max_ms: float
    jitter_ms: float
    throughput: float
    drift: Drift
    outliers: Outliers

    @property
    def median_ms(self) -> float:
        """The median, which any series has."""
        value = self.percentiles_ms["50"]
        assert value is not None
        return value


@dataclass(frozen=True)
class Gate(Stored):
    """One limit and what was found.

    Attributes:
        bound: the limit, or the slow-down from which on a baseline fails, as a share.
        value: what was measured, or the ratio to the baseline.
        low: lower end of its interval, None where it has none; of what is exact the value itself.
        high: upper end, in the same way.
        verdict: whether the limit holds.
        reason: why it is undecided or not measured; what a baseline's samples are.
    """

    label: str
    quantity: str
    bound: float
    value: float | None
    low: float | None
    high: float | None
    verdict: Literal["pass", "fail", "undecided", "not measured"]
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class NodeTimes:
    """Times of a graph's nodes on this machine's CPU.

    Attributes:
        method: how they were taken.
        times_us: median by node of the graph, microseconds.
        inserted_us: of nodes that ONNX Runtime added: casts around operators that it lacks in FP16.
    """

    method: str
    iterations: int
    times_us: dict[str, float]
    inserted_us: float


@dataclass(frozen=True)
class Extent:
    """The least and the largest of all readings."""

    min: float
    max: float


@dataclass(frozen=True, kw_only=True)
class Readings:
    """What the machine said of itself meanwhile.

    Attributes:
        seen: by quantity, with its unit in the name, the extent of its numbers, or its settings.
        governor: frequency governors of the CPU's cores, each once.
        not_measured: what this machine does not show.
    """

    readings: int
    seen: dict[str, Extent | tuple[str, ...]]
    governor: tuple[str, ...]
    not_measured: tuple[NotMeasured, ...]


@dataclass(frozen=True, kw_only=True)
class HostMachine(Stored):
    """What numbers were measured on.

    Attributes:
        devices: names of the CUDA devices.
        cuda_driver: the newest CUDA that it supports, or why there is none.
        cores: of the CPU, as the system counts them.
        load_average: of 1, 5 and 15 minutes.
        versions: of what runs networks.
    """

    cpu: str = ""
    devices: tuple[str, ...] = ()
    cuda_driver: str = ""
    cores: int | None = None
    system: str = ""
    python: str = ""
    load_average: tuple[float, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Profiled(Stored):
    """What was measured.

    Attributes:
        layers: times of each graph's nodes, by label.
        target: what a target's trtexec told, by label.
        roofline: of the device.
        energy_per_inference_j: by label and rail.
        telemetry: what was seen meanwhile.
        gates: limits and the baseline.
        loadgen: what MLPerf's load generator measured, where it was asked for.
    """

    latency: dict[str, LatencySummary] = field(default_factory=dict)
    layers: dict[str, NodeTimes] = field(default_factory=dict)
    engines: dict[str, EngineProfile] = field(default_factory=dict)
    target: dict[str, TargetRun] = field(default_factory=dict)
    roofline: Roofline = field(default_factory=Roofline)
    energy_per_inference_j: dict[str, dict[str, float]] = field(default_factory=dict)
    telemetry: Readings | None = None
    gates: tuple[Gate, ...] = ()
    loadgen: tuple[LoadgenRun, ...] = field(default=(), metadata=IF_KNOWN)
    host: HostMachine = field(default_factory=HostMachine)

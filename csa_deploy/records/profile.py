"""What the profile stage states: what was timed and how, and what each graph costs; the times are measurements."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from csa_deploy.results import IF_KNOWN, StageRecord, Stored


@dataclass(frozen=True)
class NodeCost(Stored):
    """One node.

    Attributes:
        name: name of the node, or of its first output when it has none.
        op: operator.
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
        nodes: see :class:`NodeCost`.
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
        label: its name in reports.
        path: inside the workspace.
        runner: what executed it, as it describes itself.
        evidence: what the times are.
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
class ProfileRecord(StageRecord):
    """What was timed.

    Attributes:
        contract: how everything was timed; see :func:`csa_deploy.stages.profile.contract`.
        measured: what ran.
        cost: of each graph, by label.
        layers: ``method``: how the times of nodes were taken.
    """

    stage: ClassVar[str] = "profile"
    unstated: ClassVar[tuple[str, ...]] = ("notes",)
    contract: dict[str, Any]
    measured: tuple[TimedEntry, ...]
    cost: dict[str, GraphCost]
    layers: dict[str, str]

    @property
    def evidence(self) -> dict[str, str]:
        """What the times of each graph and engine are, by label."""
        return {entry.label: entry.evidence for entry in self.measured}

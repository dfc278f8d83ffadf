"""What is stated of a graph, and of its rewrites."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from csa_deploy.results import Stored
from csa_deploy.units import counted, giga


@dataclass(frozen=True)
class GraphStatistics(Stored):
    """What a graph consists of.

    Attributes:
        ops: nodes of the main graph by operator, in alphabetical order.
        parameters: elements of all floating-point and 8-bit initializers and constants, shared ones once. Running
            statistics of BatchNormalization are among them, so folding lowers the number.
        macs: multiply-accumulates of convolutions, matrix products and recurrent layers, those of integers included, in
            the main graph, for the graph's batch; None where those of a node are not known.
        macs_unknown: these nodes: shapes that could not be inferred, and what is not counted here (attention,
            work in the body of an If or a Loop, operators of other domains).
        weight_bytes: bytes of all initializers and constants of the main graph.
    """

    derived: ClassVar[tuple[str, ...]] = ("nodes",)
    ops: dict[str, int]
    parameters: int
    macs: int | None
    macs_unknown: tuple[str, ...]
    weight_bytes: int

    @property
    def nodes(self) -> int:
        """Nodes of the main graph."""
        return sum(self.ops.values())

    @property
    def work(self) -> str:
        """The multiply-accumulates in words."""
        unknown = len(self.macs_unknown)
        said = f" (unknown for {counted(unknown, 'node')})" if unknown else ""
        return f"{giga(self.macs)} multiply-accumulates{said}"


@dataclass(frozen=True)
class Step:
    """One application of one rule.

    Attributes:
        rewrites: how often it applied.
        error: largest difference of any output from the original model's, relative to the range of that output (where
            the changed nodes alone are wrong: of what they make); None where it could not be measured.
        kept: whether the result was kept.
        reason: why it was not kept, or which nodes were left alone and why, or why nothing was measured; empty
            otherwise.
    """

    rule: str
    summary: str
    rewrites: int
    error: float | None
    kept: bool
    reason: str = ""


@dataclass(frozen=True)
class Note:
    """Why a rule left a node be."""

    rule: str
    node: str
    reason: str

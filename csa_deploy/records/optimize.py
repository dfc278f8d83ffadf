"""What the optimize stage states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from csa_deploy.records.graphs import GraphStatistics, Note, Step
from csa_deploy.results import StageRecord


@dataclass(frozen=True, kw_only=True)
class OptimizeRecord(StageRecord):
    """The optimized graph.

    Attributes:
        graph: path inside the workspace.
        before: statistics of the exported graph.
        after: of the optimized one.
        steps: every application of a rule that found something, in order.
        declined: nodes that a rule left be though its pattern is there, with the reason.
        proofs: number of random inputs that each step was proved on.
        tolerance: largest relative difference that was accepted.
        error: relative difference of the result's outputs from the original's; None where nothing was measured.
        not_proved: why no proof could be run at all; empty where it was.
        reference: what the steps were proved against.
    """

    stage: ClassVar[str] = "optimize"
    graph: str
    before: GraphStatistics
    after: GraphStatistics
    steps: tuple[Step, ...] = ()
    declined: tuple[Note, ...] = ()
    proofs: int = 0
    tolerance: float = 0.0
    error: float | None = None
    not_proved: str = ""
    reference: str = ""

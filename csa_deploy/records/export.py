"""What the export stage states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from csa_deploy.network import Preprocessing, Sample
from csa_deploy.records.graphs import GraphStatistics
from csa_deploy.results import StageRecord, Stored
from csa_deploy.spec import TensorSpec
from csa_deploy.state import StateLink


@dataclass(frozen=True)
class Difference(Stored):
    """Largest difference of one output over all inputs of one kind.

    Attributes:
        inputs: ``"random"`` or the data set's name.
        samples: how many samples were compared.
        max_abs_error: largest absolute difference, in the output's units.
        range: largest minus smallest value of PyTorch's output.
    """

    derived: ClassVar[tuple[str, ...]] = ("relative",)
    output: str
    inputs: str
    samples: int
    max_abs_error: float
    range: float

    @property
    def relative(self) -> float:
        """The error relative to the output's range; an output that is constant counts as range 1."""
        return self.max_abs_error / (self.range or 1.0)


@dataclass(frozen=True, kw_only=True)
class ExportRecord(StageRecord):
    """The exported graph.

    Attributes:
        graph: path inside the workspace.
        batch: samples that one inference takes.
        state: outputs that feed inputs on the next frame.
        inputs: of the graph; an extent that is open is 0.
        preprocessing: how an image becomes its input; None where it takes no image.
        tolerance: largest relative difference from PyTorch that is accepted.
        differences: from PyTorch, per output and kind of inputs.
    """

    stage: ClassVar[str] = "export"
    unstated: ClassVar[tuple[str, ...]] = ("not_measured",)
    graph: str
    exporter: str
    opset: int
    batch: int
    sample: Sample
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing | None
    statistics: GraphStatistics
    tolerance: float
    differences: tuple[Difference, ...]
    state: tuple[StateLink, ...] = ()

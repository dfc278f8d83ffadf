"""How far the arithmetics of an INT8 graph are apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from csa_deploy import units
from csa_deploy.results import Stored


@dataclass(frozen=True)
class ArithmeticDistance:
    """How far one tensor's arithmetics are apart, as root-mean-square difference relative to the second named.

    Attributes:
        name: module that it leaves, or output.
        gpu_float: the GPU's arithmetic against floating point.
        dla_float: DLA's against floating point.
        dla_gpu: DLA's against the GPU's.
    """

    name: str
    gpu_float: float
    dla_float: float
    dla_gpu: float


@dataclass(frozen=True)
class Int8Arithmetic(Stored):
    """An INT8 graph in the arithmetics of GPU and DLA and in floating point, on the same samples.

    Attributes:
        judged: the arithmetic that its metrics and its verdict are of.
        samples: identities of the samples; the worst ones.
        layers: number of layers with integer sums.
        fused: of these, those whose sums are quantized without another rounding between.
        modules: of each module the tensor that leaves it, farthest apart first.
        outputs: the same of the network's outputs.
        not_modelled: what computes otherwise than in an engine, or may; in words.
    """

    derived: ClassVar[tuple[str, ...]] = ("statement",)
    candidate: str
    judged: Literal["gpu", "dla"]
    samples: tuple[str, ...]
    layers: int
    fused: int
    modules: tuple[ArithmeticDistance, ...]
    outputs: tuple[ArithmeticDistance, ...]
    not_modelled: tuple[str, ...]

    @property
    def statement(self) -> str:
        """In words."""
        said = [f"{self.candidate} in {self.judged} arithmetic: {self.layers} layers with INT32 sums"]
        if self.outputs:
            far = max(self.outputs, key=lambda distance: max(distance.gpu_float, distance.dla_float, distance.dla_gpu))
            ratios = [units.decibel(_ratio(value)) for value in (far.gpu_float, far.dla_float, far.dla_gpu)]
            said.append(
                f"output '{far.name}': gpu {ratios[0]} and dla {ratios[1]} from floating point, {ratios[2]} from each "
                "other"
            )
        if self.modules:
            said.append(f"farthest apart behind {self.modules[0].name}")
        return "; ".join(said)


def _ratio(relative: float) -> float:
    """A relative difference as a signal-to-noise ratio in dB."""
    return math.inf if relative == 0 else -20 * math.log10(relative)

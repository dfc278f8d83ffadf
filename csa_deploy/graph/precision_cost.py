"""What a rewrite costs in another precision: exact in FP32 does not mean free in FP16."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from csa_deploy.graph.inputs import Arrays
from csa_deploy.graph.sessions import Session
from csa_deploy.metrics.distance import snr

Typing = Callable[[onnx.ModelProto], onnx.ModelProto]
"""Writes a precision into a graph; for FP16: ``lambda model: keep_rounding(to_fp16(model).model)``."""


@dataclass(frozen=True)
class OutputCost:
    """Signal-to-noise ratios of one output in decibels, both against the original in FP32; inf where nothing differs.

    -inf stands for an output that is not finite where the original's is.
    """

    name: str
    before_db: float
    after_db: float

    @property
    def lost_db(self) -> float:
        """What the rewrite costs; negative where it gains."""
        return 0.0 if self.before_db == self.after_db else self.before_db - self.after_db


@dataclass(frozen=True)
class PrecisionCost:
    """What a rewrite costs in a precision, output by output."""

    outputs: tuple[OutputCost, ...]

    @property
    def worst(self) -> OutputCost:
        """The output that loses most."""
        return max(self.outputs, key=lambda output: output.lost_db)

    @property
    def before_db(self) -> float:
        """Of the original in that precision, for the output that loses most."""
        return self.worst.before_db

    @property
    def after_db(self) -> float:
        """Of the rewritten graph in that precision, for the output that loses most."""
        return self.worst.after_db

    @property
    def lost_db(self) -> float:
        """Decibels that the rewrite costs at the output that loses most."""
        return self.worst.lost_db


def precision_cost(
    before: onnx.ModelProto, after: onnx.ModelProto, to_precision: Typing, feeds: Sequence[Arrays]
) -> PrecisionCost:
    """Compare an original and its rewritten form in a precision, both against the original as it is (FP32).

    Only floating-point outputs count. Nothing is judged here: the caller knows its budget.

    Args:
        before: the original, FP32.
        after: the rewritten graph, FP32, of the same inputs and outputs.
        to_precision: writes the precision into a graph; every rounding has to happen (see
            :func:`csa_deploy.graph.fp16_rounding.keep_rounding`), and inputs and outputs stay as they are.
        feeds: inputs by name, one mapping for each run; real images say more than random ones.

    Raises:
        CannotRunError: one of the three graphs does not run.
    """
    exact = [Session(before).run(feed) for feed in feeds]
    powers = [_noise(exact, to_precision(model), feeds) for model in (before, after)]
    names = [name for name, array in exact[0].items() if array.dtype.kind == "f"]
    return PrecisionCost(tuple(OutputCost(name, *(power[name] for power in powers)) for name in names))


def _noise(exact: list[Arrays], typed: onnx.ModelProto, feeds: Sequence[Arrays]) -> dict[str, float]:
    """Signal-to-noise ratio of each floating-point output over all feeds."""
    session = Session(typed)
    signal, noise = dict[str, float](), dict[str, float]()
    for feed, expected in zip(feeds, exact, strict=True):
        got = session.run(feed)
        for name, array in expected.items():
            if array.dtype.kind == "f":
                finite = np.isfinite(array)
                want, have = array[finite].astype(np.float64), got[name][finite].astype(np.float64)
                signal[name] = signal.get(name, 0.0) + float((want**2).sum())
                difference = float(((want - have) ** 2).sum()) if np.isfinite(have).all() else math.inf
                noise[name] = noise.get(name, 0.0) + difference
    return {name: snr(signal[name], noise[name]) for name in signal}

"""What each layer's INT8 costs in accuracy: measured by quantizing it alone, and estimated from the histograms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx

from csa_deploy.precision.histogram import Histogram
from csa_deploy.precision.placement import Layer
from csa_deploy.precision.qdq import quantize_weight
from csa_deploy.precision.switch import Switchable
from csa_deploy.precision.thresholds import LEVELS

Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class Sensitivity:
    """One layer.

    Attributes:
        name: of the node.
        op: its operator.
        measured: energy of the output error with only this layer in INT8, relative to the energy of the output.
        estimated: relative error energy of its quantized inputs and weights, from the statistics alone.
        saved: seconds that INT8 saves, estimated.
    """

    name: str
    op: str
    measured: float
    estimated: float
    saved: float

    @property
    def rank(self) -> float:
        """Accuracy lost per time saved: the higher, the earlier the layer goes back."""
        return self.measured / max(self.saved, 1e-9)

    def to_json(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), "rank": self.rank}


def measure(
    network: Switchable, samples: Sequence[Feeds], progress: Callable[[int, int], None] | None = None
) -> dict[str, float]:
    """Relative error energy of the first output with one layer in INT8, by layer."""
    exact = [network.run(feeds, ()).astype(np.float64) for feeds in samples]
    energy = sum(float((out**2).sum()) for out in exact) or 1.0
    found = {}
    for number, layer in enumerate(network.layers):
        outputs = (network.run(feeds, (layer.name,)) for feeds in samples)
        found[layer.name] = sum(float(((a - b) ** 2).sum()) for a, b in zip(outputs, exact, strict=True)) / energy
        if progress:
            progress(number + 1, len(network.layers))
    return found


def estimate(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    histograms: Mapping[str, Histogram],
    thresholds: Mapping[str, float],
) -> dict[str, float]:
    """Relative error energy of each layer's inputs and weight, without running anything."""
    weights = {t.name: t for t in model.graph.initializer}
    found = {}
    for layer in layers:
        error = sum(_rounding(histograms[name], thresholds[name]) for name in layer.activations.values())
        if layer.weight:
            error += _weight_error(onnx.numpy_helper.to_array(weights[layer.weight]), layer.axis)
        found[layer.name] = error
    return found


def _rounding(histogram: Histogram, threshold: float) -> float:
    values, counts, scale = histogram.centres, histogram.counts, threshold / LEVELS
    rounded = np.minimum(np.rint(values / scale), LEVELS) * scale
    inside = values <= threshold
    # Bins are not points: within the range rounding has the error of a uniform distribution.
    error = np.where(inside, scale**2 / 12, (values - rounded) ** 2)
    return float(counts @ error) / (float(counts @ values**2) or 1.0)


def _weight_error(weight: np.ndarray, axis: int) -> float:
    error = quantize_weight(weight, axis).dequantized().astype(np.float64) - weight
    return float((error**2).sum()) / (float((weight.astype(np.float64) ** 2).sum()) or 1.0)


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's coefficient: how far two measures agree on the order."""
    first, second = (np.argsort(np.argsort(np.asarray(v), kind="stable"), kind="stable") for v in (a, b))
    return float(np.corrcoef(first, second)[0, 1]) if len(a) > 1 else 1.0

"""Rounds weights up or down so that the error of a layer's outputs is small, not that of each weight.

Whether a weight is rounded up or down is decided as in AdaRound (Nagel et al., 2020, arXiv 2004.10568) by what it does
to the layer's outputs on calibration images, but in closed form: weights are rounded one input after the other, and
those not yet rounded make up for the error so far, weighted by the second moments of the layer's rounded inputs
(optimal brain quantization; in this order GPTQ, Frantar et al., 2023, arXiv 2210.17323). One pass over the images
accumulates the moments, in memory that does not depend on their number; the same inputs give the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from csa_deploy.graph.shapes import inferred
from csa_deploy.precision.activations import Feeds, activations
from csa_deploy.precision.patches import Window, window_of
from csa_deploy.precision.qdq import QuantizedWeight, quantize_weight
from csa_deploy.precision.qdq_placement import QdqPlacement
from csa_deploy.precision.thresholds import INT8_LEVELS

_POSITIONS = 64  # output positions per image and layer that are taken into account
_LARGEST_INPUTS = 8192  # a layer with more inputs per output would need moments of more than 256 MiB
_MEMORY = 512 * 2**20  # bytes of moments at a time; with more weights there are more passes
_DAMPING = 0.01  # of the mean second moment, so that inputs that were not seen are rounded to nearest
_BLOCK = 128  # inputs between two updates of all weights that are left

Key = tuple[str, int]


def round_weights(
    model: onnx.ModelProto,
    placement: QdqPlacement,
    thresholds: Mapping[str, float],
    samples: Sequence[Feeds],
    *,
    half_scales: bool = False,
    seed: int = 0,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[Key, QuantizedWeight]:
    """INT8 weights by name and output-channel axis; their scales are those of plain rounding.

    Weights that are not covered (see :func:`window_of`) are left out.

    Args:
        model: FP32 graph.
        placement: layers that will be INT8.
        thresholds: by activation.
        samples: network inputs of the graph's batch size.
        half_scales: as for :func:`csa_deploy.precision.qdq.quantize_weight`.
        seed: of the positions that are taken into account.
        threads: of ONNX Runtime.
        progress: called with (weights done, weights).
    """
    targets = _targets(model, placement, thresholds)
    found: dict[Key, QuantizedWeight] = {}
    for portion in _portions(targets):
        moments = _moments(model, portion, thresholds, samples, seed, threads)
        for target in portion:
            found[target.key] = target.rounded(moments.pop(target.key), half_scales)
            if progress:
                progress(len(found), len(targets))
    return found


@dataclass
class _Target:
    """A weight, and the activations that it is multiplied with: several layers may share it."""

    key: Key
    exact: np.ndarray
    window: Window
    inputs: list[str]

    @property
    def moments_shape(self) -> tuple[int, int, int]:
        groups, _, inputs = self.window.matrix(self.exact).shape
        return groups, inputs, inputs

    def rounded(self, moments: np.ndarray, half_scales: bool) -> QuantizedWeight:
        plain = quantize_weight(self.exact, self.key[1], half_scales=half_scales)
        matrix = self.window.matrix(self.exact.astype(np.float64))
        scales = plain.scales.astype(np.float64).reshape(matrix.shape[:2])
        values = self.window.weight(_compensated(matrix, scales, moments.astype(np.float64)), self.exact.shape)
        return QuantizedWeight(np.ascontiguousarray(values), plain.scales, plain.axis)


def _targets(model: onnx.ModelProto, placement: QdqPlacement, thresholds: Mapping[str, float]) -> list[_Target]:
    nodes = {node.name: node for node in inferred(model).graph}
    weights = {t.name: t for t in model.graph.initializer}
    found: dict[Key, _Target] = {}
    for layer in placement.layers:
        window = window_of(nodes[layer.name], layer) if layer.weight else None
        if layer.weight is None or window is None or layer.activations[0] not in thresholds:
            continue
        key = layer.weight, layer.axis
        if key not in found:
            found[key] = _Target(key, onnx.numpy_helper.to_array(weights[layer.weight]), window, [])
        if found[key].window == window:  # else the weight is rounded for its first reader
            found[key].inputs.append(layer.activations[0])
    return [target for target in found.values() if target.moments_shape[1] <= _LARGEST_INPUTS]


def _portions(targets: Iterable[_Target]) -> Iterator[list[_Target]]:
    """As many weights at a time as the memory for their moments allows."""
    portion: list[_Target] = []
    size = 0
    for target in targets:
        needed = 4 * int(np.prod(target.moments_shape))
        if portion and size + needed > _MEMORY:
            yield portion
            portion, size = [], 0
        portion.append(target)
        size += needed
    if portion:
        yield portion


def _moments(
    model: onnx.ModelProto,
    targets: Sequence[_Target],
    thresholds: Mapping[str, float],
    samples: Iterable[Feeds],
    seed: int,
    threads: int | None,
) -> dict[Key, np.ndarray]:
    """Sums of products of the rounded inputs, FP32 of shape (groups, inputs, inputs) by weight."""
    draw = np.random.default_rng(seed)
    sums = {target.key: np.zeros(target.moments_shape, np.float32) for target in targets}
    names = [name for target in targets for name in target.inputs]
    for values in activations(model, names, samples, threads=threads):
        for target in targets:
            for name in target.inputs:
                scale = thresholds[name] / INT8_LEVELS
                rows = target.window.rows(values[name], _POSITIONS, draw)
                rounded = np.clip(np.rint(rows / scale), -INT8_LEVELS - 1, INT8_LEVELS).astype(np.float32) * np.float32(
                    scale
                )
                sums[target.key] += rounded.transpose(0, 2, 1) @ rounded
    return sums


def _compensated(weight: np.ndarray, scales: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Round input by input, those with the largest moments first; what is left makes up for the error so far.

    Args:
        weight: FP64 of shape (groups, outputs, inputs).
        scales: FP64 of shape (groups, outputs).
        moments: FP64 of shape (groups, inputs, inputs); changed.

    Returns:
        INT8 of the weight's shape.
    """
    inputs = np.arange(weight.shape[2])
    diagonal = moments[:, inputs, inputs]
    order = np.argsort(-diagonal, axis=1, kind="stable")
    moments[:, inputs, inputs] += _DAMPING * diagonal.mean(axis=1, keepdims=True) + np.finfo(np.float32).tiny
    moments = np.take_along_axis(np.take_along_axis(moments, order[:, :, None], 1), order[:, None, :], 2)
    weight = np.take_along_axis(weight, order[:, None, :], 2)
    # Row j of this factor says how the weights after j make up for an error in j, per unit of its diagonal.
    factor = np.linalg.cholesky(np.linalg.inv(moments)).transpose(0, 2, 1)
    rounded = np.empty_like(weight)
    for start in range(0, len(inputs), _BLOCK):
        end = min(start + _BLOCK, len(inputs))
        errors = np.empty_like(weight[:, :, start:end])
        for j in range(start, end):
            rounded[:, :, j] = np.clip(np.rint(weight[:, :, j] / scales), -INT8_LEVELS, INT8_LEVELS)
            error = (weight[:, :, j] - rounded[:, :, j] * scales) / factor[:, None, j, j]
            weight[:, :, j + 1 : end] -= error[:, :, None] * factor[:, None, j, j + 1 : end]
            errors[:, :, j - start] = error
        weight[:, :, end:] -= errors @ factor[:, start:end, end:]
    back = np.argsort(order, axis=1)
    return np.take_along_axis(rounded, back[:, None, :], 2).astype(np.int8)

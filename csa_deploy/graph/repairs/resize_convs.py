"""A linear Resize by any scales, as two 1x1 convolutions: along the height, and along the width.

Along one axis a linear Resize is a matrix with two numbers per row. DLA, which only enlarges by whole factors up to 4,
multiplies with it where the axis has changed places with the channels. What DLA takes as it is stays a Resize.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from csa_deploy.graph.repairs.resize_down import half_pixel_linear
from csa_deploy.graph.repairs.resize_scales import position_slack, scaled_axes, scales_of
from csa_deploy.graph.repairs.writing import Writer
from csa_deploy.graph.rewrite import is_float, node_rule, pattern_rule
from csa_deploy.graph.shapes import static_shape

_LARGEST_SCALE = 4
"""Whole factors up to this DLA resizes by itself."""


def interpolation(size: int, target: int, scale: float) -> np.ndarray:
    """Weights (target, size) of linear interpolation between half-pixel centres."""
    centres = np.clip((np.arange(target) + 0.5) / scale - 0.5, 0, size - 1)
    below = np.floor(centres).astype(int)
    weights = np.zeros((target, size))
    weights[np.arange(target), below] += 1 - (centres - below)
    weights[np.arange(target), np.minimum(below + 1, size - 1)] += centres - below
    return weights


def _to_convs(op: Any, resize: ir.Node) -> ir.Value | None:
    x, before, after = resize.inputs[0], static_shape(resize.inputs[0]), static_shape(resize.outputs[0])
    if x is None or before is None or after is None or len(before) != 4 or before[:2] != after[:2] or 0 in before:
        return None
    if not is_float(x) or not half_pixel_linear(resize, after) or _whole(before, after):
        return None
    scales = {axis: after[axis] / before[axis] for axis in (2, 3)}
    if (given := scales_of(resize)) is not None:
        scales.update(zip(scaled_axes(resize, 4), map(float, given), strict=True))
    writer = Writer(op, resize)
    # The axis that shrinks most first: the other convolution then has less to do.
    for axis in sorted((2, 3), key=lambda axis: after[axis] / before[axis]):
        if after[axis] != before[axis]:
            x = writer.mixed(x, axis, interpolation(before[axis], after[axis], scales[axis]))
    return x


def _whole(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    pairs = zip(before[2:], after[2:], strict=True)
    return all(large % small == 0 and large // small <= _LARGEST_SCALE for small, large in pairs)


RULE = pattern_rule(
    "resize_to_convs",
    "write linear Resize by scales that DLA does not take as 1x1 convolutions along height and width",
    [node_rule("Resize", _to_convs)],
    slack=position_slack,
    moves=True,
)

"""A linear Resize that shrinks by whole factors, as a depth-wise convolution.

With half-pixel centres, output position ``o`` reads input position ``f * o + (f - 1) / 2``: the centre tap for an odd
factor, the mean of the two centre taps for an even one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from csa_deploy.graph.facts import node_opset
from csa_deploy.graph.repairs.resize_scales import position_slack, scales_of
from csa_deploy.graph.rewrite import inherit, is_float, new_constant, node_rule, pattern_rule
from csa_deploy.graph.shapes import static_shape

_WITH_CENTRES = 11
"""The opset whose Resize knows coordinate_transformation_mode."""

_LARGEST_STRIDE = 8
"""Of a convolution on DLA."""


def _taps(factor: int) -> np.ndarray:
    """Weights of one axis, (factor,)."""
    taps = np.zeros(factor)
    taps[[(factor - 1) // 2, factor // 2]] = 1.0 if factor % 2 else 0.5
    return taps


def _to_conv(op: Any, resize: ir.Node) -> ir.Value | None:
    x = resize.inputs[0]
    before, after = static_shape(x), static_shape(resize.outputs[0])
    if before is None or after is None or len(before) != 4 or before[:2] != after[:2] or not is_float(x):
        return None
    if not half_pixel_linear(resize, after) or any(big % small for big, small in zip(before, after, strict=True)):
        return None
    vertical, horizontal = before[2] // after[2], before[3] // after[3]
    scales = scales_of(resize)
    if max(vertical, horizontal) > _LARGEST_STRIDE:
        return None  # resize_to_convs does it
    if (vertical, horizontal) == (1, 1) or (scales is not None and not _means(scales[-2:], vertical, horizontal)):
        return None
    assert x is not None and x.dtype is not None
    kernel = np.outer(_taps(vertical), _taps(horizontal)).astype(x.dtype.numpy())
    weight = np.ascontiguousarray(np.broadcast_to(kernel, (before[1], 1, vertical, horizontal)))
    out = op.Conv(
        x,
        new_constant(op, resize, weight, "weight"),
        _name=resize.name,
        kernel_shape=[vertical, horizontal],
        strides=[vertical, horizontal],
        pads=[0, 0, 0, 0],
        dilations=[1, 1],
        group=before[1],
    )
    return inherit(out, resize)


def _means(scales: np.ndarray, vertical: int, horizontal: int) -> bool:
    return bool(np.allclose(scales * np.array([vertical, horizontal]), 1.0, rtol=0, atol=1e-6))


def half_pixel_linear(resize: ir.Node, after: tuple[int, ...]) -> bool:
    """Whether a Resize to this shape interpolates linearly between half-pixel centres, at every position."""
    attributes = resize.attributes
    if node_opset(resize) < _WITH_CENTRES:
        return False  # before it, every Resize is asymmetric
    centres = attributes.get_string("coordinate_transformation_mode", "half_pixel")
    if centres == "pytorch_half_pixel" and 1 in after[2:]:
        return False  # a single output position is position 0 there, not the centre
    if attributes.get_string("keep_aspect_ratio_policy", "stretch") != "stretch":
        return False  # one scale for all axes, whose sizes are then rounded
    return (
        centres in ("half_pixel", "pytorch_half_pixel")
        and attributes.get_string("mode", "nearest") == "linear"
        and not attributes.get_int("antialias", 0)
    )


RULE = pattern_rule(
    "resize_down_to_conv",
    "write linear Resize that shrinks by whole factors as depth-wise convolution",
    [node_rule("Resize", _to_conv)],
    slack=position_slack,
    moves=True,
)

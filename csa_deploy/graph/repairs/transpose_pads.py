"""Explicit padding for a ConvTranspose that states its output_shape, from which the padding would follow.

TensorRT's parser makes another padding of output_shape than ONNX says (erratum convolution.transpose-output-shape).
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from csa_deploy.graph.rewrite import DeclinedError, inherit, node_rule, pattern_rule
from csa_deploy.graph.shapes import static_shape


def _padded(op: Any, node: ir.Node) -> ir.Value | None:
    wanted = node.attributes.get_ints("output_shape", None)
    shape, weights = (static_shape(value) for value in node.inputs[:2])
    if not wanted or shape is None or weights is None or len(wanted) != len(shape) - 2:
        return None
    total = _total(node, shape[2:], weights[2:], wanted)
    if min(total) < 0:
        raise DeclinedError("its output_shape is larger than its kernel reaches")
    before = _halves(total, node.attributes.get_string("auto_pad", "NOTSET") == "SAME_UPPER")
    pads = [*before, *(pad - first for pad, first in zip(total, before, strict=True))]
    kept = {name: value for name, value in node.attributes.items() if name not in ("auto_pad", "output_shape")}
    made = op.op("ConvTranspose", *node.inputs, _name=node.name, **{**kept, "pads": ir.AttrInt64s("pads", pads)})
    return inherit(made, node)


def _halves(total: list[int], upper: bool) -> list[int]:
    """Padding in front: the larger half, but for SAME_UPPER."""
    return [pad // 2 if upper else pad - pad // 2 for pad in total]


def _total(node: ir.Node, sizes: tuple[int, ...], kernel: tuple[int, ...], wanted: Any) -> list[int]:
    """Padding of both sides of each axis together, by ONNX's definition."""
    ones, zeros = (1,) * len(sizes), (0,) * len(sizes)
    strides = node.attributes.get_ints("strides", None) or ones
    dilations = node.attributes.get_ints("dilations", None) or ones
    more = node.attributes.get_ints("output_padding", None) or zeros
    axes = zip(sizes, kernel, strides, dilations, more, wanted, strict=True)
    return [s * (size - 1) + extra + (k - 1) * d + 1 - out for size, k, s, d, extra, out in axes]


RULE = pattern_rule(
    "transpose_pads",
    "state the padding of transposed convolutions instead of their output_shape",
    [node_rule("ConvTranspose", _padded)],
)

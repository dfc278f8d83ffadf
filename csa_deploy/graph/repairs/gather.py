"""Gather by constant indices, as 1x1 convolution whose weights are ones and zeros.

Each number of the output is one of the input's, times 1, plus others times 0: the same number for finite inputs, but
that a zero may lose its sign. An infinity or a NaN beside it would make it NaN, so what may be infinite is left alone.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from csa_deploy.graph.facts import constant
from csa_deploy.graph.repairs.growth import require_finite
from csa_deploy.graph.repairs.writing import Writer, picking, shape_of
from csa_deploy.graph.rewrite import DeclinedError, is_float, node_rule, pattern_rule
from csa_deploy.graph.shapes import static_shape


def _to_conv(op: Any, node: ir.Node) -> ir.Value | None:
    x, shape, made = node.inputs[0], static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if x is None or shape is None or made is None or 0 in (*shape, *made) or not shape or not is_float(x):
        return None
    if constant(x) is not None:
        return None  # a table, from which computed indices choose
    indices = constant(node.inputs[1])
    if indices is None:
        raise DeclinedError("its indices are computed")
    axis = node.attributes.get_int("axis", 0) % len(shape)
    length = shape[axis]
    if indices.min() < -length or indices.max() >= length:
        raise DeclinedError(f"an index is outside of -{length}..{length - 1}")
    require_finite(x)
    writer = Writer(op, node)
    picked = writer.mixed(writer.as_map(x), axis, picking(indices.reshape(-1) % length, length))
    return writer.reshape(picked, shape_of(node.outputs[0]))


RULE = pattern_rule(
    "gather_to_conv", "write Gather by constant indices as 1x1 convolution", [node_rule("Gather", _to_conv)]
)

"""Stride 1 for a pooling that makes a single position of an axis: there is no second step to take.

Global pooling is often written as ``AvgPool2d(k)`` on a map of k x k, whose stride is then k.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from csa_deploy.graph.rewrite import DeclinedError, inherit, node_rule, pattern_rule
from csa_deploy.graph.shapes import static_shape


def _to_one(op: Any, node: ir.Node) -> ir.Value | None:
    shape, made = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    strides = node.attributes.get_ints("strides", None)
    if shape is None or made is None or strides is None or len(shape) < 3 or len(shape) != len(made):
        return None
    single = [size == 1 for size in made[2:]]
    wanted = [1 if one else stride for one, stride in zip(single, strides, strict=True)]
    if wanted == list(strides):
        return None
    if len(node.outputs) > 1:
        raise DeclinedError("gives indices as well")
    if node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        raise DeclinedError("auto_pad derives its padding from the stride")
    for axis, one in enumerate(single):
        if one and strides[axis] != 1 and _room(node, shape, axis) != 0:
            raise DeclinedError("its window does not cover the map: with stride 1 there would be more positions")
    attributes = {**node.attributes, "strides": ir.AttrInt64s("strides", wanted)}
    return inherit(op.op(node.op_type, node.inputs[0], _name=node.name, **attributes), node)


def _room(node: ir.Node, shape: tuple[int, ...], axis: int) -> int:
    """Positions that the padded map is longer than the window."""
    rank = len(shape) - 2
    window = node.attributes.get_ints("kernel_shape", ()) or ()
    pads = node.attributes.get_ints("pads", None) or (0,) * (2 * rank)
    dilations = node.attributes.get_ints("dilations", None) or (1,) * rank
    return shape[axis + 2] + pads[axis] + pads[axis + rank] - (dilations[axis] * (window[axis] - 1) + 1)


RULE = pattern_rule(
    "pool_stride_to_one",
    "give poolings that make a single position stride 1",
    [node_rule(op_type, _to_one) for op_type in ("AveragePool", "MaxPool", "LpPool")],
)

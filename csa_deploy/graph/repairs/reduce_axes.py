"""Mean, sum and maximum over some axes, as pooling along height and width, and as 1x1 convolution along the rest.

TensorRT's parser makes a Reduce layer out of them, as of those over the whole map (:mod:`.global_pool`). A maximum is
the same number. A mean or a sum adds up in another order, and the convolution's weights are 1 / n as FP32 has it: equal
within rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from csa_deploy.graph.repairs.pooling import chain, poolings, reduced_axes
from csa_deploy.graph.repairs.writing import Writer, shape_of
from csa_deploy.graph.rewrite import DeclinedError, is_float, node_rule, pattern_rule
from csa_deploy.graph.shapes import static_shape

_HEIGHT, _WIDTH = 2, 3


def _to_layers(op: Any, node: ir.Node) -> ir.Value | None:
    x, shape, made = node.inputs[0], static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if x is None or shape is None or made is None or not shape or 0 in shape:
        return None
    if not is_float(x):
        raise DeclinedError("not floating point")
    axes = reduced_axes(node, len(shape))
    if axes is None:
        raise DeclinedError("its axes are computed")
    axes = [axis for axis in axes if shape[axis] > 1]
    if 0 in axes:
        raise DeclinedError("reduces over the batch")
    writer = Writer(op, node)
    value = writer.as_map(x)
    for along in _together(node.op_type, axes):
        value = _REDUCED[node.op_type](op, node, writer, value, along)
    value = writer.reshape(value, made)
    return writer.add("Identity", value, shape=made) if value is x else value


def _together(op_type: str, axes: list[int]) -> list[list[int]]:
    """Axes in the order in which they are reduced; height and width in one pooling."""
    sides = [axis for axis in axes if axis >= _HEIGHT]
    if op_type == "ReduceSum":
        return [[axis] for axis in axes[::-1]]
    return [part for part in (sides, [axis for axis in axes if axis < _HEIGHT]) if part]


def _mean(op: Any, node: ir.Node, writer: Writer, x: ir.Value, axes: list[int]) -> ir.Value:
    if axes != [1]:
        try:
            return _pooled(op, node, "AveragePool", x, axes)
        except DeclinedError:  # no windows: a convolution has any length
            pass
    for axis in axes:
        length = shape_of(x)[axis]
        x = writer.mixed(x, axis, np.full((1, length), 1 / length))
    return x


def _sum(op: Any, node: ir.Node, writer: Writer, x: ir.Value, axes: list[int]) -> ir.Value:
    return writer.mixed(x, axes[0], np.ones((1, shape_of(x)[axes[0]])))


def _maximum(op: Any, node: ir.Node, writer: Writer, x: ir.Value, axes: list[int]) -> ir.Value:
    if axes != [1]:
        return _pooled(op, node, "MaxPool", x, axes)
    return writer.swapped(_pooled(op, node, "MaxPool", writer.swapped(x, _WIDTH), [_WIDTH]), _WIDTH)


def _pooled(op: Any, node: ir.Node, kind: str, x: ir.Value, axes: list[int]) -> ir.Value:
    shape = shape_of(x)
    height, width = (shape[axis] if axis in axes else 1 for axis in (_HEIGHT, _WIDTH))
    return chain(op, node, kind, shape, poolings(kind, height, width), x)


_REDUCED = {"ReduceMean": _mean, "ReduceSum": _sum, "ReduceMax": _maximum}

RULE = pattern_rule(
    "reduce_to_layers",
    "write mean, sum and maximum over axes as pooling and 1x1 convolution",
    [node_rule(op_type, _to_layers) for op_type in _REDUCED],
)

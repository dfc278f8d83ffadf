"""Global pooling and reductions over the whole map, as pooling with a window of the map's size.

TensorRT's parser makes a Reduce layer out of the former and a Pooling layer out of the latter.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from csa_deploy.graph.rewrite import constant, inherit, new_constant, node_rule, pattern_rule
from csa_deploy.graph.shapes import static_shape

_POOL = {
    "GlobalAveragePool": "AveragePool",
    "ReduceMean": "AveragePool",
    "GlobalMaxPool": "MaxPool",
    "ReduceMax": "MaxPool",
}


def _to_pool(op: Any, node: ir.Node) -> ir.Value | None:
    shape, out_shape = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if shape is None or out_shape is None or len(shape) != 4 or not _over_map(node):
        return None
    pooled_shape = (*shape[:2], 1, 1)
    pooled = op.op(
        _POOL[node.op_type],
        node.inputs[0],
        _name=node.name,
        kernel_shape=list(shape[2:]),
        strides=[1, 1],
        pads=[0, 0, 0, 0],
    )
    inherit(pooled, node, shape=pooled_shape)
    if out_shape == pooled_shape:
        return pooled
    pooled.name = f"{node.outputs[0].name}_pooled"
    target = new_constant(op, node, np.array(out_shape, np.int64), "shape")
    return inherit(op.Reshape(pooled, target, _name=f"{node.name}_reshape"), node)


def _over_map(node: ir.Node) -> bool:
    """Whether a node reduces exactly height and width."""
    if not node.op_type.startswith("Reduce"):
        return True
    axes = node.attributes.get_ints("axes", None)
    if axes is None and len(node.inputs) > 1 and (values := constant(node.inputs[1])) is not None:
        axes = tuple(int(axis) for axis in values)
    return axes is not None and sorted(axis % 4 for axis in axes) == [2, 3]


RULE = pattern_rule(
    "global_pool_to_pool",
    "write global pooling and mean or maximum over the map as pooling with a window of the map's size",
    [node_rule(op_type, _to_pool) for op_type in _POOL],
)

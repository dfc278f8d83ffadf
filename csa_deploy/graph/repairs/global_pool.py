"""Global pooling and reductions over the whole map, as pooling with a window of the map's size.

TensorRT's parser makes a Reduce layer out of the former and a Pooling layer out of the latter. A map larger than the
windows of the scopes becomes a chain of poolings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from csa_deploy.graph.repairs.pooling import chain, poolings, reduced_axes
from csa_deploy.graph.rewrite import DeclinedError, inherit, is_float, new_constant, node_rule, pattern_rule
from csa_deploy.graph.shapes import static_shape

_POOL = {
    "GlobalAveragePool": "AveragePool",
    "ReduceMean": "AveragePool",
    "GlobalMaxPool": "MaxPool",
    "ReduceMax": "MaxPool",
}


def _to_pool(op: Any, node: ir.Node) -> ir.Value | None:
    shape, out_shape = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if shape is None or out_shape is None or len(shape) != 4 or 0 in shape or not _over_map(node):
        return None
    if not is_float(node.inputs[0]):
        raise DeclinedError("not floating point")
    kind = _POOL[node.op_type]
    pooled = chain(op, node, kind, shape, poolings(kind, shape[2], shape[3]))
    if out_shape == (*shape[:2], 1, 1):
        return pooled
    pooled.name = f"{node.outputs[0].name}_pooled"
    target = new_constant(op, node, np.array(out_shape, np.int64), "shape")
    return inherit(op.Reshape(pooled, target, _name=f"{node.name}_reshape"), node)


def _over_map(node: ir.Node) -> bool:
    """Whether a node reduces exactly height and width."""
    return not node.op_type.startswith("Reduce") or sorted(reduced_axes(node, 4) or ()) == [2, 3]


RULE = pattern_rule(
    "global_pool_to_pool",
    "write global pooling and mean or maximum over the map as pooling, in steps where the map is large",
    [node_rule(op_type, _to_pool) for op_type in _POOL],
)

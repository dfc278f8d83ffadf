"""Pooling over a whole map in steps, each with a window and a stride that every scope takes.

The mean of means over blocks of equal size is the mean, and the maximum of maxima is the maximum, also where blocks
overlap.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from csa_deploy.graph.repairs.pooling import chain, limits, plain_window, steps
from csa_deploy.graph.rewrite import node_rule, pattern_rule
from csa_deploy.graph.shapes import static_shape


def _split(op: Any, node: ir.Node) -> ir.Value | None:
    shape, allowed = static_shape(node.inputs[0]), limits()
    if shape is None or len(shape) != 4 or max(shape[2:]) <= allowed.window:
        return None
    if plain_window(node) != shape[2:] or static_shape(node.outputs[0]) != (*shape[:2], 1, 1):
        return None
    return chain(op, node, node.op_type, shape, steps(node.op_type, shape[2], shape[3], allowed))


RULE = pattern_rule(
    "pool_to_chain",
    "write pooling over a large map as a chain of poolings with small windows and strides",
    [node_rule("AveragePool", _split), node_rule("MaxPool", _split)],
)

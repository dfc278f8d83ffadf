"""Squeeze, Unsqueeze and Flatten as Reshape to a constant shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from csa_deploy.graph.facts import constant
from csa_deploy.graph.rewrite import inherit, new_constant, node_rule, pattern_rule
from csa_deploy.graph.shapes import static_shape


def _to_reshape(op: Any, node: ir.Node) -> ir.Value | None:
    shape = static_shape(node.outputs[0])
    axes_known = all(constant(value) is not None for value in node.inputs[1:] if value is not None)
    if shape is None or 0 in shape or not axes_known:
        return None
    target = new_constant(op, node, np.array(shape, np.int64), "shape")
    return inherit(op.Reshape(node.inputs[0], target, _name=node.name), node)


RULE = pattern_rule(
    "squeeze_to_reshape",
    "write Squeeze, Unsqueeze and Flatten as Reshape to a constant shape",
    [node_rule(op_type, _to_reshape) for op_type in ("Squeeze", "Unsqueeze", "Flatten")],
)

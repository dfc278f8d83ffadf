"""A Reshape moved across elementwise operators, to the Reshape behind them: there the two are one, or none.

Two Gemm that became convolutions leave ``Reshape, Relu, Reshape`` between them, whose Relu has rank 2. What works on
each element by itself does not see the shape: ``Reshape(f(Reshape(x))) = Reshape(f(x))``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from csa_deploy.graph.facts import constant
from csa_deploy.graph.operators import Trait, having
from csa_deploy.graph.rewrite import inherit, new_constant, node_rule, pattern_rule
from csa_deploy.graph.shapes import static_shape

_ELEMENTWISE = having(Trait.ELEMENTWISE)  # PRelu (a slope per channel), Softmax and the like look at the shape


def _collapsed(op: Any, last: ir.Node) -> ir.Value | None:
    shape, chain = static_shape(last.outputs[0]), _between(last)
    start = chain[0].inputs[0] if chain else None
    first = start.producer() if start is not None else None
    if shape is None or 0 in shape or first is None or not _is_reshape(first):
        return None
    value, before = first.inputs[0], static_shape(first.inputs[0])
    if value is None or before is None:
        return None
    for node in chain:
        made = getattr(op, node.op_type)(value, *node.inputs[1:], _name=node.name, **node.attributes)
        value = inherit(made, node, shape=before)
        value.name = f"{node.outputs[0].name}_unshaped"
    if before == shape:
        return value
    target = new_constant(op, last, np.array(shape, np.int64), "shape")
    return inherit(op.Reshape(value, target, _name=last.name), last)


def _between(last: ir.Node) -> list[ir.Node]:
    """The elementwise nodes in front of a Reshape that nothing else reads, the first first."""
    chain: list[ir.Node] = []
    node = last.inputs[0].producer() if last.inputs[0] is not None else None
    while node is not None and _is_elementwise(node) and _only_read_once(node.outputs[0]):
        chain.insert(0, node)
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    return chain


def _only_read_once(value: ir.Value) -> bool:
    return len(value.uses()) == 1 and not value.is_graph_output()


def _is_reshape(node: ir.Node) -> bool:
    return node.op_type == "Reshape" and node.domain == ""


def _is_elementwise(node: ir.Node) -> bool:
    if node.domain != "":
        return False
    if node.op_type == "Clip":  # its bounds are scalars
        return all(constant(value) is not None for value in node.inputs[1:] if value is not None)
    return node.op_type in _ELEMENTWISE


RULE = pattern_rule(
    "reshape_across_elementwise",
    "move a Reshape across elementwise operators to the Reshape behind them",
    [node_rule("Reshape", _collapsed)],
)

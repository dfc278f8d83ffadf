"""Clip, HardSigmoid and HardSwish out of ReLU, products and sums, which restricted mode is known to allow.

For ``b > 0``: ``min(max(t, 0), b) = b - relu(b - relu(t))``. Nothing grows with ``t``, so it holds in FP16 too, unlike
``relu(t) - relu(t - b)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from csa_deploy.graph.rewrite import constant, inherit, is_float, new_constant, node_rule, pattern_rule
from csa_deploy.graph.shapes import static_shape

_LARGEST_BOUND = 1e4


class _Chain:
    """Appends nodes that stand for ``node``, all under its module path."""

    def __init__(self, op: Any, node: ir.Node) -> None:
        self._op, self._node, self._count = op, node, 0

    def apply(self, op_type: str, x: ir.Value, operand: ir.Value | float | None = None) -> ir.Value:
        """``op_type(x)`` or ``op_type(x, operand)``."""
        self._count += 1
        label = f"{op_type.lower()}{self._count}"
        inputs = [x]
        if isinstance(operand, float):
            assert self._node.outputs[0].dtype is not None
            array = np.array(operand, self._node.outputs[0].dtype.numpy())
            inputs.append(new_constant(self._op, self._node, array, label))
        elif operand is not None:
            inputs.append(operand)
        value = inherit(self._op.op(op_type, *inputs, _name=f"{self._node.name}_{label}"), self._node)
        value.name = f"{self._node.outputs[0].name}_{label}"
        return value

    def clipped(self, t: ir.Value, bound: float) -> ir.Value:
        """``min(max(t, 0), bound)``."""
        inner = self.apply("Add", self.apply("Mul", self.apply("Relu", t), -1.0), bound)
        return self.apply("Add", self.apply("Mul", self.apply("Relu", inner), -1.0), bound)


def _usable(node: ir.Node) -> ir.Value | None:
    x = node.inputs[0]
    return (
        x if is_float(x) and static_shape(x) is not None and static_shape(x) == static_shape(node.outputs[0]) else None
    )


def _clip(op: Any, node: ir.Node) -> ir.Value | None:
    x = _usable(node)
    low, high = _bound(node, "min", 1), _bound(node, "max", 2)
    if x is None or low != 0.0 or high is None or not 0 < high <= _LARGEST_BOUND:
        return None
    return _Chain(op, node).clipped(x, high)


def _bound(node: ir.Node, name: str, index: int) -> float | None:
    """A constant bound of a Clip: an attribute before opset 11, an input from then on."""
    if name in node.attributes:
        return node.attributes[name].as_float()
    value = constant(node.inputs[index]) if len(node.inputs) > index else None
    return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None


def _hard_sigmoid(op: Any, node: ir.Node) -> ir.Value | None:
    x = _usable(node)
    if x is None:
        return None
    alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    chain = _Chain(op, node)
    return chain.clipped(chain.apply("Add", chain.apply("Mul", x, alpha), beta), 1.0)


def _hard_swish(op: Any, node: ir.Node) -> ir.Value | None:
    x = _usable(node)
    if x is None:
        return None
    chain = _Chain(op, node)
    gate = chain.clipped(chain.apply("Add", chain.apply("Mul", x, 1 / 6), 0.5), 1.0)
    return chain.apply("Mul", gate, x)


RULE = pattern_rule(
    "hard_activation_to_relu",
    "write Clip from 0, HardSigmoid and HardSwish out of ReLU, products and sums",
    [node_rule("Clip", _clip), node_rule("HardSigmoid", _hard_sigmoid), node_rule("HardSwish", _hard_swish)],
)

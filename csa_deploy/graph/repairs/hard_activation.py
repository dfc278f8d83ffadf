"""Clip, HardSigmoid and HardSwish out of ReLU, Scale and products, which restricted mode is known to allow.

For ``b > 0``: ``min(max(t, 0), b) = b - relu(b - relu(t))``. Nothing grows with ``t``, so it holds in FP16 too, unlike
``relu(t) - relu(t - b)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from csa_deploy.graph.repairs.scale import scaled
from csa_deploy.graph.rewrite import constant, inherit, is_float, node_rule, pattern_rule
from csa_deploy.graph.shapes import static_shape

_LARGEST_BOUND = 1e4


class _Chain:
    """Appends nodes that stand for ``node``, all under its module path; constants are per channel."""

    def __init__(self, op: Any, node: ir.Node, channels: int) -> None:
        self._op, self._node, self._ones, self._count = op, node, np.ones(channels), 0

    def relu(self, x: ir.Value) -> ir.Value:
        """``max(x, 0)``."""
        return self._named(inherit(self._op.Relu(x, _name=f"{self._node.name}_relu{self._count}"), self._node))

    def affine(self, x: ir.Value, scale: float, shift: float) -> ir.Value:
        """``x * scale + shift``."""
        name = f"{self._node.name}_scale{self._count}"
        return self._named(scaled(self._op, self._node, x, scale * self._ones, shift * self._ones, name))

    def clipped(self, t: ir.Value, bound: float) -> ir.Value:
        """``min(max(t, 0), bound)``."""
        return self.affine(self.relu(self.affine(self.relu(t), -1.0, bound)), -1.0, bound)

    def _named(self, value: ir.Value) -> ir.Value:
        value.name = f"{self._node.outputs[0].name}_{self._count}"
        self._count += 1
        return value


def _chain(op: Any, node: ir.Node) -> tuple[_Chain, ir.Value] | None:
    """A chain in place of ``node``, and what it starts from; None where that has no channels or no known shape."""
    x, shape = node.inputs[0], static_shape(node.inputs[0])
    if x is None or shape is None or len(shape) < 2 or not is_float(x) or shape != static_shape(node.outputs[0]):
        return None
    return _Chain(op, node, shape[1]), x


def _clip(op: Any, node: ir.Node) -> ir.Value | None:
    start, low, high = _chain(op, node), _bound(node, "min", 1), _bound(node, "max", 2)
    if start is None or low != 0.0 or high is None or not 0 < high <= _LARGEST_BOUND:
        return None
    chain, x = start
    return chain.clipped(x, high)


def _bound(node: ir.Node, name: str, index: int) -> float | None:
    """A constant bound of a Clip: an attribute before opset 11, an input from then on."""
    if name in node.attributes:
        return node.attributes[name].as_float()
    value = constant(node.inputs[index]) if len(node.inputs) > index else None
    return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None


def _hard_sigmoid(op: Any, node: ir.Node) -> ir.Value | None:
    start = _chain(op, node)
    if start is None:
        return None
    chain, x = start
    alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    return chain.clipped(chain.affine(x, alpha, beta), 1.0)


def _hard_swish(op: Any, node: ir.Node) -> ir.Value | None:
    start = _chain(op, node)
    if start is None:
        return None
    chain, x = start
    gate = chain.clipped(chain.affine(x, 1 / 6, 0.5), 1.0)
    return inherit(op.Mul(gate, x, _name=node.name), node)


RULE = pattern_rule(
    "hard_activation_to_relu",
    "write Clip from 0, HardSigmoid and HardSwish out of ReLU, Scale and products",
    [node_rule("Clip", _clip), node_rule("HardSigmoid", _hard_sigmoid), node_rule("HardSwish", _hard_swish)],
)

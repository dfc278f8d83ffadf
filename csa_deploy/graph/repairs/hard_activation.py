"""Clip, HardSigmoid and HardSwish out of ReLU, Scale and sums, which restricted mode is known to allow.

``min(max(t, 0), b) = relu(t) - relu(t - b)``, and for other lower bounds ``t - relu(t - b) + relu(a - t)``. Inside the
bounds nothing is added but zeros, so small activations keep all their digits, in FP16 too. Above ``b`` the result is
``t - (t - b)``: exactly ``b`` where that is a multiple of the unit in the last place of ``t`` (ReLU6: below 4096 in
FP16), else off by at most half that unit.

Of an infinite ``t`` that would make NaN, and of one beyond ``2 b / eps`` 0. Where such numbers are to be expected,
behind exponentials, logarithms and quotients, the node is left as it is.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from csa_deploy.graph.facts import constant
from csa_deploy.graph.repairs.growth import require_finite
from csa_deploy.graph.repairs.scale import scaled
from csa_deploy.graph.rewrite import DeclinedError, inherit, is_float, node_rule, pattern_rule
from csa_deploy.graph.shapes import static_shape

_LARGEST_BOUND = 1e4
_NO_BOUND = 3e38  # the default of Clip's attributes


class _Chain:
    """Appends nodes that stand for ``node``, all under its module path; constants are per channel."""

    def __init__(self, op: Any, node: ir.Node, channels: int) -> None:
        self._op, self._node, self._ones, self._count = op, node, np.ones(channels), 0

    def relu(self, x: ir.Value) -> ir.Value:
        """``max(x, 0)``."""
        return self._named(inherit(self._op.Relu(x, _name=self._next("relu")), self._node))

    def affine(self, x: ir.Value, scale: float, shift: float) -> ir.Value:
        """``x * scale + shift``; ``x`` itself where that is all."""
        if (scale, shift) == (1.0, 0.0):
            return x
        name = self._next("scale")
        return self._named(scaled(self._op, self._node, x, scale * self._ones, shift * self._ones, name))

    def add(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """``a + b``."""
        return self._named(inherit(self._op.Add(a, b, _name=self._next("add")), self._node))

    def clipped(self, x: ir.Value, low: float | None, high: float | None, scale: float, shift: float) -> ir.Value:
        """``min(max(x * scale + shift, low), high)``."""
        t = self.affine(x, scale, shift)
        if low or high is not None:
            require_finite(self._node.inputs[0])
        value = self.relu(t) if low == 0.0 else t
        if high is not None:
            above = self.relu(self.affine(t, 1.0, -high))
            value = self.add(value, self.affine(above, -1.0, 0.0))
        if low:
            value = self.add(value, self.relu(self.affine(t, -1.0, low)))
        return value

    def _next(self, what: str) -> str:
        return f"{self._node.name}_{what}{self._count}"

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
    start = _chain(op, node)
    if start is None:
        return None
    low, high = _bound(node, "min", 1, -math.inf), _bound(node, "max", 2, math.inf)
    if low is None and high is None:
        return None
    if low is not None and high is not None and low >= high:
        raise DeclinedError(f"its bounds {low:g} and {high:g} leave nothing between them")
    if max(abs(low or 0.0), abs(high or 0.0)) > _LARGEST_BOUND:
        raise DeclinedError(f"a bound is beyond {_LARGEST_BOUND:g}")
    chain, x = start
    return chain.clipped(x, low, high, 1.0, 0.0)


def _bound(node: ir.Node, name: str, index: int, none: float) -> float | None:
    """A constant bound of a Clip, an attribute before opset 11, an input from then on; None where it has none."""
    if name in node.attributes:
        found = node.attributes[name].as_float()
    elif len(node.inputs) <= index or node.inputs[index] is None:
        return None
    else:
        value = constant(node.inputs[index])
        if value is None or value.size != 1:
            raise DeclinedError(f"its {name} is computed")
        found = float(value.reshape(-1)[0])
    if math.isnan(found):
        raise DeclinedError(f"its {name} is NaN")
    return None if found == none or abs(found) >= _NO_BOUND else found


def _hard_sigmoid(op: Any, node: ir.Node) -> ir.Value | None:
    start = _chain(op, node)
    if start is None:
        return None
    chain, x = start
    alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    return chain.clipped(x, 0.0, 1.0, alpha, beta)


def _hard_swish(op: Any, node: ir.Node) -> ir.Value | None:
    start = _chain(op, node)
    if start is None:
        return None
    chain, x = start
    return inherit(op.Mul(chain.clipped(x, 0.0, 1.0, 1 / 6, 0.5), x, _name=node.name), node)


def _rounding(before: ir.Model, after: ir.Model) -> dict[str, float]:
    """One unit in the last place of the largest number that a Clip reads: what ``t - (t - b)`` may be off by."""
    found = dict[str, float]()
    for node in before.graph:
        value = node.inputs[0] if node.op_type == "Clip" and not node.domain else None
        if value is not None and value.dtype is not None and is_float(value) and node.outputs[0].name:
            found[node.outputs[0].name] = float(np.finfo(value.dtype.numpy()).eps)
    return found


RULE = pattern_rule(
    "hard_activation_to_relu",
    "write Clip, HardSigmoid and HardSwish out of ReLU, Scale, sums and products",
    [node_rule("Clip", _clip), node_rule("HardSigmoid", _hard_sigmoid), node_rule("HardSwish", _hard_swish)],
    slack=_rounding,
)

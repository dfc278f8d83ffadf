"""Nodes that scale and shift each channel by constants, and how a convolution or Gemm takes them over.

onnxscript's own BatchNormalization rule is not used: it refuses weights that several nodes share, folds a node in
training mode as if it were not, computes in the weights' own precision, and gives the result neither the name nor
the module path of the convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import RewriteRule

from csa_deploy.graph.facts import constant, node_opset
from csa_deploy.graph.rewrite import inherit, is_float, new_weight
from csa_deploy.graph.shapes import static_shape

Affine = tuple[np.ndarray, np.ndarray]
"""Scale and shift per channel, each of shape (C,), float64."""

Folded = Callable[[ir.Value, ir.Value, ir.Value], tuple[np.ndarray, np.ndarray] | None]

_BROADCASTS = 7
"""The opset from which operators broadcast as NumPy does, and BatchNormalization and Dropout are for inference."""

AFFINES = ("BatchNormalization", "Mul", "Add", "Sub", "Div", "Neg")
"""Operators that can scale and shift channels by constants."""

COMMUTING = ("Mul", "Add", "Sub")
"""Those that can also do it with the constant as the first operand."""


def chain(first: str, second: str, *, constant_first: str | None = None) -> Callable[..., Any]:
    """Pattern of two operators in a row, ``x -> made -> out``; ``constant_first`` has its constant as first operand."""

    def call(op: Any, operator: str, data: Any, constant: Any, output: str) -> Any:
        if operator == constant_first:
            return getattr(op, operator)(constant, data, _outputs=[output])
        return getattr(op, operator)(data, _allow_other_inputs=True, _outputs=[output])

    def pattern(op: Any, x: Any) -> Any:
        return call(op, second, call(op, first, x, None, "made"), None, "out")

    def with_constant(op: Any, x: Any, first_operand: Any) -> Any:
        return call(op, second, call(op, first, x, first_operand, "made"), first_operand, "out")

    return pattern if constant_first is None else with_constant


def affine_rules(layers: Iterable[str], folded: Folded, *, affine_first: bool) -> list[RewriteRule]:
    """A rule for each layer, each affine operator beside it, and each side that its constant can stand on.

    Args:
        layers: their operators.
        folded: of ``x``, what the first of both makes, and what the second makes: weight and bias of one layer that
            does both; None where there is none.
        affine_first: whether the layer is the second.
    """

    def check(context: Any, x: ir.Value, made: ir.Value, out: ir.Value, **_: Any) -> bool:
        return folded(x, made, out) is not None

    def rewrite(op: Any, x: ir.Value, made: ir.Value, out: ir.Value, **_: Any) -> ir.Value | None:
        layer, both = (out if affine_first else made).producer(), folded(x, made, out)
        return with_weights(op, layer, x, *both) if layer is not None and both is not None else None

    return [
        RewriteRule(
            chain(*((affine, layer) if affine_first else (layer, affine)), constant_first=constant),
            rewrite,
            check,
            name=f"Fold{affine}{'Before' if affine_first else 'Into'}{layer}",
        )
        for layer in layers
        for affine in AFFINES
        for constant in (None, affine)
        if constant is None or affine in COMMUTING
    ]


def channel_affine(node: ir.Node, data: ir.Value) -> Affine | None:
    """``node`` as ``data * scale + shift`` per channel (axis 1), or None where it is not that."""
    shape = static_shape(data)
    if shape is None or len(shape) < 2 or not is_float(data):
        return None
    if node.op_type == "BatchNormalization":
        return _batch_norm(node)
    if node.op_type == "Neg":
        return -np.ones(shape[1]), np.zeros(shape[1])
    return _elementwise(node, data, shape)


def _batch_norm(node: ir.Node) -> Affine | None:
    values = [constant(value) for value in node.inputs[1:5]]
    if node_opset(node) < _BROADCASTS or not node.attributes.get_int("spatial", 1):
        return None  # before it, is_test decides; until opset 8, statistics may differ by position
    if node.attributes.get_int("training_mode", 0) or len(node.outputs) > 1 or any(v is None for v in values):
        return None
    gamma, beta, mean, variance = (np.asarray(v, np.float64) for v in values)
    scale = gamma / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    return scale, beta - mean * scale


def _elementwise(node: ir.Node, data: ir.Value, shape: tuple[int, ...]) -> Affine | None:
    if node_opset(node) < _BROADCASTS:
        return None  # before it, attributes decide how operands broadcast
    left = node.inputs[0] is data
    operand = _per_channel(node.inputs[1 if left else 0], shape)
    if operand is None:
        return None
    one, zero = np.ones_like(operand), np.zeros_like(operand)
    if node.op_type == "Mul":
        return operand, zero
    if node.op_type == "Add":
        return one, operand
    if node.op_type == "Sub":
        return (one, -operand) if left else (-one, operand)
    return (1.0 / operand, zero) if node.op_type == "Div" and left and operand.all() else None


def _per_channel(value: ir.Value | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """A constant that broadcasts along axis 1 only, as (C,)."""
    array = constant(value)
    if array is None or array.ndim > len(shape):
        return None
    array = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    if array.size not in (1, shape[1]) or array.size != array.shape[1]:
        return None
    return np.broadcast_to(array.reshape(-1).astype(np.float64), (shape[1],))


def weights_of(node: ir.Node) -> tuple[np.ndarray, np.ndarray] | None:
    """Weight and bias (output channels,) of a Conv, ConvTranspose or Gemm in float64, or None if not constant."""
    weight = constant(node.inputs[1])
    bias_value = node.inputs[2] if len(node.inputs) > 2 else None
    if weight is None or weight.dtype.kind != "f":
        return None
    outputs = output_channels(node, weight)
    if bias_value is None:
        return weight.astype(np.float64), np.zeros(outputs)
    bias = constant(bias_value)
    if bias is None or bias.size not in (1, outputs) or (bias.ndim and bias.size != bias.shape[-1]):
        return None
    factor = node.attributes.get_float("beta", 1.0)
    return weight.astype(np.float64), np.broadcast_to(bias.reshape(-1).astype(np.float64) * factor, (outputs,))


def output_channels(node: ir.Node, weight: np.ndarray) -> int:
    """Output channels of a Conv, ConvTranspose or Gemm."""
    if node.op_type == "Conv":
        return int(weight.shape[0])
    if node.op_type == "ConvTranspose":
        return int(weight.shape[1]) * node.attributes.get_int("group", 1)
    return int(weight.shape[0 if node.attributes.get_int("transB", 0) else 1])


def with_weights(op: Any, layer: ir.Node, x: ir.Value, weight: np.ndarray, bias: np.ndarray) -> ir.Value:
    """``layer`` on ``x`` with other weights, under its own name and module path."""
    attributes = {name: value for name, value in layer.attributes.items() if name != "beta"}
    old_bias = layer.inputs[2] if len(layer.inputs) > 2 else None
    out = op.op(
        layer.op_type,
        x,
        new_weight(op, layer, layer.inputs[1], weight, "weight"),
        new_weight(op, layer, old_bias, bias, "bias"),
        _name=layer.name,
        **attributes,
    )
    return inherit(out, layer)

"""Gemm and MatMul with constant weights, as 1x1 convolutions between Reshapes.

Rows become the batch of the convolution: (rows, K) -> (rows, K, 1, 1) -> (rows, N, 1, 1) -> (rows, N).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from csa_deploy.graph.facts import constant
from csa_deploy.graph.rewrite import inherit, is_float, new_constant, node_rule, pattern_rule
from csa_deploy.graph.rules.channel_affine import weights_of
from csa_deploy.graph.shapes import static_shape


def _gemm(op: Any, node: ir.Node) -> ir.Value | None:
    weights = weights_of(node)
    if weights is None or bool(node.attributes.get_int("transA", 0)):
        return None
    weight, bias = weights
    if not node.attributes.get_int("transB", 0):
        weight = weight.T
    return _conv(op, node, weight * node.attributes.get_float("alpha", 1.0), bias)


def _matmul(op: Any, node: ir.Node) -> ir.Value | None:
    weight = constant(node.inputs[1])
    if weight is None or weight.ndim != 2:
        return None
    return _conv(op, node, weight.T, None)


def _conv(op: Any, node: ir.Node, weight: np.ndarray, bias: np.ndarray | None) -> ir.Value | None:
    """The layer with ``weight`` (N, K) and ``bias`` (N,)."""
    x = node.inputs[0]
    shape, out_shape = static_shape(x), static_shape(node.outputs[0])
    if shape is None or out_shape is None or len(shape) < 2 or not is_float(x):
        return None
    assert x is not None and x.dtype is not None
    dtype = x.dtype.numpy()
    outputs, inner = weight.shape
    rows = math.prod(shape[:-1])

    def stored(array: np.ndarray, suffix: str) -> ir.Value:
        return new_constant(op, node, array.astype(dtype), suffix)

    def reshaped(value: ir.Value, target: tuple[int, ...], suffix: str) -> ir.Value:
        dims = new_constant(op, node, np.array(target, np.int64), f"{suffix}_shape")
        return inherit(op.Reshape(value, dims, _name=f"{node.name}_{suffix}"), node, shape=target)

    parameters = [stored(weight.reshape(outputs, inner, 1, 1), "weight")]
    if bias is not None and bias.any():
        parameters.append(stored(bias, "bias"))
    rows_first = reshaped(x, (rows, inner, 1, 1), "in")
    rows_first.name = f"{node.outputs[0].name}_in"
    result = op.Conv(
        rows_first, *parameters, _name=node.name, kernel_shape=[1, 1], strides=[1, 1], pads=[0, 0, 0, 0], group=1
    )
    inherit(result, node, shape=(rows, outputs, 1, 1)).name = f"{node.outputs[0].name}_conv"
    return reshaped(result, out_shape, "out")


RULE = pattern_rule(
    "gemm_to_conv",
    "write Gemm and MatMul with constant weights as 1x1 convolution between Reshapes",
    [node_rule("Gemm", _gemm), node_rule("MatMul", _matmul)],
)

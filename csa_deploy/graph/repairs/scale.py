"""Products and sums with constants, as BatchNormalization with mean 0 and variance 1.

TensorRT's parser makes a Scale layer out of it. From Mul or Add it makes an ElementWise layer that reads a Constant
layer, which restricted mode and DLA are not known to take.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from csa_deploy.graph.rewrite import inherit, new_constant, node_rule, pattern_rule
from csa_deploy.graph.rules.channel_affine import AFFINES, channel_affine
from csa_deploy.graph.shapes import static_shape


def scaled(op: Any, node: ir.Node, x: ir.Value, scale: np.ndarray, shift: np.ndarray, name: str) -> ir.Value:
    """``x * scale + shift`` per channel (axis 1), standing for (a part of) ``node``; ``scale``, ``shift``: (C,)."""
    assert x.dtype is not None
    dtype, own = x.dtype.numpy(), name.removeprefix(f"{node.name}_")
    parts = {"scale": scale, "shift": shift, "mean": np.zeros_like(scale), "variance": np.ones_like(scale)}
    constants = [new_constant(op, node, part.astype(dtype), f"{own}_{key}") for key, part in parts.items()]
    return inherit(op.BatchNormalization(x, *constants, _name=name, epsilon=0.0), node)


def _to_scale(op: Any, node: ir.Node) -> ir.Value | None:
    for x in node.inputs:
        affine = channel_affine(node, x) if x is not None else None
        if affine is not None and x is not None and static_shape(x) == static_shape(node.outputs[0]):
            return scaled(op, node, x, *affine, name=node.name or node.op_type)
    return None


RULE = pattern_rule(
    "constant_to_scale",
    "write products and sums with constants per channel as BatchNormalization, a Scale layer",
    [node_rule(op_type, _to_scale) for op_type in AFFINES if op_type != "BatchNormalization"],
)

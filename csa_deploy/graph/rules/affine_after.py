"""Fold a per-channel scale or shift into the convolution or Gemm before it.

BatchNormalization, layer scale (a product with a constant of shape (1, C, 1, 1)) and added constants are all of the
form ``y * scale + shift``, which the weights and bias of the layer that makes ``y`` take over exactly.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from csa_deploy.graph.rewrite import pattern_rule
from csa_deploy.graph.rules.channel_affine import affine_rules, channel_affine, weights_of
from csa_deploy.graph.shapes import static_shape


def _folded(x: ir.Value, made: ir.Value, out: ir.Value) -> tuple[np.ndarray, np.ndarray] | None:
    """Weight and bias of ``affine(layer(x))`` as one layer, or None where it is not one."""
    layer, affine = made.producer(), out.producer()
    assert layer is not None and affine is not None
    scale_shift, weights = channel_affine(affine, made), weights_of(layer)
    if scale_shift is None or weights is None or static_shape(made) != static_shape(out):
        return None
    (scale, shift), (weight, bias) = scale_shift, weights
    return _scaled_outputs(layer, weight, scale), bias * scale + shift


def _scaled_outputs(layer: ir.Node, weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """``weight`` with every output channel multiplied by its ``scale``."""
    if layer.op_type == "Conv":
        return weight * scale.reshape(-1, *(1,) * (weight.ndim - 1))
    if layer.op_type == "Gemm":
        return weight * (scale[:, None] if layer.attributes.get_int("transB", 0) else scale)
    groups = layer.attributes.get_int("group", 1)  # ConvTranspose: (in, out / groups, ...)
    split = weight.reshape(groups, -1, *weight.shape[1:])
    return (split * scale.reshape(groups, 1, weight.shape[1], *(1,) * (weight.ndim - 2))).reshape(weight.shape)


_LAYERS = ("Conv", "ConvTranspose", "Gemm")

RULE = pattern_rule(
    "fold_affine_after",
    "fold BatchNormalization, layer scale and added constants into the convolution or Gemm before them",
    affine_rules(_LAYERS, _folded, affine_first=False),
)

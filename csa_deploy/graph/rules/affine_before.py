"""Fold a per-channel scale or shift into the convolution or Gemm after it.

Exact for a pure scale always, and for a shift only where the convolution does not pad: padding adds zeros after the
shift, not before it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from csa_deploy.graph.rewrite import pattern_rule
from csa_deploy.graph.rules.channel_affine import affine_rules, channel_affine, weights_of
from csa_deploy.graph.shapes import static_shape


def _folded(x: ir.Value, made: ir.Value, out: ir.Value) -> tuple[np.ndarray, np.ndarray] | None:
    """Weight and bias of ``layer(affine(x))`` as one layer, or None where it is not one."""
    affine, layer = made.producer(), out.producer()
    assert affine is not None and layer is not None
    scale_shift, weights = channel_affine(affine, x), weights_of(layer)
    if scale_shift is None or weights is None or static_shape(x) != static_shape(made):
        return None
    if not _keeps_exact(layer, scale_shift[1]):
        return None
    weight, bias = weights
    scale, shift = (_along_inputs(layer, weight, values) for values in scale_shift)
    added = (weight * shift).sum(axis=_input_axes(layer, weight))
    if layer.op_type == "Gemm":
        added = added * layer.attributes.get_float("alpha", 1.0)
    return weight * scale, bias + added


def _keeps_exact(layer: ir.Node, shift: np.ndarray) -> bool:
    if layer.op_type == "Gemm":
        return not layer.attributes.get_int("transA", 0)
    return not pads(layer) or not shift.any()


def _input_axes(layer: ir.Node, weight: np.ndarray) -> tuple[int, ...]:
    """Axes of the weight that a layer sums over."""
    if layer.op_type == "Gemm":
        return (1,) if layer.attributes.get_int("transB", 0) else (0,)
    return tuple(range(1, weight.ndim))


def pads(layer: ir.Node) -> bool:
    """Whether a convolution pads its input."""
    if layer.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return True
    return any(layer.attributes.get_ints("pads", ()) or ())


def _along_inputs(layer: ir.Node, weight: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values per input channel, shaped to multiply ``weight``."""
    if layer.op_type == "Gemm":
        return values if layer.attributes.get_int("transB", 0) else values[:, None]
    groups = layer.attributes.get_int("group", 1)
    per_output = np.repeat(values.reshape(groups, -1), weight.shape[0] // groups, axis=0)
    return per_output.reshape(*weight.shape[:2], *(1,) * (weight.ndim - 2))


_LAYERS = ("Conv", "Gemm")

RULE = pattern_rule(
    "fold_affine_before",
    "fold BatchNormalization and constant scales and shifts into the convolution or Gemm after them",
    affine_rules(_LAYERS, _folded, affine_first=True),
)

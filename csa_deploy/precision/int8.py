"""INT8 graphs of one network: Q/DQ on the layers asked for, FP16 around them where the opset allows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import onnx

from csa_deploy.graph.facts import opset_of
from csa_deploy.graph.operators import ONNX_DOMAINS
from csa_deploy.precision.fp16 import to_fp16
from csa_deploy.precision.qdq import NOTHING, Adjustments, insert_qdq
from csa_deploy.precision.qdq_placement import QdqPlacement
from csa_deploy.records.precision import KeptNode, Layer

# Opset 19 is the first whose QuantizeLinear takes FP16. What it changes over 18 is additions only, so that a graph of
# opset 18 is one of opset 19; older graphs (TensorRT 8.6) keep FP32 between their INT8 layers, which TensorRT's weak
# typing (trtexec --fp16 --int8) makes FP16.
_HALF_FROM, _RAISED_FROM = 19, 18


@dataclass(frozen=True)
class Int8Result:
    """A graph in INT8.

    Attributes:
        model: the graph.
        layers: nodes in INT8.
        kept: nodes that could be INT8 and stay in ``rest``, with the reason.
        kept_fp32: nodes that stay in FP32 although the rest is FP16.
        rest: precision of everything else.
        scales: of the activations, by tensor.
    """

    model: onnx.ModelProto
    layers: tuple[Layer, ...]
    kept: dict[str, str]
    kept_fp32: tuple[KeptNode, ...]
    rest: str
    scales: dict[str, float]


def rest_of(model: onnx.ModelProto) -> str:
    """Precision of what is not INT8: FP16 where the opset can say so."""
    return "fp16" if opset_of(model) >= _RAISED_FROM else "fp32"


def to_int8(
    model: onnx.ModelProto,
    placement: QdqPlacement,
    thresholds: Mapping[str, float],
    *,
    kept: Mapping[str, str] | None = None,
    keep_fp32: Iterable[str] = (),
    largest: Mapping[str, float] | None = None,
    adjustments: Adjustments = NOTHING,
    io: Literal["fp32", "fp16"] = "fp32",
) -> Int8Result:
    """Write INT8 into a graph.

    Args:
        model: FP32 graph; not changed.
        placement: what can run in INT8.
        thresholds: largest value that INT8 represents, by activation.
        kept: layers to leave in floating point, with the reason.
        keep_fp32: nodes to leave in FP32.
        largest: measured largest value by activation; see :func:`csa_deploy.precision.fp16.to_fp16`.
        adjustments: weights and biases of INT8 layers that are not the plain ones.
        io: type of the network's inputs and outputs, where the rest is FP16.

    Raises:
        UsageError: ``keep_fp32`` names a node that is not there.
    """
    keep_fp32 = tuple(keep_fp32)
    half = rest_of(model) == "fp16"
    reasons = dict(kept or {}) | dict.fromkeys(keep_fp32, "kept on request")
    quantized = insert_qdq(model, placement, thresholds, kept=reasons, half_scales=half, adjustments=adjustments)
    known = {layer.name for layer in placement.layers} | set(placement.refused)
    left = {name: reason for name, reason in quantized.kept.items() if name in known}
    if not half:
        return Int8Result(quantized.model, quantized.layers, left, (), "fp32", quantized.scales)
    for entry in quantized.model.opset_import:
        if entry.domain in ONNX_DOMAINS:
            entry.version = max(entry.version, _HALF_FROM)
    typed = to_fp16(quantized.model, io=io, keep_fp32=keep_fp32, largest=largest)
    return Int8Result(typed.model, quantized.layers, left, typed.kept, "fp16", quantized.scales)

"""Which tensors have to be measured, and what the size of the others follows from."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx
import onnx_ir as ir

from csa_deploy.graph.facts import is_constant
from csa_deploy.graph.operators import GATES, Trait, having
from csa_deploy.graph.shapes import inferred, static_shape

# A linear Resize, which is told by its mode, interpolates.
_BOUNDED = having(Trait.MOVES | Trait.SELECTS | Trait.AVERAGES | Trait.GATE)
_ANY = 1.0
"""Stands for the size of what was zero throughout: every scale represents it."""


def to_measure(graph: ir.Graph, known: set[str]) -> list[str]:
    """FP32 inputs and tensors whose size does not follow from that of others, but for those in ``known``."""
    inputs = [value for value in graph.inputs if not value.is_initializer()]
    made = [value for node in graph if not _is_bounded(node) for value in node.outputs]
    return [
        str(value.name)
        for value in (*inputs, *made)
        if value.dtype == ir.DataType.FLOAT and value.name not in known and static_shape(value) is not None
    ]


def complete(model: onnx.ModelProto, measured: Mapping[str, float]) -> dict[str, float]:
    """Largest absolute value of every FP32 activation, in the graph's order.

    What was not measured is a gate, with values in [-1, 1], or no larger than what it is computed from.

    Args:
        model: FP32 graph.
        measured: by tensor; 0 for one that was zero throughout.
    """
    graph = inferred(model).graph
    sizes: dict[str, float] = {}
    for value in graph.inputs:
        _set(sizes, value, measured.get(str(value.name)))
    for node in graph:
        for value in node.outputs:
            own = measured.get(str(value.name))
            _set(sizes, value, _bound(node, sizes) if own is None and _is_bounded(node) else own)
    return sizes


def _set(sizes: dict[str, float], value: ir.Value, size: float | None) -> None:
    if size is not None and value.dtype == ir.DataType.FLOAT:
        sizes[str(value.name)] = size or _ANY


def _is_bounded(node: ir.Node) -> bool:
    if node.op_type == "Resize":
        return node.attributes.get_string("mode", "nearest") != "cubic"
    return (node.op_type in _BOUNDED or _is_gated(node)) and not any(map(_is_weight, node.inputs))


def _is_gated(node: ir.Node) -> bool:
    makers = (value.producer() for value in node.inputs if value is not None)
    return node.op_type == "Mul" and any(maker is not None and maker.op_type in GATES for maker in makers)


def _is_weight(value: ir.Value | None) -> bool:
    """Whether a value is FP32 weights, whose size is not among those of the activations."""
    return value is not None and value.dtype == ir.DataType.FLOAT and is_constant(value)


def _bound(node: ir.Node, sizes: Mapping[str, float]) -> float | None:
    """The size that a bounded node's outputs cannot exceed; None where no input has one."""
    if node.op_type in GATES:
        return 1.0
    read = [sizes[str(value.name)] for value in node.inputs if value is not None and str(value.name) in sizes]
    if not read:
        return None
    return math.prod(read) if _is_gated(node) else max(read)

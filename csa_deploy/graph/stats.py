"""Operations, parameters and multiply-accumulates of an ONNX graph."""

from __future__ import annotations

import math
from collections import Counter

import onnx
import onnx_ir as ir

from csa_deploy.graph.facts import constants_of
from csa_deploy.graph.operators import ONNX_DOMAINS, QUANTIZERS, Trait, having
from csa_deploy.graph.shapes import editable, infer_shapes, inferred, static_shape, stored_bytes
from csa_deploy.records.graphs import GraphStatistics

_MULTIPLIES = having(Trait.MULTIPLIES)
_SECOND = {"QLinearConv": 3, "QLinearMatMul": 3}  # where the second operand stands among the inputs, if not at 1
_RECURRENT = ("GRU", "LSTM", "RNN")
_NOT_COUNTED = ("Attention", "DFT", "STFT")
_CONTROL = ("If", "Loop", "Scan", "SequenceMap")


def graph_statistics(model: onnx.ModelProto) -> GraphStatistics:
    """Count a model's operations, parameters, multiply-accumulates and bytes."""
    graph = inferred(model).graph
    macs, unknown = _macs(graph)
    if unknown:
        macs, unknown = _macs(_folded(model))
    tensors = constants_of(graph)
    return GraphStatistics(
        ops=dict(sorted(Counter(node.op_type for node in graph).items())),
        parameters=sum(t.size for t in tensors if _is_parameter(t.dtype)),
        macs=None if unknown else macs,
        macs_unknown=tuple(unknown),
        weight_bytes=sum(map(stored_bytes, tensors)),
    )


def _macs(graph: ir.Graph) -> tuple[int, list[str]]:
    """Multiply-accumulates of the nodes where they are known, and the names of the others."""
    counts = {node: node_macs(node) for node in graph}
    unknown = [node.name or node.op_type for node, count in counts.items() if count is None]
    return sum(count for count in counts.values() if count is not None), unknown


def _folded(model: onnx.ModelProto) -> ir.Graph:
    """The graph with its shape arithmetic computed, which shows shapes that inference alone does not find."""
    from csa_deploy.graph.rules import constants

    view = editable(model)
    constants.RULE.apply(view)
    infer_shapes(view)
    return view.graph


def _is_parameter(dtype: ir.DataType) -> bool:
    return dtype.is_floating_point() or (not dtype.is_string() and dtype.bitwidth == 8)


def node_macs(node: ir.Node) -> int | None:
    """Multiply-accumulates of one node: 0 for what does not multiply operands, None where they are not known."""
    if node.domain not in ONNX_DOMAINS:
        return 0 if node.op_type in QUANTIZERS else None
    if node.op_type in _MULTIPLIES:
        return _counted(node)
    if node.op_type in _RECURRENT:
        return _recurrent(node)
    if node.op_type in _CONTROL:
        return 0 if all(node_macs(inner) == 0 for body in _bodies(node) for inner in body) else None
    return None if node.op_type in _NOT_COUNTED else 0


def _bodies(node: ir.Node) -> list[ir.Graph]:
    return [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]


def _counted(node: ir.Node) -> int | None:
    place = _SECOND.get(node.op_type, 1)
    operands = [static_shape(value) for value in (node.inputs[0], *node.inputs[place : place + 1])]
    out = static_shape(node.outputs[0])
    if node.op_type == "Einsum":
        return _einsum(node, [static_shape(value) for value in node.inputs])
    if len(operands) < 2 or operands[0] is None or operands[1] is None or out is None:
        return None
    data, weight = operands[0], operands[1]
    if node.op_type == "ConvTranspose":
        return math.prod(data) * math.prod(weight[1:])
    if "Conv" in node.op_type:
        return math.prod(out) * math.prod(weight[1:])
    transposed = node.op_type == "Gemm" and bool(node.attributes.get_int("transA", 0))
    return math.prod(out) * (data[0] if transposed else data[-1])


def _einsum(node: ir.Node, shapes: list[tuple[int, ...] | None]) -> int | None:
    """Of two operands: one product for each combination of the indices; of one: none. Of more the order decides."""
    if len(shapes) == 1:
        return 0
    equation = (node.attributes.get_string("equation") or "").replace(" ", "")
    terms = equation.split("->")[0].split(",")
    if "." in equation or len(shapes) != 2 or None in shapes:
        return None
    extents: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for index, extent in zip(term, shape or (), strict=True):
            extents[index] = max(extent, extents.get(index, 1))
    return math.prod(extents.values())


def _recurrent(node: ir.Node) -> int | None:
    """Of input (T, B, I) or, with layout 1, (B, T, I): each step of each sequence multiplies all weights once."""
    data, weight, hidden = (static_shape(value) for value in node.inputs[:3])
    if data is None or weight is None or hidden is None:
        return None
    return data[0] * data[1] * (math.prod(weight) + math.prod(hidden))
